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
from torch import Tensor

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
    except Exception as error:  # numba is an option: whatever ails it, training must go on
        warnings.warn(f"networks train slowly, numba fails: {error}", stacklevel=2)
        return None
    return depthwise_kernels, elementwise_kernels, norm_kernels


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


def run_with(name: str, kind: str, **values: int) -> None:
    """Run a kernel that needs no plan, on a record of these values, others being zero."""
    fields = attribute(kind)
    numbers = tuple(values.get(field, 0) for field in fields.names)
    run(name, np.array([numbers], fields))


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
