"""convnext-steps doctor: whether a study can run here, and what to do where it can't."""

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from convnext_steps.execution import doctor as installation
from convnext_steps.execution import machine
from convnext_steps.execution.doctor import Finding, first_line

REMEDY = "mend what failed above first; else set up anew, with make setup or pip install -e ."


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Its option."""
    parser.description = (
        "Check the installation and the machine; each finding is one line, with its remedy. "
        "The exit code is 1 where something failed."
    )
    parser.add_argument(
        "--results", type=Path, default=Path("results", "own"), help="default results/own"
    )
    parser.set_defaults(command=doctor_command)


def checks(results: Path) -> Mapping[str, Callable[[], Finding]]:
    """All checks by name, the quick ones first."""
    return {
        "python": installation.python,
        "packages": installation.packages,
        "torch, torchvision": installation.torch_pair,
        "numba": installation.numba,
        "processor": machine.processor,
        "GPUs": machine.gpus,
        "cores, memory": machine.cores_and_memory,
        "disk for results": partial(machine.results_disk, results),
        "disk for data": machine.data_disk,
        "bundled data": installation.bundled_data,
        "notebooks": installation.notebooks,
        "notebook kernel": installation.kernel,
    }


def doctor_command(options: argparse.Namespace) -> int:
    """Print a line for each check, and return 1 where one failed."""
    failed = 0
    for name, check in checks(options.results).items():
        finding = examine(check)
        failed += finding.level == "fail"
        print(f"{finding.level:4}  {name:18}  {finding}", flush=True)
    return 1 if failed else 0


def examine(check: Callable[[], Finding]) -> Finding:
    """What a check finds; one that breaks has failed."""
    try:
        return check()
    except Exception as error:  # a broken installation can raise anything
        return Finding("fail", first_line(error), REMEDY)
