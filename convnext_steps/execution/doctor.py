"""Whether what is installed is whole and fits together: one finding a check, with its remedy.

Nothing heavy is imported before a check needs it: a broken installation is to be told of.
"""

import importlib
import importlib.util
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

PACKAGE = "convnext-steps"
NOTEBOOKS = ("run_step", "trajectory")
KERNEL_SECONDS = 60  # to start and answer
Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """What one check found, and what to do about it."""

    level: Level
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


def first_line(error: Exception) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def python() -> Finding:
    """Whether Python is new enough."""
    needed = SpecifierSet(metadata.metadata(PACKAGE)["Requires-Python"])
    found = platform.python_version()
    if needed.contains(found, prereleases=True):
        return Finding("ok", found)
    return Finding("fail", f"{found} is not {needed}", "make setup PYTHON=python3.11, or newer")


def packages() -> Finding:
    """Whether every package that the library needs is there and new enough."""
    given = [Requirement(text) for text in metadata.requires(PACKAGE) or ()]
    needed = [need for need in given if need.marker is None or need.marker.evaluate({"extra": ""})]
    wrong = {need: problem for need in needed if (problem := _problem(need))}
    if not wrong:
        return Finding("ok", f"{len(needed)} needed, all new enough")
    remedy = " ".join(["pip install", *(f"'{need.name}{need.specifier}'" for need in wrong)])
    return Finding("fail", ", ".join(wrong.values()), remedy)


def _problem(need: Requirement) -> str:
    try:
        found = metadata.version(need.name)
    except metadata.PackageNotFoundError:
        return f"{need.name} is missing"
    fits = need.specifier.contains(found, prereleases=True)
    return "" if fits else f"{need.name} {found} is not {need.specifier}"


def torch_pair() -> Finding:
    """Whether this torch is one that torchvision says it was built for, and its operators run."""
    names = " and ".join(f"{name} {metadata.version(name)}" for name in ("torch", "torchvision"))
    remedy = "pip install --force-reinstall torch torchvision"
    for need in map(Requirement, metadata.requires("torchvision") or ()):
        if need.name == "torch" and _problem(need):
            return Finding("fail", f"{names} are no pair: it needs torch{need.specifier}", remedy)
    try:
        run_operator()
    except Exception as error:  # whatever it is, the remedy is to install a pair
        return Finding("fail", f"{names}: its operators do not run: {first_line(error)}", remedy)
    return Finding("ok", names)


def run_operator() -> None:
    """Call one of torchvision's compiled operators, on a GPU too where there is one.

    Raises:
        RuntimeError: it is not there, or finds what it should not.
    """
    import torch
    from torchvision.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9]])
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        kept = nms(boxes.to(device), torch.tensor([0.9, 0.8], device=device), 0.5)
        if kept.tolist() != [0]:
            raise RuntimeError(f"nms on {device} kept the boxes {kept.tolist()}, not [0]")


def numba() -> Finding:
    """Whether depthwise convolutions train with compiled kernels; they train without, slowly."""
    remedy = f"pip install --upgrade '{PACKAGE}[fast]'"
    if importlib.util.find_spec("numba") is None:
        return Finding("warn", "missing, depthwise convolutions train slowly", remedy)
    try:
        importlib.import_module("convnext_steps.models.fast.norm_kernels")  # which needs the others
    except Exception as error:  # as in models.fast.run: training goes on without
        return Finding("warn", f"its kernels do not compile: {first_line(error)}", remedy)
    return Finding("ok", f"{metadata.version('numba')}, its kernels compile")


def bundled_data() -> Finding:
    """Whether the bundled Fashion-MNIST is whole, by its SHA-256 sums."""
    from convnext_steps.files import fault
    from convnext_steps.training.data import ARCHIVES, SHA256

    faults = {f"{name}.gz": fault(ARCHIVES / f"{name}.gz", SHA256[name]) for name in SHA256}
    wrong = [f"{name} is {problem}" for name, problem in faults.items() if problem]
    if wrong:
        remedy = f"git checkout -- {ARCHIVES}, or install {PACKAGE} again"
        return Finding("fail", ", ".join(wrong), remedy)
    return Finding("ok", f"Fashion-MNIST, {len(SHA256)} files whole")


def notebooks() -> Finding:
    """Whether the notebooks that a study executes are found."""
    from convnext_steps.execution.notebook import find_notebook

    missing = []
    for name in NOTEBOOKS:
        try:
            folder = find_notebook(name).parent
        except ValueError:
            missing.append(f"{name}.ipynb")
    if missing:
        remedy = "call it in the project's checkout, or pip install --editable it"
        return Finding("fail", f"not found: {', '.join(missing)}", remedy)
    return Finding("ok", f"found in {folder}")


def kernel() -> Finding:
    """Whether a notebook kernel starts, adds, and runs this Python."""
    remedy = f"{sys.executable} -m pip install --force-reinstall ipykernel"
    try:
        total, prefix = ask_kernel("1 + 1", "__import__('sys').prefix")
    except Exception as error:  # whatever it is, the remedy is to install the kernel again
        return Finding("fail", f"python3 does not start: {first_line(error)}", remedy)
    if total != "2":
        return Finding("fail", f"python3 answers {total} to 1 + 1", remedy)
    if Path(prefix.strip("'\"")).resolve() != Path(sys.prefix).resolve():
        own = f"{sys.executable} -m ipykernel install --sys-prefix"
        return Finding("warn", f"python3 is another Python, of {prefix}", own)
    return Finding("ok", "python3 starts and answers")


def ask_kernel(*expressions: str) -> list[str]:
    """What a new python3 kernel makes of expressions, in the words of `repr`."""
    from jupyter_client.manager import start_new_kernel

    deadline = time.monotonic() + KERNEL_SECONDS
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    manager, client = start_new_kernel(KERNEL_SECONDS, "python3", **quiet)
    try:
        asked = {str(place): expression for place, expression in enumerate(expressions)}
        left = max(1.0, deadline - time.monotonic())
        reply = client.execute_interactive("", user_expressions=asked, timeout=left)
        answers = reply["content"]["user_expressions"]
        return [answers[place]["data"]["text/plain"] for place in asked]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
