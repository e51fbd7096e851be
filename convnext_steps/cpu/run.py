"""Finding the compiled kernel, and running it on several threads."""

import importlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch

LOG = logging.getLogger("convnext_steps")

Record = np.ndarray[Any, np.dtype[Any]]  # what the kernel is told, one row of named integers


@cache
def kernels() -> Any:
    """The module of the compiled kernel; None, logged once, where numba is missing or fails."""
    try:
        return importlib.import_module("convnext_steps.cpu.kernels")
    except Exception as error:  # numba is an option: whatever ails it, training must go on
        LOG.warning("depthwise convolutions train with PyTorch's own, slow gradients: %s", error)
        return None


def run(call: Record) -> None:
    """Run the kernel on as many threads as PyTorch's operators use."""
    kernel = kernels().weight_gradient.ctypes  # which runs without Python's lock
    threads = min(int(call["tasks"][0]), torch.get_num_threads())
    scratch = torch.empty(threads * int(call["scratch_bytes"][0]), dtype=torch.uint8, device="cpu")
    call["scratch"] = scratch.data_ptr()
    if threads == 1:
        kernel(call.ctypes.data, 0, 1)
    else:
        pool = _pool(os.getpid())
        shares = [pool.submit(kernel, call.ctypes.data, i, threads) for i in range(threads)]
        for share in shares:
            share.result()


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads of this very process: a fork's child inherits none."""
    return ThreadPoolExecutor(os.cpu_count(), f"kernels-{process}")
