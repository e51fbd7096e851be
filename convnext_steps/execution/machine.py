"""How much of the machine this process may use, also in a container."""

import os
from pathlib import Path

CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # of a container
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container


def cores() -> int:
    """The CPU cores that this process may use."""
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    try:
        quota, period = map(int, CPU_LIMIT.read_text(encoding="utf-8").split())
    except (OSError, ValueError):  # not there, or "max"
        return count
    return max(1, min(count, quota // period))


def memory() -> int | None:
    """The bytes of memory that this process may use; None where the system does not say."""
    try:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        return min(size, int(MEMORY_LIMIT.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # not there, or "max"
        return size
