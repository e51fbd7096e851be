"""LayerNorm that trains faster on processors than PyTorch's: in one pass over memory each way."""

from typing import Any

import torch
from torch import Tensor, nn

from convnext_steps.models.fast.run import (
    SINGLE,
    TYPES,
    Chain,
    differentiable_once,
    is_plain_training,
    kernels,
    row_tasks,
    run_with,
)
from convnext_steps.models.layers import LayerNorm2d


class FastLayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` over the last axis; bfloat16 stays so, though the weight be float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the channels of each position, (..., C) -> (..., C)."""
        if not torch.compiler.is_compiling() and self.training and _is_served(self, x):
            return layer_norm(x, self.weight, self.bias, self.eps, x.dtype)
        return super().forward(x)


class FastLayerNorm2d(LayerNorm2d):
    """`LayerNorm2d`, whose result is float32 as its weight."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each position by itself, (N, C, H, W) -> (N, C, H, W)."""
        if not torch.compiler.is_compiling() and self.training and x.ndim == 4:
            rows = x.permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), a view: channels are last
            if _is_served(self, rows):
                result = layer_norm(rows, self.weight, self.bias, self.eps, torch.float32)
                return result.permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)
        return super().forward(x)


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, kind: torch.dtype
) -> Tensor:
    """Normalise the last axis of x; weight and bias (C) are float32, the result is as asked."""
    result: Tensor = _LayerNorm.apply(x, weight, bias, epsilon, kind)
    return result


def _is_served(layer: nn.LayerNorm, x: Tensor) -> bool:
    """Return whether the compiled kernels normalise this tensor, channels last."""
    weight, bias = layer.weight, layer.bias
    return (
        weight is not None
        and bias is not None
        and is_plain_training(x, weight)
        and type(bias) in (Tensor, nn.Parameter)
        and x.dtype in TYPES
        and weight.dtype == bias.dtype == torch.float32
        and weight.shape == bias.shape == x.shape[-1:]
        and weight.is_contiguous()
        and bias.is_contiguous()
        and kernels() is not None
    )


class _LayerNorm(torch.autograd.Function):
    """The weight's and the bias's gradients are sums of float32.

    Where x is bfloat16, PyTorch's are of bfloat16, and a tenth off with 25,000 positions.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float,
                kind: torch.dtype) -> Tensor:  # fmt: skip
        x = x.contiguous()
        target, moments = normalise(x, weight, bias, epsilon, kind)
        ctx.save_for_backward(x, weight, moments)
        return target

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, moments = ctx.saved_tensors
        to_x, total = normalise_gradients(gradient.contiguous(), x, weight, moments)
        return to_x, *total.sum(0), None, None


def normalise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    epsilon: float,
    kind: torch.dtype,
    chain: Chain | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the normalised rows, and each one's mean and inverse standard deviation."""
    target, call = torch.empty_like(x, dtype=kind), _rows(x, weight, chain)
    moments = torch.empty(call["rows"], 2, **SINGLE)
    run_with(
        "layer_norm",
        "LAYER_NORM",
        chain,
        x=x,
        weight=weight,
        bias=bias,
        epsilon=torch.tensor(epsilon, **SINGLE),
        moments=moments,
        target=target,
        half_target=kind == torch.bfloat16,
        **call,
    )
    return target, moments


def normalise_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, moments: Tensor, chain: Chain | None = None
) -> tuple[Tensor, Tensor]:
    """Return the gradient of x, of its type, and those of weight and bias, float32, in parts.

    The parts (tasks, 2, C) are to be added up.
    """
    to_x, call = torch.empty_like(x), _rows(x, weight, chain)
    total = torch.empty(call["tasks"], 2, len(weight), **SINGLE)
    run_with(
        "layer_norm_gradient",
        "LAYER_NORM_GRADIENT",
        chain,
        x=x,
        weight=weight,
        gradient=gradient,
        half_gradient=gradient.dtype == torch.bfloat16,
        moments=moments,
        to_x=to_x,
        total=total,
        **call,
    )
    return to_x, total


def _rows(x: Tensor, weight: Tensor, chain: Chain | None) -> dict[str, int]:
    """Return what both kernels are told."""
    channels = len(weight)
    return {
        **row_tasks(x.numel() // channels, channels, chain),
        "scratch_bytes": 8 * channels,
        "half": x.dtype == torch.bfloat16,
    }
