"""A depthwise convolution that trains fast on processors: a drop-in for `nn.Conv2d`.

PyTorch's own (oneDNN's) is slow at a depthwise convolution's gradients: the weight's takes up to a
hundred times as long as its multiply-adds need, and so does the input's at stride 2 in bfloat16.
With numba (`pip install "convnext-steps[fast]"`) both run in `depthwise_kernels.py`.
"""

import ctypes
import importlib.util
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LANES = 16  # channels in a vector, as in depthwise_kernels.py
VECTOR = 4 * LANES  # its bytes
TOGETHER = 8  # results that a kernel computes at once
KERNEL_SIZES = (3, 5, 7, 9, 11)

Record = np.ndarray[Any, np.dtype[Any]]  # what a kernel is told, one row of named integers


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with groups = in_channels = out_channels, whose gradients are fast.

    In training on a processor, in float32 or bfloat16, the result is channels-last. Everywhere
    else (evaluation, GPU, other types, tracing, export, compilation, counting) it is `nn.Conv2d`.
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
        and min(x.shape[2:]) + 2 * int(layer.padding[0]) >= layer.kernel_size[0]
        and kernels() is not None
    )


def is_plain_training(x: Tensor, weight: Tensor) -> bool:
    """Return whether a layer's gradients are to be taken of plain tensors on a processor."""
    return (
        not _is_watched()
        and torch.is_grad_enabled()
        and x.device.type == weight.device.type == "cpu"
        and type(x) in (Tensor, nn.Parameter)  # nothing that only stands for a tensor
        and type(weight) in (Tensor, nn.Parameter)
        and x.numel() > 0
    )


def _is_watched() -> bool:
    """Return whether someone records PyTorch's operators: a tracer, a counter, functorch."""
    return (
        torch._C._get_tracing_state() is not None  # torch.jit.trace
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )


def _train(layer: nn.Conv2d, x: Tensor) -> Tensor:
    if torch.is_autocast_enabled("cpu"):
        x = x.to(torch.bfloat16)
    stride, padding = layer.stride[0], int(layer.padding[0])
    result: Tensor = _Depthwise.apply(x, layer.weight, layer.bias, stride, padding)
    return result


