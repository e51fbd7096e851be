"""Finding the compiled kernels, and running them on several threads."""

import importlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch

LOG = logging.getLogger("convnext_steps")
LINE = 64  # bytes of a line of the CPU's cache

Record = np.ndarray[Any, np.dtype[Any]]  # what a kernel is told, one row of named integers


@cache
def kernels() -> Any:
    """The module of the compiled kernels; None, logged once, where numba is missing or fails."""
    try:
        return importlib.import_module("convnext_steps.cpu.kernels")
    except Exception as error:  # numba is an option: whatever ails it, training must go on
        LOG.warning("depthwise convolutions train with PyTorch's own, slow gradients: %s", error)
        return None


def run(name: str, call: Record, *more: Record) -> None:
    """Run a kernel on as many threads as PyTorch's operators use."""
    kernel = getattr(kernels(), name).ctypes  # which runs without Python's lock
    threads, size = int(call["tasks"][0]), int(call["scratch_bytes"][0])
    threads = min(threads, torch.get_num_threads())
    counter = np.zeros(2, np.int64)  # the next task, the next thread
    call["counter"] = counter.ctypes.data
    scratch = torch.empty(threads * size + LINE, dtype=torch.uint8, device="cpu")
    call["scratch"] = -(-scratch.data_ptr() // LINE) * LINE
    addresses = [record.ctypes.data for record in (call, *more)]
    if threads == 1:
        kernel(*addresses)
    else:
        pool = _pool(os.getpid())
        for helper in [pool.submit(kernel, *addresses) for _ in range(threads)]:
            helper.result()


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads of this very process: a fork's child inherits none."""
    return ThreadPoolExecutor(os.cpu_count(), f"kernels-{process}")
