"""What the kernels of a depthwise convolution's gradients are told, beside addresses."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from convnext_steps.cpu.run import Record, kernels

TOGETHER = 8  # results that a kernel computes at once


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
    wide: bool  # the input's gradient is float32 nevertheless

    @property
    def blocks(self) -> int:
        """How many vectors hold a pixel's channels."""
        return -(-self.channels // int(kernels().LANES))


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
def plan_input_gradient(job: Job) -> tuple[Record, Record]:
    """Plan the input's gradient: the kernel's record, and the phases of both axes.

    Choose between computing 8 columns at once and 8 images: whichever multiplies less.
    """
    vertical = _phases(job.rows, job.kernel, job.stride, job.padding)
    horizontal = _phases(job.columns, job.kernel, job.stride, job.padding)
    by_columns = job.images * sum(p.taps * _round_up(p.outs, TOGETHER) for p in horizontal)
    inside = sum(_taps_inside(phase, job.out_columns) for phase in horizontal)
    together, left, slab_columns = TOGETHER, 0, job.out_columns
    if by_columns < _round_up(job.images, TOGETHER) * inside:
        together, left = 1, max(0, *(-p.start for p in horizontal))
        ends = [p.start + _round_up(p.outs, TOGETHER) - 1 + p.taps for p in horizontal]
        slab_columns = left + max(job.out_columns, *ends)
    slab_bytes = job.out_rows * slab_columns * together * kernels().VECTOR
    plan = _record(
        "INPUT_GRADIENT",
        job,
        tasks=job.blocks * -(-job.images // together),
        slab_bytes=slab_bytes,
        scratch_bytes=slab_bytes + TOGETHER * kernels().VECTOR,
        together=together,
        left=left,
        slab_columns=slab_columns,
    )
    return plan, np.array([*vertical, *horizontal], np.int64)


@lru_cache(maxsize=256)
def plan_weight_gradient(job: Job) -> Record:
    """Plan the weight's gradient."""
    chunk = -(-job.images // 8)  # up to 8 chunks: enough tasks for threads where channels are few
    columns = (job.out_columns - 1) * job.stride + job.kernel
    slab_columns = max(job.columns + job.padding, columns)
    slab_bytes = job.rows * slab_columns * kernels().VECTOR
    slope_bytes = _round_up(job.out_rows * job.out_columns, TOGETHER) * kernels().VECTOR
    return _record(
        "WEIGHT_GRADIENT",
        job,
        tasks=job.blocks * -(-job.images // chunk),
        chunk=chunk,
        slab_bytes=slab_bytes,
        slope_bytes=slope_bytes,
        scratch_bytes=slab_bytes + slope_bytes + job.kernel**2 * kernels().VECTOR,
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
