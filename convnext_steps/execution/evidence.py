"""What a result was made with: versions, machine, commit."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from convnext_steps.device import device_name

PACKAGES = (
    *("convnext-steps", "torch", "torchvision", "fvcore", "papermill", "numpy", "pandas"),
    "numba",  # optional: if it is installed, training on a CPU uses other kernels
)


def environment(*packages: str) -> dict[str, Any]:
    """The versions (also of these packages), the machine and the commit, as they are now."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in (*PACKAGES, *packages)},
        "machine": platform.machine(),
        "cpu_model": _cpu_model(),
        "system": platform.system(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": device_name(),
        "threads": torch.get_num_threads(),
        **commit(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> dict[str, Any]:
    """The commit of the project's checkout and whether its code was unchanged; None outside one."""
    project = Path(__file__).parents[2]
    if not _git(project, "ls-files", "convnext_steps/__init__.py"):  # below another project
        return {"commit": None, "clean": None}
    head = _git(project, "rev-parse", "HEAD")
    changes = _git(project, "status", "--porcelain", "--", "convnext_steps", "notebooks")
    return {"commit": head, "clean": None if changes is None else changes == ""}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    except OSError:  # git is not installed
        return None
    return done.stdout.strip() if done.returncode == 0 else None
