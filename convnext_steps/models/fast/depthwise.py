"""A depthwise convolution that trains fast on processors: a drop-in for `nn.Conv2d`.

PyTorch's own (oneDNN's) is slow at a depthwise convolution's gradients: the weight's takes up to a
hundred times as long as its multiply-adds need, and so does the input's at stride 2 in bfloat16.
With numba (`pip install "convnext-steps[fast]"`) both run in `depthwise_kernels.py`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convnext_steps.models.fast.depthwise_plans import (
    Job,
    plan_input_gradient,
    plan_weight_gradient,
)
from convnext_steps.models.fast.run import (
    SINGLE,
    attribute,
    differentiable_once,
    is_plain_training,
    kernels,
    run,
)

KERNEL_SIZES = (3, 5, 7, 9, 11)


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with groups = in_channels = out_channels, whose gradients are fast.

    In training on a processor, in float32 or bfloat16, where PyTorch's are slow; then the result is
    channels-last. Everywhere else (evaluation, GPU, other types, tracing, export, compilation,
    counting) it is `nn.Conv2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve each channel with its kernel, (N, C, H, W) -> (N, C, H / stride, W / stride)."""
        if not torch.compiler.is_compiling() and self.training and _is_served(self, x):
            return _train(self, x)
        return super().forward(x)


def use_fast_depthwise(model: nn.Module) -> nn.Module:
    """Turn a model's depthwise convolutions into `DepthwiseConv2d`, in place; return the model."""
    for layer in model.modules():
        if type(layer) is nn.Conv2d and _has_kernels(layer):
            layer.__class__ = DepthwiseConv2d  # the same parameters, buffers and hooks
    return model


def _has_kernels(layer: nn.Conv2d) -> bool:
    """Return whether a convolution is depthwise and of a shape that the kernels know."""
    kernel, stride, padding = layer.kernel_size, layer.stride, layer.padding
    return (
        layer.groups == layer.in_channels == layer.out_channels
        and kernel[0] == kernel[1]
        and kernel[0] in KERNEL_SIZES
        and stride[0] == stride[1]
        and not isinstance(padding, str)
        and padding[0] == padding[1] < kernel[0]
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
    )


def _is_served(layer: nn.Conv2d, x: Tensor) -> bool:
    """Return whether the kernels compute the gradients of this call."""
    weight = layer.weight
    autocast = torch.is_autocast_enabled("cpu")
    return (
        is_plain_training(x, weight)
        and {x.dtype, weight.dtype} <= {torch.float32, torch.bfloat16}
        and (x.dtype == weight.dtype or autocast)
        and (not autocast or torch.get_autocast_dtype("cpu") == torch.bfloat16)
        and x.ndim == 4
        and x.shape[1] == layer.in_channels
        and _has_kernels(layer)
        and (autocast or x.dtype == torch.bfloat16 or _is_slow_in_float32(layer, x))
        and min(x.shape[2:]) + 2 * int(layer.padding[0]) >= layer.kernel_size[0]
        and kernels() is not None
    )


def _is_slow_in_float32(layer: nn.Conv2d, x: Tensor) -> bool:
    """Return whether PyTorch's gradients are: always, but for 3x3 on maps of at least 3x3."""
    return layer.kernel_size[0] > 3 or min(x.shape[2:]) < 3


def _train(layer: nn.Conv2d, x: Tensor) -> Tensor:
    kind = torch.bfloat16 if torch.is_autocast_enabled("cpu") else x.dtype
    stride, padding = layer.stride[0], int(layer.padding[0])
    result: Tensor = _Depthwise.apply(x, layer.weight, layer.bias, stride, padding, kind)
    return result


class _Depthwise(torch.autograd.Function):
    """PyTorch's convolution forward, the compiled kernels backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int,
                padding: int, kind: torch.dtype) -> Tensor:  # fmt: skip
        ctx.wide = x.dtype == torch.float32  # then its gradient is written as such
        x = x.to(kind).contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        ctx.bias_type = None if bias is None else bias.dtype
        bias = None if bias is None else bias.to(kind)
        return F.conv2d(x, weight.to(kind), bias, stride, padding, groups=len(weight))

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        x = x.contiguous(memory_format=torch.channels_last)  # a hook may have kept it otherwise
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        job = Job.of(x, gradient, weight.shape[2], ctx.stride, ctx.padding, ctx.wide)
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_x = input_gradient(gradient, weight, job)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            to_weight, to_bias = weight_gradient(x, gradient, job)
            to_weight = to_weight.to(weight.dtype)
            to_bias = to_bias.to(ctx.bias_type) if ctx.needs_input_grad[2] else None
        return to_x, to_weight, to_bias, None, None, None


def input_gradient(gradient: Tensor, weight: Tensor, job: Job) -> Tensor:
    """Return the gradient of the input, channels-last, from the result's, which must be so too."""
    taps = torch.zeros(job.kernel**2, job.blocks * attribute("LANES"), **SINGLE)
    taps[:, : job.channels] = weight.detach().reshape(job.channels, -1).t()
    kind = torch.float32 if job.wide else gradient.dtype
    target = gradient.new_empty(job.images, job.rows, job.columns, job.channels, dtype=kind)
    plan, phases = plan_input_gradient(job)
    call = plan.copy()
    call["source"] = gradient.data_ptr()
    call["target"] = target.data_ptr()
    call["taps"] = taps.data_ptr()
    call["phases"] = phases.ctypes.data
    run("input_gradient", call)
    return target.permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


def weight_gradient(x: Tensor, gradient: Tensor, job: Job) -> tuple[Tensor, Tensor]:
    """Return the gradients of weight (C, 1, kernel, kernel) and bias (C), in float32.

    The input `x` and the result's `gradient` must be channels-last.
    """
    call = plan_weight_gradient(job).copy()
    chunks = int(call["tasks"][0]) // job.blocks
    lanes = attribute("LANES")
    total = torch.empty(chunks, job.blocks, job.kernel**2 + 1, lanes, **SINGLE)
    call["source"] = x.data_ptr()
    call["gradient"] = gradient.data_ptr()
    call["total"] = total.data_ptr()
    run("weight_gradient", call)
    sums = total.sum(0).transpose(1, 2)  # (blocks, taps, lanes) -> (blocks, lanes, taps)
    to_weight = sums[..., :-1].reshape(-1, 1, job.kernel, job.kernel)[: job.channels]
    return to_weight, sums[..., -1].reshape(-1)[: job.channels]
