# mypy: ignore-errors
"""The loops of a depthwise convolution's weight gradient, compiled by numba.

Maps are channels-last. A task copies its pixels to a float32 scratch that stays in the CPU's cache
(bfloat16 is widened there, once per pixel and not once per tap), and keeps its running sums in
registers, as in Zhang, Franchetti and Low, "High Performance Zero-Memory Overhead Direct
Convolutions" (2018). Each result is one task's, so the bits don't depend on the number of threads.
"""

import hashlib
from pathlib import Path

import numpy as np
from numba import carray, cfunc, from_dtype, types

from convnext_steps.cpu.vectors import (
    LANES,
    VECTOR,
    accumulate_taps,
    add_vectors,
    clear,
    sum_pixels,
    unpack_row,
)

# What the kernel is told: the convolution's shapes, this call's plan, addresses.
_JOB = "images channels rows columns out_rows out_columns kernel stride padding half "
_PLAN = "tasks chunk slab_bytes slope_bytes scratch_bytes slab_columns tile "
_ADDRESSES = "source gradient total scratch"
CALL = np.dtype([(name, np.int64) for name in (_JOB + _PLAN + _ADDRESSES).split()])

# A digest of the two files that are compiled.
VERSION = hashlib.sha256(
    b"".join(Path(__file__).with_name(name).read_bytes() for name in ("kernels.py", "vectors.py"))
).hexdigest()[:12]


def compiled(function):
    """Compile a kernel to a C function of a `CALL`'s address and two integers; it is kept.

    numba would take a kept one for as long as the file of the kernel itself stays, whatever it
    calls in others; and while another process replaces one, it could take the old. So the version
    is part of its name.
    """
    signature = types.void(types.CPointer(from_dtype(CALL)), types.int64, types.int64)
    function.__qualname__ += f"_{VERSION}"
    try:
        return cfunc(signature, cache=True)(function)
    except RuntimeError:  # no folder to keep it in can be written to
        return cfunc(signature)(function)


@compiled
def weight_gradient(calls, thread, threads):
    """Do one thread's share of the tasks; a task is `LANES` channels of `chunk` images.

    It leaves the gradient of the taps and, after them, of the bias. Images are summed one by one
    and then added up: long sums of float32 lose digits.
    """
    call = carray(calls, 1)[0]
    slab = call.scratch + thread * call.scratch_bytes
    slopes = slab + call.slab_bytes
    sums = slopes + call.slope_bytes
    clear(slab, (call.slab_bytes + call.slope_bytes) // VECTOR)
    size = 2 if call.half else 4
    pixel = call.channels * size
    blocks = (call.channels + LANES - 1) // LANES
    row = call.slab_columns * VECTOR
    slope_row = call.out_columns * VECTOR
    kernel, stride, padding = call.kernel, call.stride, call.padding
    for task in range(thread, call.tasks, threads):
        block = task % blocks
        lanes = call.channels - block * LANES
        first_image = task // blocks * call.chunk
        total = call.total + task * (kernel * kernel + 1) * VECTOR
        clear(total, kernel * kernel + 1)
        for image in range(first_image, min(call.images, first_image + call.chunk)):
            line = call.source + image * call.rows * call.columns * pixel
            line += block * LANES * size
            for y in range(call.rows):
                there = slab + y * row + padding * VECTOR
                unpack_row(line + y * call.columns * pixel, pixel, there,
                           call.columns, lanes, call.half)  # fmt: skip
            outs = call.out_rows * call.out_columns
            line = call.gradient + image * outs * pixel + block * LANES * size
            unpack_row(line, pixel, slopes, outs, lanes, call.half)
            clear(sums, kernel * kernel)
            for first in range(0, call.out_rows, call.tile):
                last = min(call.out_rows, first + call.tile)
                for i in range(kernel):
                    # Only the outputs whose tap i, at y * stride + i - padding, is inside the map.
                    begin = max(first, (padding - i + stride - 1) // stride)
                    end = min(last, (call.rows - 1 + padding - i) // stride + 1)
                    here = slab + (begin * stride + i - padding) * row
                    accumulate_taps(here, stride * row, stride * VECTOR,
                                    slopes + begin * slope_row, slope_row, end - begin,
                                    call.out_columns, sums + i * kernel * VECTOR,
                                    kernel)  # fmt: skip
            add_vectors(sums, total, kernel * kernel)
            sum_pixels(slopes, call.slope_bytes // VECTOR, total + kernel * kernel * VECTOR)
