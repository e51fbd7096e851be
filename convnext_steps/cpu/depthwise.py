"""Depthwise convolutions that train fast on a CPU, in place of PyTorch's own for a while.

PyTorch's (oneDNN's) gradients are slow there: the weight's takes up to a hundred times as long as
its multiply-adds need, and so does the input's at stride 2 in bfloat16. With numba
(`pip install "convnext-steps[fast]"`) the first runs in `kernels.py`; the second is PyTorch's in
float32, and its faster forward convolution where there is no stride.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.jit import is_tracing  # type: ignore[attr-defined]

from convnext_steps.cpu.plans import Job, plan
from convnext_steps.cpu.run import kernels, run

KERNEL_SIZES = (3, 5, 7, 9, 11)
SINGLE: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}  # of what the kernel writes to


@contextmanager
def fast_depthwise(model: nn.Module) -> Iterator[int]:
    """Let a model's depthwise convolutions train fast for a while; then they are its own again.

    Yields how many do. None do on a GPU, in a compiled model, or without numba, whose failure is
    logged once. The model should be channels-last.
    """
    chosen = [layer for layer in model.modules() if _is_eligible(layer)]
    if chosen and kernels() is None:
        chosen = []
    for layer in chosen:
        layer.__class__ = DepthwiseConv2d  # the same parameters, buffers and hooks
    try:
        yield len(chosen)
    finally:
        for layer in chosen:
            layer.__class__ = nn.Conv2d


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with groups = in_channels = out_channels, whose gradients are fast.

    In training on a CPU, in float32 or bfloat16; then the result is channels-last. Everywhere else
    it is `nn.Conv2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve each channel with its kernel, (N, C, H, W) -> (N, C, H / stride, W / stride)."""
        if self.training and _is_served(self, x):
            kind = torch.bfloat16 if torch.is_autocast_enabled("cpu") else x.dtype
            stride, padding = self.stride[0], int(self.padding[0])
            result: Tensor = _Depthwise.apply(x, self.weight, self.bias, stride, padding, kind)
            return result
        return super().forward(x)


def _is_eligible(layer: nn.Module) -> bool:
    """Whether a layer is a depthwise convolution on a CPU, of a shape that the kernel knows."""
    if type(layer) is not nn.Conv2d or layer.weight.device.type != "cpu":
        return False
    kernel, stride, padding = layer.kernel_size, layer.stride, layer.padding
    return (
        1 < layer.groups == layer.in_channels == layer.out_channels
        and kernel[0] == kernel[1]
        and kernel[0] in KERNEL_SIZES
        and stride[0] == stride[1]
        and not isinstance(padding, str)
        and padding[0] == padding[1] < kernel[0]
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
    )


def _is_served(layer: nn.Conv2d, x: Tensor) -> bool:
    """Whether this call's gradients are computed here."""
    weight = layer.weight
    autocast = torch.is_autocast_enabled("cpu")
    slow_in_float32 = layer.kernel_size[0] > 3 or min(x.shape[2:]) < 3  # PyTorch's gradients are
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not is_tracing()
        and {type(x), type(weight)} <= {Tensor, nn.Parameter}  # nothing that stands for a tensor
        and x.device.type == weight.device.type == "cpu"
        and x.layout == torch.strided
        and x.numel() > 0
        and {x.dtype, weight.dtype} <= {torch.float32, torch.bfloat16}
        and (x.dtype == weight.dtype or autocast)
        and (not autocast or torch.get_autocast_dtype("cpu") == torch.bfloat16)
        and x.ndim == 4
        and (autocast or x.dtype == torch.bfloat16 or slow_in_float32)
    )


class _Depthwise(torch.autograd.Function):
    """PyTorch's convolution forward; backward the compiled kernel, and PyTorch for the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int,
                padding: int, kind: torch.dtype) -> Tensor:  # fmt: skip
        x = x.to(kind).contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        ctx.bias_type = None if bias is None else bias.dtype
        bias = None if bias is None else bias.to(kind)
        return F.conv2d(x, weight.to(kind), bias, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # PyTorch's own guard, once_differentiable, passes constants
            raise RuntimeError(
                "depthwise convolutions that train fast have no second derivatives; for "
                "create_graph=True train with How(fast_cpu=False)"
            )
        x, weight = ctx.saved_tensors
        x = x.contiguous(memory_format=torch.channels_last)  # a hook may have kept it otherwise
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_x = input_gradient(x, weight, gradient, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            half = x.dtype == torch.bfloat16
            shapes = (*x.shape, *gradient.shape[2:], weight.shape[2])
            to_weight, to_bias = weight_gradient(
                x, gradient, Job._make((*shapes, ctx.stride, ctx.padding, half))
            )
            to_weight = to_weight.to(weight.dtype)
            to_bias = to_bias.to(ctx.bias_type) if ctx.needs_input_grad[2] else None
        return to_x, to_weight, to_bias, None, None, None


def input_gradient(x: Tensor, weight: Tensor, slope: Tensor, stride: int, padding: int) -> Tensor:
    """Return the gradient of the input: without stride, a convolution with the kernel turned round.

    With one it is PyTorch's own in float32: in bfloat16 that takes up to a hundred times as long.
    """
    if stride == 1:
        turned, side = weight.flip(2, 3).to(slope.dtype), weight.shape[2]
        with torch.autocast("cpu", enabled=False):  # backward's may be another than forward's
            return F.conv2d(slope, turned, padding=side - 1 - padding, groups=len(weight))
    like = torch.empty_like(x, dtype=torch.float32)  # of which only shape and layout are read
    sizes = [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], len(weight)
    found: Tensor = torch.ops.aten.convolution_backward(
        slope.float(), like, weight.float(), None, *sizes, [True, False, False]
    )[0]
    return found


def weight_gradient(x: Tensor, gradient: Tensor, job: Job) -> tuple[Tensor, Tensor]:
    """Return the gradients of weight (C, 1, kernel, kernel) and bias (C), in float32.

    The input `x` and the result's `gradient` must be channels-last.
    """
    call = plan(job).copy()
    chunks = int(call["tasks"][0]) // job.blocks
    total = torch.empty(chunks, job.blocks, job.kernel**2 + 1, kernels().LANES, **SINGLE)
    call["source"] = x.data_ptr()
    call["gradient"] = gradient.data_ptr()
    call["total"] = total.data_ptr()
    run(call)
    sums = total.sum(0).transpose(1, 2)  # (blocks, taps, lanes) -> (blocks, lanes, taps)
    to_weight = sums[..., :-1].reshape(-1, 1, job.kernel, job.kernel)[: job.channels]
    return to_weight, sums[..., -1].reshape(-1)[: job.channels]
