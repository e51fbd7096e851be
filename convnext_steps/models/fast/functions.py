"""What the fast layers compute: the same as PyTorch up to rounding, in less time on processors."""

import math
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from convnext_steps.models.fast.run import CHUNK, SINGLE, differentiable_once, run_with

WIDE = 128  # from so many channels on, oneDNN's float32 weight gradient is faster than MKL's
LONG = 4096  # rows from which on turning a bfloat16 weight gradient round costs less than it saves


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, kind: torch.dtype) -> Tensor:
    """Apply a linear layer or, with a 4-d weight, a 1x1 convolution, in float32 or bfloat16."""
    if weight.ndim == 4:
        x = x.permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), a view when channels are last
    rows: Tensor = _Linear.apply(x, weight, bias, kind)
    result = rows.view(*x.shape[:-1], -1)  # out here: an in-place ReLU refuses a Function's views
    return result.permute(0, 3, 1, 2) if weight.ndim == 4 else result


def gelu(x: Tensor) -> Tensor:
    """Apply GELU to a tensor without gaps."""
    result: Tensor = _Gelu.apply(x)
    return result


def residual(x: Tensor, branch: Tensor, gamma: Tensor, factors: Tensor) -> Tensor:
    """Return x + gamma * branch * factors, of a shortcut (N, C, H, W) and a branch (N, H, W, C).

    gamma (C) is a LayerScale, factors (N, ...) are 1 or what stochastic depth drew. The result is
    float32 and channels-last.
    """
    result: Tensor = _Residual.apply(x, branch, gamma, factors)
    return result.permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W), out here as in `linear`


class _Linear(torch.autograd.Function):
    """The products by the faster of PyTorch's libraries.

    oneDNN, a part of PyTorch, multiplies float32 matrices twice as fast as MKL, which PyTorch
    prefers, on AMD's AVX-512 (Zen 5), and needs less preparation as a linear layer than as a
    convolution. In both types the weight's gradient is faster with the wider factor at the right.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None,
                kind: torch.dtype) -> Tensor:  # fmt: skip
        ctx.shape, ctx.weight_shape, ctx.weight_type = x.shape, weight.shape, weight.dtype
        ctx.bias_type = None if bias is None else bias.dtype
        x = x.to(kind).contiguous().view(-1, x.shape[-1])
        weight = weight.reshape(weight.shape[:2]).to(kind)
        ctx.save_for_backward(x, weight)
        return _product(x, weight, None if bias is None else bias.to(kind))

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = gradient.contiguous()
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            single = x.dtype == torch.float32
            to_x = (_product(rows, weight.t()) if single else rows @ weight).view(ctx.shape)
        if ctx.needs_input_grad[1]:
            to_weight = torch.empty(ctx.weight_shape, dtype=ctx.weight_type)
            to_weight.view(weight.shape).copy_(_weight_gradient(x, rows))
        if ctx.needs_input_grad[2]:
            to_bias = rows.sum(0).to(ctx.bias_type)
        return to_x, to_weight, to_bias, None


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return left times the transpose of right, by oneDNN; in float32 only with AVX-512."""
    if left.dtype == torch.float32 and torch.backends.cpu.get_cpu_capability() != "AVX512":
        return F.linear(left, right, bias)  # MKL's: with AVX2, oneDNN's is up to twice as slow
    result: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return result


def _weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """Return gradient.t() @ x, either way round."""
    short = x.dtype == torch.bfloat16 and len(x) < LONG
    if gradient.shape[1] < x.shape[1] or short:
        return _tall_product(gradient, x)
    return _tall_product(x, gradient).t()


def _tall_product(left: Tensor, right: Tensor) -> Tensor:
    """Return left.t() @ right."""
    if left.dtype == torch.float32 and right.shape[1] >= WIDE:
        return _product(left.t(), right.t())
    return left.t() @ right


class _Gelu(torch.autograd.Function):
    """GELU and its slope in one pass, so that the backward pass is a multiplication."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        target, slope = torch.empty_like(x), torch.empty_like(x)
        run_with(
            "gelu",
            "GELU",
            x=x.data_ptr(),
            target=target.data_ptr(),
            slope=slope.data_ptr(),
            table=_gelu_of_bfloat16().data_ptr() if x.dtype == torch.bfloat16 else 0,
            count=x.numel(),
            chunk=CHUNK,
            tasks=-(-x.numel() // CHUNK),
        )
        ctx.save_for_backward(slope)
        return target

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        return gradient * slope


@cache
def _gelu_of_bfloat16() -> Tensor:
    """Return GELU and its slope for every bfloat16, in the order of their bits, (65536, 2)."""
    x = torch.arange(2**16).to(torch.int16).view(torch.bfloat16).double()
    z = x.clamp(-40, 40)  # beyond, the slope is 0 or 1, not an infinity times 0
    slope = torch.special.ndtr(z) + z * torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return torch.stack([F.gelu(x), slope], dim=1).bfloat16()


class _Residual(torch.autograd.Function):
    """Both directions in one pass over memory each; the result's channels are the last axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor, gamma: Tensor, factors: Tensor) -> Tensor:
        x, branch = x.permute(0, 2, 3, 1).contiguous(), branch.contiguous()
        ctx.save_for_backward(branch, gamma, factors)
        target = torch.empty(x.shape, **SINGLE)
        run_with(
            "residual",
            "RESIDUAL",
            x=x.data_ptr(),
            target=target.data_ptr(),
            half_x=x.dtype == torch.bfloat16,
            **_scaling(branch, gamma, factors),
        )
        return target

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        branch, gamma, factors = ctx.saved_tensors
        branch, rows = branch.contiguous(), gradient.contiguous()
        to_branch = torch.empty_like(branch)
        call = _scaling(branch, gamma, factors)
        total = torch.empty(call["tasks"], len(gamma), **SINGLE)
        run_with(
            "residual_gradient",
            "RESIDUAL_GRADIENT",
            gradient=rows.data_ptr(),
            to_branch=to_branch.data_ptr(),
            total=total.data_ptr(),
            **call,
        )
        return gradient.permute(0, 3, 1, 2), to_branch, total.sum(0), None


def _scaling(branch: Tensor, gamma: Tensor, factors: Tensor) -> dict[str, int]:
    """Return what both kernels of the residual are told; a task is one of an image's chunks."""
    images, rows, channels = len(branch), branch.shape[1] * branch.shape[2], len(gamma)
    chunks = max(1, min(rows, rows * channels // CHUNK))
    return {
        "branch": branch.data_ptr(),
        "gamma": gamma.data_ptr(),
        "factors": factors.data_ptr(),
        "rows": rows,
        "channels": channels,
        "chunks": chunks,
        "tasks": images * chunks,
        "half": branch.dtype == torch.bfloat16,
    }
