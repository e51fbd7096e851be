"""Whether what `make study` and `make test` need is there; each check says what to do if not.

A check returns what it found, and raises `CheckError` with the remedy, or whatever else went wrong.
It imports what it checks only when it is called, so that a broken installation can be reported.
"""

import importlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from convnext_steps.execution.machine import cores, memory
from convnext_steps.files import check_writable, nearest_existing
from convnext_steps.text import first_line

PACKAGE = "convnext-steps"
GIB = 2**30
DISK, RUN = 5 * GIB, GIB  # disk space for a study, memory for one of its runs


class CheckError(Exception):
    """What is wrong and what to do, in one line; `fatal` where nothing can run without it."""

    def __init__(self, message: str, fatal: bool = True) -> None:
        super().__init__(message)
        self.fatal = fatal


def checks(results: Path) -> Mapping[str, Callable[[], str]]:
    """All checks by name, the quick ones first."""
    return {
        "Python, packages": packages,
        "numba": numba,
        "memory": enough_memory,
        "disk and locks": partial(disk, results),
        "GPU": gpu,
        "notebook kernel": kernel,
        "browser": browser,
    }


def packages() -> str:
    """Python and all needed packages, new enough; torch and torchvision match."""
    python, here = metadata.metadata(PACKAGE)["Requires-Python"], sys.version.split()[0]
    if not SpecifierSet(python).contains(here, prereleases=True):
        raise CheckError(f"Python {here} is not {python}; make setup PYTHON=python3.11, or newer")
    given = [Requirement(text) for text in metadata.requires(PACKAGE) or ()]
    needed = [need for need in given if need.marker is None or need.marker.evaluate({"extra": ""})]
    wrong = [f"'{need}'" for need in needed if not _fits(need)]
    if wrong:
        raise CheckError(f"missing or too old; pip install {' '.join(wrong)}")
    try:
        importlib.import_module("torchvision")  # which calls its compiled operators
    except Exception as error:  # whatever it is, the remedy is to install a matching pair
        raise CheckError(f"{error}; pip install --force-reinstall torch torchvision") from None
    return f"Python {here}, {len(needed)} packages"


def _fits(need: Requirement) -> bool:
    try:
        return need.specifier.contains(metadata.version(need.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def numba() -> str:
    """The kernels with which depthwise convolutions train fast on a CPU."""
    try:
        importlib.import_module("convnext_steps.cpu.kernels")
    except Exception as error:  # training works without it
        remedy = f"networks train slowly on a CPU; pip install --upgrade '{PACKAGE}[fast]'"
        raise CheckError(f"{error}; {remedy}", fatal=False) from None
    return metadata.version("numba")


def enough_memory() -> str:
    """Memory for one run per core."""
    count, size = cores(), memory()
    if size is not None and size < count * RUN:
        remedy = f"convnext-steps study --workers {max(1, size // RUN)}"
        raise CheckError(f"{size / GIB:.1f} GiB for {count} cores; {remedy}", fatal=False)
    return f"{count} cores" if size is None else f"{count} cores, {size / GIB:.1f} GiB"


TRY_LOCK = "import sys, filelock; filelock.FileLock(sys.argv[1]).acquire(timeout=0)"


def disk(results: Path) -> str:
    """A results folder that can be written, with locks that keep two processes apart."""
    from filelock import FileLock

    check_writable(results)
    folder = nearest_existing(results)
    free = shutil.disk_usage(folder).free
    with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as place:
        lock = str(Path(place, "lock"))
        with FileLock(lock):
            other = subprocess.run([sys.executable, "-c", TRY_LOCK, lock], capture_output=True)
    if other.returncode == 0:
        raise CheckError("two processes got the same lock; put --results on another disk")
    if b"Timeout" not in other.stderr:
        raise CheckError(f"locks could not be tried: {first_line(other.stderr.decode())}")
    if free < DISK:
        remedy = "free some, or choose another folder with --results"
        raise CheckError(f"{free / GIB:.1f} GiB free in {folder}; {remedy}", fatal=False)
    known = "locks work between processes here; between nodes, only a test there can tell"
    return f"{free / GIB:.1f} GiB free in {folder}; {known}"


def gpu() -> str:
    """Which GPUs PyTorch sees; none are needed."""
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        return ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count())))
    if shutil.which("nvidia-smi"):
        remedy = "install the PyTorch build for your driver, https://pytorch.org/get-started"
        raise CheckError(
            f"there is an NVIDIA driver, but PyTorch sees no GPU; {remedy}", fatal=False
        )
    return "none; training runs on the CPU"


def kernel() -> str:
    """A notebook kernel that starts, answers, and runs this Python."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import run_kernel

    from convnext_steps.execution.notebook import find_notebook

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with run_kernel(startup_timeout=60, kernel_name="python3", **quiet) as client:
        asked = {"prefix": "__import__('sys').prefix"}
        ask = client.execute_interactive  # type: ignore[attr-defined]
        reply = ask("", user_expressions=asked, timeout=60)
        prefix = reply["content"]["user_expressions"]["prefix"]["data"]["text/plain"].strip("'\"")
    if Path(prefix).resolve() != Path(sys.prefix).resolve():
        spec = KernelSpecManager().get_kernel_spec("python3").resource_dir
        remedy = f"{sys.executable} -m ipykernel install --sys-prefix"
        raise CheckError(f"{spec}/kernel.json belongs to another Python, {prefix}; {remedy}")
    return f"starts and answers; notebooks in {find_notebook('run_step').parent}"


def browser() -> str:
    """Chromium and its driver, for the slow tests."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (program and driver):
        remedy = "tests in a browser are skipped; install chromium and chromium-driver"
        raise CheckError(f"not found; {remedy}", fatal=False)
    return f"{program}, {driver}"
