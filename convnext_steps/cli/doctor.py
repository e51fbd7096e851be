"""convnext-steps doctor: whether a study can run here, and what to do if it can't."""

import argparse
from pathlib import Path

from convnext_steps.execution.doctor import CheckError, checks
from convnext_steps.files import expanded, own_results
from convnext_steps.text import first_line

REMEDY = "set up again, with make setup or pip install -e ."


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Check the installation and the machine, one line per check.

    The exit code is 1 if anything essential is missing.
    """
    parser.add_argument("--results", type=Path, default=own_results(), help="default results/own")


def doctor_command(options: argparse.Namespace) -> int:
    """Print one line per check, and return 1 if one failed."""
    failed = 0
    for name, check in checks(expanded(options.results)).items():
        try:
            level, line = "ok", check()
        except CheckError as problem:
            level, line = "fail" if problem.fatal else "warn", first_line(str(problem))
        except Exception as error:  # a broken installation can raise anything
            level, line = "fail", f"{first_line(error)}; {REMEDY}"
        failed += level == "fail"
        print(f"{level:4}  {name:20}  {line}", flush=True)
    return 1 if failed else 0
