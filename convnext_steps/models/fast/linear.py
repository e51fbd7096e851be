"""Linear layers by the fastest products that a processor has.

These are compiled kernels (products.py) or one of PyTorch's two libraries.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_steps.models.fast.gelu import gelu_and_slope, multiply_by_slope
from convnext_steps.models.fast.products import (
    are_served,
    multiply_columns,
    multiply_rows,
    row_chunks,
)
from convnext_steps.models.fast.run import (
    SINGLE,
    TYPES,
    Chain,
    differentiable_once,
    is_plain_training,
)

WIDE = 128  # from so many channels on, oneDNN's float32 weight gradient is faster than MKL's
LONG = 4096  # rows from which on turning a bfloat16 weight gradient round costs less than it saves


class FastLinear(nn.Linear):
    """`nn.Linear`, by the fastest products."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x times the weight plus the bias, (..., in) -> (..., out)."""
        if not torch.compiler.is_compiling() and self.training and x.ndim >= 2:
            kind = product_type(x, self.weight)
            if kind is not None and x.shape[-1] == self.in_features:
                return linear(x, self.weight, self.bias, kind)
        return super().forward(x)


def product_type(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """Return the type in which a product trains plainly; None if it does not, or not faster."""
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


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, kind: torch.dtype) -> Tensor:
    """Apply a linear layer in float32 or bfloat16, (..., in) -> (..., out)."""
    rows: Tensor = _Linear.apply(x, weight, bias, kind)
    return rows.view(*x.shape[:-1], -1)  # out here: an in-place ReLU refuses a Function's views


class _Linear(torch.autograd.Function):
    """The products by compiled kernels or the faster of PyTorch's libraries.

    oneDNN, a part of PyTorch, multiplies float32 matrices twice as fast as MKL, which PyTorch
    prefers, on AMD's AVX-512 (Zen 5), and needs less preparation as a linear layer than as a
    convolution. In both types the weight's gradient is faster with the wider factor at the right.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None,
                kind: torch.dtype) -> Tensor:  # fmt: skip
        ctx.shape, ctx.weight_type = x.shape, weight.dtype
        ctx.bias_type = None if bias is None else bias.dtype
        x = x.to(kind).contiguous().view(-1, x.shape[-1])
        weight = factor(x, weight)
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = gradient.contiguous()
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_x = gradient_of_input(rows, weight).view(ctx.shape)
        if ctx.needs_input_grad[1]:
            to_weight = gradient_of_weight(x, rows, ctx.weight_type)
        if ctx.needs_input_grad[2]:
            to_bias = rows.sum(0).to(ctx.bias_type)
        return to_x, to_weight, to_bias, None


def factor(x: Tensor, weight: Tensor) -> Tensor:
    """Return a weight (out, in) as the products with x (R, in) take it: the kernels as it is."""
    return weight if _has_kernels(x, weight) else weight.to(x.dtype)


def _has_kernels(rows: Tensor, weight: Tensor) -> bool:
    return are_served(len(rows), *weight.shape)


def product(
    left: Tensor, right: Tensor, bias: Tensor | None = None, chain: Chain | None = None
) -> Tensor:
    """Return left times the transpose of right plus a bias."""
    if _has_kernels(left, right):
        return multiply_rows(left, right, bias, turned=True, chain=chain)
    return _library_product(left, right, bias)


def _library_product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `product` by the faster of PyTorch's libraries; factors may be transposed views."""
    bias = None if bias is None else bias.to(left.dtype)
    if left.dtype == torch.float32 and torch.backends.cpu.get_cpu_capability() != "AVX512":
        return F.linear(left, right, bias)  # MKL's: with AVX2, oneDNN's is up to twice as slow
    result: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return result


def product_gelu(
    left: Tensor, right: Tensor, bias: Tensor, chain: Chain | None = None
) -> tuple[Tensor, Tensor]:
    """Return GELU of `product`, and its derivative."""
    if not _has_kernels(left, right):
        return gelu_and_slope(product(left, right, bias))
    slope = left.new_empty(len(left), len(right))
    return multiply_rows(left, right, bias, turned=True, chain=chain, slope=slope), slope


def gradient_of_input(gradient: Tensor, weight: Tensor, chain: Chain | None = None) -> Tensor:
    """Return the gradient of a linear layer's rows (R, in) from that of its result (R, out)."""
    if _has_kernels(gradient, weight):
        return multiply_rows(gradient, weight, chain=chain)
    if gradient.dtype == torch.float32:
        return _library_product(gradient, weight.t())
    return gradient @ weight


def gradient_through(
    gradient: Tensor, weight: Tensor, slope: Tensor, chain: Chain | None = None
) -> tuple[Tensor, Tensor]:
    """Return `gradient_of_input` times the slope (R, in) of an activation before, and sums of it.

    Added up, the sums (chunks, in), float32, are the gradient of the bias before the activation.
    """
    if not _has_kernels(gradient, weight):
        result = gradient_of_input(gradient, weight)
        return result, multiply_by_slope(result, slope)
    total = torch.empty(row_chunks(len(gradient), chain), weight.shape[1], **SINGLE)
    return multiply_rows(gradient, weight, chain=chain, slope=slope, total=total), total


def gradient_of_weight(
    x: Tensor, gradient: Tensor, kind: torch.dtype, filled: bool = False
) -> Tensor:
    """Return the gradient (out, in) of a linear layer's weight, by the faster way round.

    If `filled`, a chain of kernels has written x and gradient.
    """
    if are_served(*x.shape, gradient.shape[1]):
        return multiply_columns(gradient, x, filled).to(kind)
    short = x.dtype == torch.bfloat16 and len(x) < LONG
    if gradient.shape[1] < x.shape[1] or short:
        result = _tall_product(gradient, x)
    else:
        result = _tall_product(x, gradient).t()
    return torch.empty(result.shape, dtype=kind).copy_(result)


def _tall_product(left: Tensor, right: Tensor) -> Tensor:
    """Return left.t() @ right."""
    if left.dtype == torch.float32 and right.shape[1] >= WIDE:
        return _library_product(left.t(), right.t())
    return left.t() @ right
