"""Layers that train faster on processors than PyTorch's, with the same parameters and names.

Everywhere else (evaluation, GPU, other types, tracing, export, compilation, counting) they are the
layers that they stand for.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from convnext_steps.models.convnext import Block
from convnext_steps.models.fast.block import FastBlock
from convnext_steps.models.fast.depthwise import use_fast_depthwise
from convnext_steps.models.fast.gelu import FastGELU
from convnext_steps.models.fast.linear import FastLinear
from convnext_steps.models.fast.memory import kept_memory
from convnext_steps.models.fast.norm import FastLayerNorm, FastLayerNorm2d
from convnext_steps.models.fast.patches import PatchConv2d
from convnext_steps.models.layers import LayerNorm2d

LARGE = 2**15  # weights of a convolution from which on it is faster as a linear layer


def use_fast_layers(model: nn.Module) -> nn.Module:
    """Turn a model's layers into the fast ones, in place; return the model.

    Parameters, their names and hooks stay. The model should be channels-last.
    """
    for layer in use_fast_depthwise(model).modules():
        if type(layer) in FAST and _is_known(layer):
            layer.__class__ = FAST[type(layer)]
    return model


@contextmanager
def fast_layers(model: nn.Module) -> Iterator[None]:
    """Let a model's layers be the fast ones for a while; then they are its own again.

    Meanwhile memory is kept from step to step.
    """
    kinds = {layer: type(layer) for layer in model.modules()}
    use_fast_layers(model)
    try:
        with kept_memory():
            yield
    finally:
        for layer, kind in kinds.items():
            layer.__class__ = kind


FAST: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: FastLinear,
    nn.Conv2d: PatchConv2d,
    nn.GELU: FastGELU,
    nn.LayerNorm: FastLayerNorm,
    LayerNorm2d: FastLayerNorm2d,
    Block: FastBlock,
}


def _is_known(layer: nn.Module) -> bool:
    """Return whether the fast class computes what this layer does, and is faster."""
    if isinstance(layer, nn.Conv2d):
        return (
            layer.kernel_size == layer.stride
            and len(set(layer.stride)) == layer.groups == 1
            and layer.padding == (0, 0)
            and layer.dilation == (1, 1)
            and layer.weight.numel() >= LARGE
        )
    return not isinstance(layer, nn.GELU) or layer.approximate == "none"