class _Depthwise(torch.autograd.Function):
    """PyTorch's convolution forward, the compiled kernels backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int,
                padding: int) -> Tensor:  # fmt: skip
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        ctx.bias_type = None if bias is None else bias.dtype
        bias = None if bias is None else bias.to(x.dtype)
        return F.conv2d(x, weight.to(x.dtype), bias, stride, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        job = Job.of(x, gradient, weight.shape[2], ctx.stride, ctx.padding)
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_x = input_gradient(gradient, weight, job)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            to_weight, to_bias = weight_gradient(x, gradient, job)
            to_weight = to_weight.to(weight.dtype)
            to_bias = to_bias.to(ctx.bias_type) if ctx.needs_input_grad[2] else None
        return to_x, to_weight, to_bias, None, None


class Job(NamedTuple):
    """The shapes of one convolution: what its kernels' plans depend on."""

    images: int
    channels: int
    rows: int
    columns: int
    out_rows: int
    out_columns: int
    kernel: int
    stride: int
    padding: int
    half: bool  # bfloat16

    @classmethod
    def of(cls, x: Tensor, result: Tensor, kernel: int, stride: int, padding: int) -> "Job":
        """Describe the convolution of x to result."""
        images, channels, rows, columns = x.shape
        out_rows, out_columns = result.shape[2:]
        half = x.dtype == torch.bfloat16
        return cls(images, channels, rows, columns, out_rows, out_columns, kernel, stride, padding,
                   half)  # fmt: skip

    @property
    def blocks(self) -> int:
        """How many vectors hold a pixel's channels."""
        return -(-self.channels // LANES)


def input_gradient(gradient: Tensor, weight: Tensor, job: Job) -> Tensor:
    """Return the gradient of the input, channels-last, from the result's, which must be so too."""
    taps = torch.zeros(job.kernel**2, job.blocks * LANES)
    taps[:, : job.channels] = weight.detach().reshape(job.channels, -1).t()
    target = gradient.new_empty(job.images, job.rows, job.columns, job.channels)
    plan, phases = _plan_input_gradient(job)
    call = plan.copy()
    call["source"] = gradient.data_ptr()
    call["target"] = target.data_ptr()
    call["taps"] = taps.data_ptr()
    call["phases"] = phases.ctypes.data
    _run("input_gradient", call)
    return target.permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


def weight_gradient(x: Tensor, gradient: Tensor, job: Job) -> tuple[Tensor, Tensor]:
    """Return the gradients of weight (C, 1, kernel, kernel) and bias (C), in float32.

    The input `x` and the result's `gradient` must be channels-last.
    """
    call = _plan_weight_gradient(job).copy()
    chunks = int(call["tasks"][0]) // job.blocks
    total = torch.empty(chunks, job.blocks, job.kernel**2 + 1, LANES)
    call["source"] = x.data_ptr()
    call["gradient"] = gradient.data_ptr()
    call["total"] = total.data_ptr()
    _run("weight_gradient", call)
    # (chunks, blocks, taps, lanes) -> (blocks, lanes, taps) -> (C, taps)
    total = total.sum(0).transpose(1, 2).reshape(job.blocks * LANES, -1)[: job.channels]
    return total[:, :-1].reshape(-1, 1, job.kernel, job.kernel), total[:, -1].contiguous()


# --- Plans: what a kernel is told, beside addresses -------------------------------------------


class Phase(NamedTuple):
    """The positions p of one axis with the same (p + padding) modulo the stride.

    Position number m, at first_out + m * stride, sums the gradients at start + m, start + m + 1, …
    times every stride-th tap, from last_tap downwards: without stride, a convolution with the
    kernel turned round.
    """

    taps: int
    last_tap: int
    first_out: int
    outs: int
    start: int


def _phases(size: int, kernel: int, stride: int, padding: int) -> list[Phase]:
    phases = []
    for remainder in range(stride):
        taps = len(range(remainder, kernel, stride))
        last_tap = remainder + (taps - 1) * stride
        block = -((remainder - padding) // stride)  # of the first position that is not negative
        first_out = block * stride + remainder - padding
        outs = len(range(first_out, size, stride))
        phases.append(Phase(taps, last_tap, first_out, outs, block - taps + 1))
    return phases


def _taps_inside(phase: Phase, size: int) -> int:
    """Count the taps of all positions that fall on the axis and not beside it."""
    starts = range(phase.start, phase.start + phase.outs)
    return sum(max(0, min(phase.taps, size - s) - max(0, -s)) for s in starts)


@lru_cache(maxsize=256)
def _plan_input_gradient(job: Job) -> tuple[Record, Record]:
    """Choose between computing 8 columns at once and 8 images: whichever multiplies less."""
    vertical = _phases(job.rows, job.kernel, job.stride, job.padding)
    horizontal = _phases(job.columns, job.kernel, job.stride, job.padding)
    by_columns = job.images * sum(p.taps * _round_up(p.outs, TOGETHER) for p in horizontal)
    inside = sum(_taps_inside(phase, job.out_columns) for phase in horizontal)
    together, left, slab_columns = TOGETHER, 0, job.out_columns
    if by_columns < _round_up(job.images, TOGETHER) * inside:
        together, left = 1, max(0, *(-p.start for p in horizontal))
        ends = [p.start + _round_up(p.outs, TOGETHER) - 1 + p.taps for p in horizontal]
        slab_columns = left + max(job.out_columns, *ends)
    slab_bytes = job.out_rows * slab_columns * together * VECTOR
    plan = _record(
        "INPUT_GRADIENT",
        job,
        tasks=job.blocks * -(-job.images // together),
        slab_bytes=slab_bytes,
        scratch_bytes=slab_bytes + TOGETHER * VECTOR,
        together=together,
        left=left,
        slab_columns=slab_columns,
    )
    return plan, np.array([*vertical, *horizontal], np.int64)


@lru_cache(maxsize=256)
def _plan_weight_gradient(job: Job) -> Record:
    chunk = -(-job.images // 8)  # up to 8 chunks: enough tasks for threads where channels are few
    columns = (job.out_columns - 1) * job.stride + job.kernel
    slab_columns = max(job.columns + job.padding, columns)
    slab_bytes = job.rows * slab_columns * VECTOR
    slope_bytes = _round_up(job.out_rows * job.out_columns, TOGETHER) * VECTOR
    return _record(
        "WEIGHT_GRADIENT",
        job,
        tasks=job.blocks * -(-job.images // chunk),
        chunk=chunk,
        slab_bytes=slab_bytes,
        slope_bytes=slope_bytes,
        scratch_bytes=slab_bytes + slope_bytes + job.kernel**2 * VECTOR,
        slab_columns=slab_columns,
        tile=max(1, 256 // job.out_columns),  # rows whose pixels fit the first-level cache
    )


def _record(kind: str, job: Job, **values: int) -> Record:
    record = np.zeros(1, getattr(kernels(), kind))
    for name, value in {**job._asdict(), **values}.items():
        record[name] = value
    return record


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


# --- Running them -----------------------------------------------------------------------------


@cache
def kernels() -> Any:
    """Import the compiled kernels, when first needed; None where numba is missing or fails."""
    if importlib.util.find_spec("numba") is None:
        return None
    try:
        from convnext_steps.models import depthwise_kernels
    except Exception as error:  # numba is an option: whatever ails it, training must go on
        warnings.warn(f"depthwise convolutions train slowly, numba fails: {error}", stacklevel=2)
        return None
    return depthwise_kernels


def _run(name: str, call: Record) -> None:
    """Run a kernel on as many threads as PyTorch's operators use."""
    function, address = _function(name)
    threads = min(torch.get_num_threads(), int(call["tasks"][0]))
    size = int(call["scratch_bytes"][0])
    scratch = torch.empty(threads * size + VECTOR, dtype=torch.uint8)
    counter = np.zeros(2, np.int64)  # the next task, the next thread
    call["scratch"] = _round_up(scratch.data_ptr(), VECTOR)
    call["counter"] = counter.ctypes.data
    if threads == 1:
        function(call.ctypes.data)
    elif (openmp := _openmp()) is not None:
        openmp(address, call.ctypes.data, threads, 0)
    else:
        pool, address = _pool(os.getpid()), call.ctypes.data
        for helper in [pool.submit(function, address) for _ in range(threads)]:
            helper.result()


@cache
def _function(name: str) -> tuple[Callable[[int], None], int]:
    """Return a kernel as a C function, which runs without Python's lock, and its address."""
    kernel = getattr(kernels(), name)
    return kernel.ctypes, kernel.address


@cache
def _openmp() -> Callable[[int, int, int, int], None] | None:
    """Return the entry to PyTorch's own threads; others would compete with them for the cores."""
    try:
        entry = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):  # another OpenMP, or Windows
        return None
    entry.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    entry.restype = None
    return entry


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Return threads of this very process: a fork's child inherits none."""
    return ThreadPoolExecutor(os.cpu_count(), f"depthwise-{process}")
