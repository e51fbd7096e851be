"""Multiply-adds and parameters of a network, counted by fvcore."""

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convnext_steps.models.checks import check_images
from convnext_steps.models.layers import LayerNorm2d, evaluating, first_convolution

ATTENTION = "scaled_dot_product_attention"
CONV_LINEAR = ("conv", "linear", "addmm", "matmul", "mm", "bmm", "baddbmm", "einsum", ATTENTION)
PRODUCT = re.compile("conv|linear|mm|mv|dot|attention|lstm|gru|rnn|encoder")  # in a name
NORM = ("layer_norm", "batch_norm")
WITHOUT_PRODUCTS = (nn.BatchNorm2d, LayerNorm2d, nn.LayerNorm, nn.ReLU, nn.GELU)


@dataclass(frozen=True)
class FlopCount:
    """The cost of one image's forward pass, in multiply-adds as fvcore counts them.

    The paper's GFLOPs are `conv_linear` / 1e9, which includes every product of matrices. fvcore
    also counts norms (5 per element for LayerNorm, 2 for BatchNorm in eval mode) and average
    pooling; `total` is the sum of all.
    """

    conv_linear: int
    norm: int
    total: int
    params: int
    by_operator: dict[str, int]
    uncounted: dict[str, int]  # calls of operators without a formula in fvcore, such as add

    def __str__(self) -> str:
        products = [name for name in self.uncounted if PRODUCT.search(name)]
        missing = f"; not counted: {', '.join(products)}" if products else ""
        return (
            f"{self.conv_linear / 1e9:.3f} G multiply-adds in convolutions and linear layers "
            f"({self.total / 1e9:.3f} G with norms and pooling), "
            f"{self.params / 1e6:.2f} M parameters{missing}"
        )


def count_flops(
    model: nn.Module, resolution: int = 224, in_channels: int | None = None
) -> FlopCount:
    """Count one image's forward pass in eval mode.

    Args:
        model: any network over images; it is left as it is.
        resolution: side of the square image in pixels.
        in_channels: channels of the image; by default those of the model's first convolution.

    Raises:
        ValueError: the image is too small for the network, or `in_channels` is not given and the
            network has no convolution.
    """
    if resolution < 1:
        raise ValueError(f"resolution is {resolution}; it must be at least 1")
    model = getattr(model, "_orig_mod", model)  # inside what torch.compile returns
    if in_channels is None:
        first = first_convolution(model)
        if first is None:
            raise ValueError("the model has no convolution; give in_channels")
        in_channels = first.in_channels
    image = next(model.parameters(), torch.empty(())).new_zeros(
        1, in_channels, resolution, resolution
    )
    check_images(image, getattr(model, "smallest_side", 1))
    with evaluating(model), torch.no_grad(), _tracing(model), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # fvcore uses torch.jit, even on import
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model, image)
        analysis.set_op_handle(f"aten::{ATTENTION}", _attention)
        analysis.set_op_handle("aten::baddbmm", _batched_product)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.tracer_warnings("none")
        by_operator = {name: round(count) for name, count in sorted(analysis.by_operator().items())}
        uncounted = dict(sorted(analysis.unsupported_ops().items()))
    return FlopCount(
        conv_linear=sum(by_operator.get(name, 0) for name in CONV_LINEAR),
        norm=sum(by_operator.get(name, 0) for name in NORM),
        total=sum(by_operator.values()),
        params=sum(parameter.numel() for parameter in model.parameters()),
        by_operator=by_operator,
        uncounted=uncounted,
    )


@contextmanager
def _tracing(model: nn.Module) -> Iterator[None]:
    """What tracing needs, undone afterwards.

    It is without the fast path of `nn.MultiheadAttention`, one operator that hides its products.
    fvcore adds hooks, and leaves them where it fails.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    hooks = [h for m in model.modules() for h in (m._forward_hooks, m._forward_pre_hooks)]
    own = [set(each) for each in hooks]
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
        for each, known in zip(hooks, own, strict=True):
            for added in set(each) - known:
                del each[added]


def _attention(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """The products of queries (..., L, E) with keys (..., S, E), and of those with the values."""
    queries, keys, values = (value.type().sizes() for value in inputs[:3])
    return math.prod(queries[:-1]) * int(keys[-2]) * int(keys[-1] + values[-1])


def _batched_product(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """The product of (N, A, B) and (N, B, C), the second and third arguments."""
    one, other = (value.type().sizes() for value in inputs[1:3])
    return math.prod(one) * int(other[-1])


def count_on_meta(build: Callable[[], nn.Module], in_channels: int, resolution: int) -> int:
    """The multiply-adds of one image's forward pass, without memory or computation.

    PyTorch's own counter, on the meta device: convolutions and matrix products only. The library's
    layers that have none are left out: on this device they take most of the time.

    Args:
        build: makes the network.
        in_channels: channels of the image.
        resolution: its side in pixels.

    Raises:
        ValueError: the image is too small for the network.
    """
    with torch.device("meta"), torch.no_grad():
        model, image = build().eval(), torch.empty(1, in_channels, resolution, resolution)
        for module in list(model.modules()):
            for name, child in module.named_children():
                if type(child) in WITHOUT_PRODUCTS:
                    setattr(module, name, nn.Identity())
        with FlopCounterMode(display=False) as counter:
            model(image)
    return counter.get_total_flops() // 2
