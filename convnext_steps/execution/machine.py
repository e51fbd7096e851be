"""Whether the machine has what a study needs: one finding a check, with its remedy."""

import os
import platform
import shutil
from pathlib import Path

from convnext_steps.execution.doctor import Finding, Level
from convnext_steps.files import nearest_existing

GIB = 2**30
LITTLE, TOO_LITTLE = 5 * GIB, GIB // 2  # of disk
WORKER = GIB  # of memory, for one run of a small profile
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # of a container
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container


def results_disk(results: Path) -> Finding:
    """Whether results can be written, and how much."""
    return _disk(results, "free some, or choose another folder with --results", worst="fail")


def data_disk() -> Finding:
    """Whether data can be downloaded; the bundled data need no place."""
    from convnext_steps.training.data import data_root

    remedy = "to download data, name another folder in $CONVNEXT_STEPS_DATA"
    return _disk(data_root(), remedy, worst="warn")


def _disk(folder: Path, remedy: str, worst: Level) -> Finding:
    nearest = nearest_existing(folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        return Finding(worst, f"{folder} cannot be written", remedy)
    free = shutil.disk_usage(nearest).free
    message = f"{folder} has {free / GIB:.1f} GiB free"
    if free < TOO_LITTLE:
        return Finding(worst, message, remedy)
    return Finding("warn", message, remedy) if free < LITTLE else Finding("ok", message)


def cores_and_memory() -> Finding:
    """How many cores there are, and whether the memory is enough for a run on each."""
    count, size = cores(), memory()
    if size is None:
        return Finding("ok", f"{count} cores, memory not known")
    message = f"{count} cores, {size / GIB:.1f} GiB of memory"
    if size < count * WORKER:
        return Finding("warn", message, f"use --workers {max(1, size // WORKER)}")
    return Finding("ok", message)


def cores() -> int:
    """The processor cores that this process may use, also in a container."""
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    try:
        quota, period = map(int, CPU_LIMIT.read_text().split())
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
        return min(size, int(MEMORY_LIMIT.read_text()))
    except (OSError, ValueError):  # not there, or "max"
        return size


def processor() -> Finding:
    """Which instructions PyTorch uses, and whether bf16 is among them."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    if supported is None or platform.machine() not in ("x86_64", "AMD64"):
        remedy = "to find out, convnext-steps bench gelu --precision bf16"
        return Finding("ok", f"{capability}; whether with bf16 is not known", remedy)
    if supported():
        return Finding("ok", f"{capability} with bf16")
    return Finding("ok", f"{capability} without bf16", "keep to --precision fp32, the default")


def gpus() -> Finding:
    """Which GPUs PyTorch sees, and whether they have bf16."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Finding("ok", f"{', '.join(names)}, with bf16")
        return Finding(
            "ok", f"{', '.join(names)}, without bf16", "keep to --precision fp32 or fp16"
        )
    if shutil.which("nvidia-smi"):
        remedy = "install the build of PyTorch for your driver, https://pytorch.org/get-started"
        return Finding("warn", "an NVIDIA driver is here, but PyTorch sees no GPU", remedy)
    return Finding("ok", "none, training runs on the processor")
