"""The files of one run: what it leaves while it works, and when that becomes a result."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convnext_steps.errors import ResultError
from convnext_steps.execution.lock import HOLDER, holder
from convnext_steps.execution.notebook import log_of
from convnext_steps.execution.train_run import TRAINED
from convnext_steps.files import write_json
from convnext_steps.study.plan import Run
from convnext_steps.study.results import RESULT, read_result, read_results
from convnext_steps.training.checkpoint import HISTORY, clear

PARTIAL_NOTEBOOK = "run_step.partial-{}.ipynb"  # of the process that executes it
NOTEBOOK = "run_step.ipynb"
FAILED_NOTEBOOK = "run_step.failed.ipynb"
WEIGHTS = "weights.safetensors"  # where they are kept
FAILURE = "failure.json"
REJECTED, REJECTED_WEIGHTS = "result.rejected-{}.json", "weights.rejected-{}.safetensors"
PLAN = "plan.partial"  # the hash of the plan whose checkpoints are here


def result_of(run: Run, folder: Path) -> dict[str, Any]:
    """Read a run's result from its folder.

    Raises:
        ResultError: it is missing, cannot be trusted, or is not the plan's.
    """
    result = read_result(folder / RESULT)
    if result["hash"] != run.hash:
        raise ResultError("the result there belongs to another design, recipe or data")
    return result


def done(run: Run, folder: Path) -> bool:
    """Whether the result in a run's folder is the plan's: same design, recipe, data and seed."""
    try:
        result_of(run, folder)
    except ResultError:
        return False
    return True


def stored(run: Run, folder: Path, results: Path) -> dict[str, Any] | None:
    """The run's result if there is one, in its folder or anywhere in the results."""
    with suppress(ResultError):
        return result_of(run, folder)
    return next((found for found in read_results(results) if found["hash"] == run.hash), None)


def prepare(run: Run, folder: Path) -> None:
    """Clear what earlier attempts left, except the checkpoints of the same plan.

    A result that is not this plan's stays with its weights, under names of their own.
    """
    if (folder / RESULT).exists():
        digest = hashlib.sha256((folder / RESULT).read_bytes()).hexdigest()
        (folder / RESULT).replace(folder / REJECTED.format(digest[:8]))
        if (folder / WEIGHTS).exists():
            (folder / WEIGHTS).replace(folder / REJECTED_WEIGHTS.format(digest[:8]))
    for name in (NOTEBOOK, TRAINED):
        (folder / name).unlink(missing_ok=True)
    plan = folder / PLAN
    if not plan.exists() or plan.read_text(encoding="utf-8") != run.hash:
        clear(folder)
        (folder / HISTORY).unlink(missing_ok=True)
        plan.write_text(run.hash, encoding="utf-8")


def tidy(folder: Path) -> None:
    """Remove what only a run that is not done needs; the plan last, as a sign that more is left."""
    clear(folder)
    for name in (FAILURE, FAILED_NOTEBOOK, HOLDER, PLAN):
        (folder / name).unlink(missing_ok=True)


def clear_leftovers(folder: Path) -> None:
    """Finish the tidying up of a finished run, if a kill interrupted it."""
    if (folder / PLAN).exists():
        tidy(folder)
    partial = folder / PARTIAL_NOTEBOOK.format("*")
    for pattern in (partial.name, log_of(partial).name):
        for left in folder.glob(pattern):
            left.unlink(missing_ok=True)


def record_failure(folder: Path, error: str) -> None:
    """Record why a run failed, for `status`."""
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
    """How far along a run is: done, running, failed or missing, and why."""

    state: str
    reason: str = ""


def status(run: Run, results: Path, found: Mapping[str, Mapping[str, Any]]) -> Status:
    """Look at one run's files.

    Args:
        run: the run.
        results: the results folder.
        found: all results there, by hash.
    """
    folder = run.folder(results)
    if run.hash in found:
        return Status("done", f"{found[run.hash]['accuracy']:.2f} %")
    if (folder / RESULT).exists():
        try:
            return Status("done", f"{result_of(run, folder)['accuracy']:.2f} %")
        except ResultError as error:
            return Status("missing", str(error))
    if owner := holder(folder):
        return Status("running", f"{100 * progress(folder):.0f} % of its training, {owner}")
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):  # missing, or damaged
        failure = json.loads((folder / FAILURE).read_text(encoding="utf-8"))
        return Status("failed", failure["error"])
    interrupted = (folder / PLAN).exists()
    return Status("missing", "interrupted; `study` resumes it" if interrupted else "")
