"""Layers that train faster on processors than PyTorch's, with the same parameters and names.

Everywhere else (evaluation, GPU, other types, tracing, export, compilation, counting) they are the
layers that they stand for.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from convnext_steps.models.convnext import Block
from convnext_steps.models.fast.depthwise import is_plain_training, use_fast_depthwise
from convnext_steps.models.fast.functions import gelu, linear, residual
from convnext_steps.models.fast.memory import kept_memory
from convnext_steps.models.fast.norm import FastLayerNorm, FastLayerNorm2d
from convnext_steps.models.fast.run import SINGLE, TYPES, kernels
from convnext_steps.models.layers import LayerNorm2d

LARGE = 2**15  # weights of a 1x1 convolution from which on it is faster as a linear layer


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


class FastLinear(nn.Linear):
    """`nn.Linear`, by the faster of PyTorch's two libraries."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x times the weight plus the bias, (..., in) -> (..., out)."""
        if not torch.compiler.is_compiling() and self.training and x.ndim >= 2:
            kind = _product_type(x, self.weight)
            if kind is not None and x.shape[-1] == self.in_features:
                return linear(x, self.weight, self.bias, kind)
        return super().forward(x)


class PointwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with a kernel of one position, as a linear layer over the channels."""

    def forward(self, x: Tensor) -> Tensor:
        """Mix the channels of each position, (N, in, H, W) -> (N, out, H, W)."""
        if not torch.compiler.is_compiling() and self.training and x.ndim == 4:
            kind = _product_type(x, self.weight)
            if kind is not None and x.shape[1] == self.in_channels:
                return linear(x, self.weight, self.bias, kind)
        return super().forward(x)


class FastGELU(nn.GELU):
    """`nn.GELU`, exact, with a faster backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x times the normal distribution up to x."""
        if not torch.compiler.is_compiling() and self.training and _has_kernel(x):
            return gelu(x)
        return super().forward(x)


class FastBlock(Block):
    """ConvNeXt's `Block`, that scales its branch and adds it in one pass over memory."""

    def add(self, x: Tensor, branch: Tensor) -> Tensor:
        """Return x + drop_path(gamma * branch), (N, C, H, W) and (N, H, W, C) -> (N, C, H, W)."""
        gamma = self.gamma
        if torch.compiler.is_compiling() or not self.training or gamma is None:
            return super().add(x, branch)
        if not _is_scaled_sum(x, branch, gamma) or kernels() is None:
            return super().add(x, branch)
        factors = self.drop_path(torch.ones(len(x), 1, 1, 1, **SINGLE))  # what it multiplies with
        return residual(x, branch, gamma, factors)


FAST: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: FastLinear,
    nn.Conv2d: PointwiseConv2d,
    nn.GELU: FastGELU,
    nn.LayerNorm: FastLayerNorm,
    LayerNorm2d: FastLayerNorm2d,
    Block: FastBlock,
}


def _is_known(layer: nn.Module) -> bool:
    """Return whether the fast class computes what this layer does, and is faster."""
    if isinstance(layer, nn.Conv2d):
        return (
            layer.kernel_size == layer.stride == (1, 1)
            and layer.groups == 1
            and layer.padding == (0, 0)
            and layer.weight.numel() >= LARGE
        )
    return not isinstance(layer, nn.GELU) or layer.approximate == "none"


def _product_type(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """Return the type in which a product trains plainly through oneDNN; None if it does not."""
    kind = x.dtype
    if torch.is_autocast_enabled("cpu"):
        kind = torch.get_autocast_dtype("cpu")
    elif weight.dtype != kind:
        return None
    served = (
        {kind, x.dtype, weight.dtype} <= {*TYPES}
        and is_plain_training(x, weight)
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and (kind == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )
    return kind if served else None


def _is_scaled_sum(x: Tensor, branch: Tensor, gamma: Tensor) -> bool:
    """Return whether the compiled kernels take a shortcut, a branch and a LayerScale."""
    return (
        is_plain_training(x, gamma)
        and is_plain_training(branch, gamma)
        and x.dtype in TYPES
        and gamma.dtype == torch.float32
        and (branch.dtype == torch.bfloat16 or x.dtype == branch.dtype == torch.float32)
        and x.ndim == branch.ndim == 4
        and x.permute(0, 2, 3, 1).shape == branch.shape
        and gamma.shape == branch.shape[-1:]
        and gamma.is_contiguous()
    )


def _has_kernel(x: Tensor) -> bool:
    """Return whether the compiled kernels take this tensor, element by element."""
    return (
        x.dtype in TYPES
        and x.requires_grad
        and is_plain_training(x, x)
        and (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last))
        and kernels() is not None
    )
