"""Finding the compiled kernels, and running them on several threads."""

import importlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch

LOG = logging.getLogger("convnext_steps")
LINE = 64  # bytes of a line of the CPU's cache

Record = np.ndarray[Any, np.dtype[Any]]  # what a kernel is told, one row of named integers


@cache
def kernels() -> ModuleType | None:
    """The compiled kernels; None where numba is missing or fails, which is logged once."""
    try:
        return importlib.import_module("convnext_steps.cpu.kernels")
    except Exception as error:  # numba is an option: whatever ails it, training must go on
        LOG.warning("depthwise convolutions train with PyTorch's own, slow gradients: %s", error)
        return None


def attribute(name: str) -> Any:
    """A kernel, the type of its record, or a number, of the compiled kernels."""
    return getattr(kernels(), name)


def run(name: str, call: Record) -> None:
    """Run a kernel on as many threads as PyTorch's operators use."""
    kernel = attribute(name).ctypes  # which runs without Python's lock
    threads, size = int(call["tasks"][0]), int(call["scratch_bytes"][0])
    threads = min(threads, torch.get_num_threads())
    counter = np.zeros(2, np.int64)  # the next task, the next thread
    call["counter"] = counter.ctypes.data
    scratch = torch.empty(threads * size + LINE, dtype=torch.uint8, device="cpu")
    call["scratch"] = -(-scratch.data_ptr() // LINE) * LINE
    here = call.ctypes.data
    if threads == 1:
        kernel(here)
    else:
        pool = _pool(os.getpid())
        for helper in [pool.submit(kernel, here) for _ in range(threads)]:
            helper.result()


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads of this very process: a fork's child inherits none."""
    return ThreadPoolExecutor(os.cpu_count(), f"kernels-{process}")
