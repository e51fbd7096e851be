# mypy: ignore-errors
"""The loops of a depthwise convolution's gradients, compiled by numba.

Maps are channels-last. A task copies its pixels to a float32 scratch that stays in the CPU's cache
(bfloat16 is widened there, once per pixel and not once per tap), and keeps its running sums in
registers, as in Zhang, Franchetti and Low, "High Performance Zero-Memory Overhead Direct
Convolutions" (2018). Tasks are drawn from a shared counter, so any number of threads may run a
kernel on one call; each result is one task's, so the bits don't depend on it.
"""

import hashlib
from pathlib import Path

import numpy as np
from numba import carray, cfunc, from_dtype, types

from convnext_steps.cpu.vectors import (
    LANES,
    PIXELS,
    VECTOR,
    accumulate_taps,
    add_vectors,
    clear,
    correlate_pixels,
    draw,
    pack_row,
    sum_pixels,
    unpack_row,
)


def fields(names: str) -> np.dtype:
    """Return the type of a record of integers with these names."""
    return np.dtype([(name, np.int64) for name in names.split()])


# What a kernel is told: the convolution's shapes, this call's plan, addresses.
_JOB = "images channels rows columns out_rows out_columns kernel stride padding half wide "
_CALL = "scratch counter tasks slab_bytes scratch_bytes slab_columns "
INPUT_GRADIENT = fields(_JOB + _CALL + "source target taps together left")
WEIGHT_GRADIENT = fields(_JOB + _CALL + "source gradient total slope_bytes chunk tile")
PHASE = fields("taps last_tap first_out outs start")  # one axis, see `Phase` in plans.py


# A digest of the two files that are compiled.
VERSION = hashlib.sha256(
    b"".join(Path(__file__).with_name(name).read_bytes() for name in ("kernels.py", "vectors.py"))
).hexdigest()[:12]


def compile_kernel(*records):
    """Compile a kernel to a C function of pointers to records; keep it for later processes.

    numba would take a kept one for as long as the file of the kernel itself stays, whatever it
    calls in others; and while another process replaces one, it could take the old. So the version
    is part of its name.
    """
    signature = types.void(*(types.CPointer(from_dtype(record)) for record in records))

    def decorate(function):
        function.__qualname__ += f"_{VERSION}"
        try:
            return cfunc(signature, cache=True)(function)
        except RuntimeError:  # no folder to keep it in can be written to
            return cfunc(signature)(function)

    return decorate


@compile_kernel(INPUT_GRADIENT, PHASE)
def input_gradient(calls, phases):
    """Draw tasks until none is left; a task is `LANES` channels of one image, or of eight.

    With one image, 8 neighbouring columns are computed at once, and the scratch has zeros left
    and right. With eight, the images lie side by side in it and are computed at once.
    """
    call = carray(calls, 1)[0]
    stride = call.stride
    axes = carray(phases, (2, stride))
    slab = call.scratch + draw(call.counter + 8) * call.scratch_bytes
    result = slab + call.slab_bytes
    clear(slab, call.slab_bytes // VECTOR)
    size = 2 if call.half else 4
    pixel = call.channels * size
    half_out = 0 if call.wide else call.half
    size_out = 2 if half_out else 4
    pixel_out = call.channels * size_out
    blocks = (call.channels + LANES - 1) // LANES
    groups = (call.images + call.together - 1) // call.together
    column = call.together * VECTOR
    row = column * call.slab_columns
    tap_column = blocks * VECTOR
    tap_row = tap_column * call.kernel
    while True:
        task = draw(call.counter)
        if task >= call.tasks:
            break
        first_image = task % groups * call.together
        images = min(call.together, call.images - first_image)
        block = task // groups  # two threads never write to one cache line
        lanes = call.channels - block * LANES
        source = call.source + first_image * call.out_rows * call.out_columns * pixel
        source += block * LANES * size
        image_bytes = call.rows * call.columns * pixel_out
        target = call.target + first_image * image_bytes + block * LANES * size_out
        taps = call.taps + block * VECTOR
        for image in range(images):
            for y in range(call.out_rows):
                line = source + (image * call.out_rows + y) * call.out_columns * pixel
                there = slab + y * row + call.left * column + image * VECTOR
                unpack_row(line, pixel, there, column, call.out_columns, lanes, call.half)
        for vertical in range(stride):
            v = axes[0, vertical]
            for m in range(v.outs):
                y = v.first_out + m * stride
                skip = max(0, -v.start - m)  # the rows of taps above the map
                rows = min(v.taps, call.out_rows - v.start - m) - skip
                tap_line = taps + (v.last_tap - skip * stride) * tap_row
                line = slab + (v.start + m + skip) * row
                for horizontal in range(stride):
                    h = axes[1, horizontal]
                    tap = tap_line + h.last_tap * tap_column
                    out = target + (y * call.columns + h.first_out) * pixel_out
                    if call.together == 1:
                        for n in range(0, h.outs, PIXELS):
                            here = line + (h.start + n + call.left) * VECTOR
                            correlate_pixels(tap, -stride * tap_row, -stride * tap_column, here,
                                             row, VECTOR, rows, h.taps, result)  # fmt: skip
                            pack_row(result, out + n * stride * pixel_out, stride * pixel_out,
                                     min(PIXELS, h.outs - n), lanes, half_out)  # fmt: skip
                    else:
                        for n in range(h.outs):
                            left = max(0, -h.start - n)  # the columns of taps left of the map
                            columns = min(h.taps, call.out_columns - h.start - n) - left
                            correlate_pixels(
                                tap - left * stride * tap_column, -stride * tap_row,
                                -stride * tap_column, line + (h.start + n + left) * column,
                                row, column, rows, columns, result)  # fmt: skip
                            pack_row(result, out + n * stride * pixel_out, image_bytes, images,
                                     lanes, half_out)  # fmt: skip


@compile_kernel(WEIGHT_GRADIENT)
def weight_gradient(calls):
    """Draw tasks until none is left; a task is `LANES` channels of `chunk` images.

    It leaves the gradient of the taps and, after them, of the bias. Images are summed one by one
    and then added up: long sums of float32 lose digits.
    """
    call = carray(calls, 1)[0]
    slab = call.scratch + draw(call.counter + 8) * call.scratch_bytes
    slopes = slab + call.slab_bytes
    sums = slopes + call.slope_bytes
    clear(slab, (call.slab_bytes + call.slope_bytes) // VECTOR)
    size = 2 if call.half else 4
    pixel = call.channels * size
    blocks = (call.channels + LANES - 1) // LANES
    row = call.slab_columns * VECTOR
    slope_row = call.out_columns * VECTOR
    kernel, stride, padding = call.kernel, call.stride, call.padding
    while True:
        task = draw(call.counter)
        if task >= call.tasks:
            break
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
                unpack_row(line + y * call.columns * pixel, pixel, there, VECTOR,
                           call.columns, lanes, call.half)  # fmt: skip
            outs = call.out_rows * call.out_columns
            line = call.gradient + image * outs * pixel + block * LANES * size
            unpack_row(line, pixel, slopes, VECTOR, outs, lanes, call.half)
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
