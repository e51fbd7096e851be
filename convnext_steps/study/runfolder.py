"""The files of one run: what it leaves while it works, and how that becomes a result."""

import json
from dataclasses import dataclass
from pathlib import Path

from convnext_steps.study.lease import LEASE, claims, holder
from convnext_steps.study.notebook import last_line, log_of
from convnext_steps.study.plan import Run
from convnext_steps.study.results import (
    PARTIAL_RESULT,
    RESULT,
    ResultError,
    read_result,
    write_json,
)
from convnext_steps.study.training import TRAINED
from convnext_steps.training.checkpoint import clear
from convnext_steps.training.output import HISTORY

PARTIAL_NOTEBOOK = "run_step.partial.ipynb"
NOTEBOOK = "run_step.ipynb"
FAILED_NOTEBOOK = "run_step.failed.ipynb"
FAILURE = "failure.json"
PLAN = "plan.partial"  # the hash of the plan whose checkpoints are here


def prepare(run: Run, folder: Path) -> None:
    """Clear what earlier attempts left, but for the checkpoints of the same plan."""
    for name in (RESULT, PARTIAL_RESULT, NOTEBOOK, PARTIAL_NOTEBOOK, TRAINED):
        (folder / name).unlink(missing_ok=True)
    plan = folder / PLAN
    if not plan.exists() or plan.read_text() != run.hash:
        clear(folder)
        (folder / HISTORY).unlink(missing_ok=True)
        plan.write_text(run.hash)


def finish(run: Run, folder: Path) -> None:
    """Check what a run left behind and put it in place, the result last.

    Raises:
        ResultError: the run did not end with a result of this plan; its notebook is kept.
    """
    partial = folder / PARTIAL_NOTEBOOK
    try:
        result = read_result(folder / PARTIAL_RESULT)
        if result["hash"] != run.hash:
            raise ResultError(f"{folder} holds the result of another plan")
    except ResultError as error:
        reason = last_line(partial) if not (folder / PARTIAL_RESULT).exists() else str(error)
        if partial.exists():
            partial.replace(folder / FAILED_NOTEBOOK)
        raise ResultError(f"{reason} (see {folder / FAILED_NOTEBOOK})") from None
    partial.replace(folder / NOTEBOOK)
    for name in (FAILURE, FAILED_NOTEBOOK, PLAN):
        (folder / name).unlink(missing_ok=True)
    log_of(partial).unlink(missing_ok=True)
    clear(folder)
    write_json(folder / RESULT, result)
    (folder / PARTIAL_RESULT).unlink(missing_ok=True)


def clear_leftovers(folder: Path) -> None:
    """Remove what a kill right after the result was written left beside it."""
    for name in (PARTIAL_RESULT, LEASE):
        (folder / name).unlink(missing_ok=True)


def record_failure(folder: Path, error: str) -> None:
    """Keep why a run failed, for `status`."""
    write_json(folder / FAILURE, {"error": error})


def progress(folder: Path) -> float:
    """The share of a run's training that is done, read from the history that it writes."""
    try:
        last = (folder / HISTORY).read_text(encoding="utf-8").splitlines()[-1]
        entry = json.loads(last)
        return float(entry["step"] / entry["total_steps"])
    except (OSError, ValueError, IndexError):
        return 0.0


@dataclass(frozen=True)
class Status:
    """How far a run has come: done, running, failed or missing, and why."""

    state: str
    reason: str = ""


def status(run: Run, results: Path) -> Status:
    """Look at one run's files."""
    folder = run.folder(results)
    if (folder / RESULT).exists():
        try:
            result = read_result(folder / RESULT)
        except ResultError as error:
            return Status("missing", str(error))
        if result["hash"] == run.hash:
            return Status("done", f"{result['accuracy']:.2f} %")
        return Status("missing", "the result there is of another design, recipe or data")
    if not results.exists():
        return Status("missing")
    with claims(results) as now:
        owner = holder(folder, now)
    if owner is not None:
        done = f"{100 * progress(folder):.0f} % of its training"
        return Status("running", f"{done}, process {owner.pid} on {owner.host}")
    if (folder / FAILURE).exists():
        failure = json.loads((folder / FAILURE).read_text())
        return Status("failed", failure["error"])
    interrupted = (folder / PLAN).exists()
    return Status("missing", "interrupted; `study` goes on with it" if interrupted else "")
