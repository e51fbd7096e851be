"""Finding the kernels that numba compiles, and running them on PyTorch's own threads."""

import ctypes
import functools
import importlib.util
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LINE = 64  # bytes of a line of the processor's cache
CHUNK = 16384  # numbers in a task

Record = np.ndarray[Any, np.dtype[Any]]  # what a kernel is told, one row of named integers
TYPES = (torch.float32, torch.bfloat16)  # that the kernels take
SINGLE: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}  # of what a kernel writes to


@cache
def kernels() -> tuple[ModuleType, ...] | None:
    """Import the compiled kernels, when first needed; None where numba is missing or fails."""
    if importlib.util.find_spec("numba") is None:
        return None
    try:
        from convnext_steps.models.fast import (
            depthwise_kernels,
            elementwise_kernels,
            norm_kernels,
        )

        modules = [depthwise_kernels, elementwise_kernels, norm_kernels]
        if depthwise_kernels.MULTIPLIES_MATRICES:
            from convnext_steps.models.fast import block_kernels, product_kernels

            modules += [product_kernels, block_kernels]
    except Exception as error:  # numba is an option: whatever ails it, training must go on
        warnings.warn(f"networks train slowly, numba fails: {error}", stacklevel=2)
        return None
    return tuple(modules)


@cache
def attribute(name: str) -> Any:
    """Return a kernel, the type of its record or a number, from whichever module has it."""
    for module in kernels() or ():
        if hasattr(module, name):
            return getattr(module, name)
    raise LookupError(name)


def run(name: str, call: Record) -> None:
    """Run a kernel on as many threads as PyTorch's operators use."""
    function, address = _function(name)
    threads, size = int(call["tasks"][0]), int(call["scratch_bytes"][0])
    if threads > 1:
        threads = min(threads, torch.get_num_threads())
    counter = np.zeros(2, np.int64)  # the next task, the next thread
    call["counter"] = counter.ctypes.data
    if size:
        scratch = torch.empty(threads * size + LINE, dtype=torch.uint8, device="cpu")
        call["scratch"] = -(-scratch.data_ptr() // LINE) * LINE
    here = call.ctypes.data
    if threads == 1:
        function(here)
    elif (openmp := _openmp()) is not None:
        openmp(address, here, threads, 0)
    else:
        pool = _pool(os.getpid())
        for helper in [pool.submit(function, here) for _ in range(threads)]:
            helper.result()


class Chain:
    """Kernels that are run as one, each task of `chunk` rows through all of them."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.chunk = _chunk(rows)
        self.records: list[Record] = []
        self.tensors: list[Tensor] = []  # what they read and write

    def run(self, name: str, scratch_bytes: int) -> None:
        """Run them, by the kernel that knows their order and what scratch each thread needs."""
        first, second, third, fourth = (int(record.ctypes.data) for record in self.records)
        run_with(
            name,
            "CHAIN",
            first=first,
            second=second,
            third=third,
            fourth=fourth,
            tasks=-(-self.rows // self.chunk),
            scratch_bytes=scratch_bytes,
        )


def _chunk(rows: int) -> int:
    """Return how many rows a task has: whole tiles, and if possible as many for each thread."""
    longest = max(8, min(128, rows // 24 // 8 * 8))  # 24 tasks or more
    chunks = range(longest, longest // 2, -8)
    return next((chunk for chunk in chunks if rows % (4 * chunk) == 0), longest)


def row_tasks(rows: int, channels: int, chain: Chain | None) -> dict[str, int]:
    """Return what a kernel is told whose tasks are chunks of rows, on its own or in a chain."""
    chunk = chain.chunk if chain else max(1, CHUNK // channels)
    return {"rows": rows, "channels": channels, "chunk": chunk, "tasks": -(-rows // chunk)}


def run_with(name: str, kind: str, chain: Chain | None = None, **values: int | Tensor) -> None:
    """Run a kernel that needs no plan, at once or in a chain.

    Its record has these values, and zero for others; of a tensor, the address.
    """
    fields = attribute(kind)
    numbers = {
        field: value.data_ptr() if isinstance(value, Tensor) else value
        for field, value in values.items()
    }
    record = np.array([tuple(numbers.get(field, 0) for field in fields.names)], fields)
    if chain is None:
        run(name, record)
    else:
        chain.records.append(record)
        chain.tensors += [value for value in values.values() if isinstance(value, Tensor)]


def differentiable_once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse to build a graph of a backward pass: PyTorch's own guard lets constants through."""

    @functools.wraps(backward)
    def checked(ctx: Any, gradient: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the layers that train fast on processors have no second derivatives; for "
                "create_graph=True use the model as it was built, or its eval mode"
            )
        return backward(ctx, gradient)

    return checked


def is_plain_training(x: Tensor, weight: Tensor) -> bool:
    """Return whether a layer's gradients are to be taken of plain tensors on a processor."""
    return (
        not _is_watched()
        and torch.is_grad_enabled()
        and x.device.type == weight.device.type == "cpu"
        and x.layout == weight.layout == torch.strided
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


@cache
def _function(name: str) -> tuple[Callable[[int], None], int]:
    """Return a kernel as a C function, which runs without Python's lock, and its address."""
    kernel = attribute(name)
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
    return ThreadPoolExecutor(os.cpu_count(), f"kernels-{process}")
