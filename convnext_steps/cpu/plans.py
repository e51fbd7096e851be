"""What the kernel of a depthwise convolution's weight gradient is told, beside addresses."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from convnext_steps.cpu.run import Record, kernels

TOGETHER = 8  # pixels that the kernel sums at once: PIXELS of vectors.py


class Job(NamedTuple):
    """The shapes of one convolution: what its kernel's plan depends on."""

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

    @property
    def blocks(self) -> int:
        """How many vectors hold a pixel's channels."""
        return -(-self.channels // int(kernels().LANES))


@lru_cache(maxsize=256)
def plan(job: Job) -> Record:
    """Everything that the kernel is told but addresses."""
    chunk = -(-job.images // 8)  # up to 8 chunks: enough tasks for threads where channels are few
    columns = (job.out_columns - 1) * job.stride + job.kernel
    slab_columns = max(job.columns + job.padding, columns)
    slab_bytes = job.rows * slab_columns * kernels().VECTOR
    slope_bytes = -(-job.out_rows * job.out_columns // TOGETHER) * TOGETHER * kernels().VECTOR
    values = {
        **job._asdict(),
        "tasks": job.blocks * -(-job.images // chunk),
        "chunk": chunk,
        "slab_bytes": slab_bytes,
        "slope_bytes": slope_bytes,
        "scratch_bytes": slab_bytes + slope_bytes + job.kernel**2 * kernels().VECTOR,
        "slab_columns": slab_columns,
        "tile": max(1, 256 // job.out_columns),  # rows whose pixels fit the first-level cache
    }
    record = np.zeros(1, kernels().CALL)
    for name, value in values.items():
        record[name] = value
    return record
