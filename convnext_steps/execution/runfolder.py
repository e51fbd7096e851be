"""The files of one run: what it leaves while it works, how that becomes a result, and whether."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convnext_steps.errors import ResultError
from convnext_steps.execution.lock import HOLDER, holder
from convnext_steps.execution.notebook import last_line, log_of
from convnext_steps.execution.train_run import PARTIAL_RESULT, TRAINED
from convnext_steps.files import write_json
from convnext_steps.study.plan import Run
from convnext_steps.study.results import RESULT, read_result
from convnext_steps.training.checkpoint import HISTORY, clear

PARTIAL_NOTEBOOK = "run_step.partial.ipynb"
NOTEBOOK = "run_step.ipynb"
FAILED_NOTEBOOK = "run_step.failed.ipynb"
FAILURE = "failure.json"
REJECTED = "result.rejected-{}.json"
PLAN = "plan.partial"  # the hash of the plan whose checkpoints are here


def result_of(run: Run, folder: Path) -> dict[str, Any]:
    """Read a run's result from its folder.

    Raises:
        ResultError: it is missing, cannot be trusted, or is not the plan's.
    """
    result = read_result(folder / RESULT)
    if result["hash"] != run.hash:
        raise ResultError("the result there is of another design, recipe or data")
    return result


def done(run: Run, results: str | Path) -> bool:
    """Whether a run's result is in its folder and is the plan's: same design, recipe and data."""
    try:
        result_of(run, run.folder(results))
    except ResultError:
        return False
    return True


def prepare(run: Run, folder: Path) -> None:
    """Clear what earlier attempts left, but for the checkpoints of the same plan.

    A result that is not this plan's stays, by a name of its own.
    """
    if (folder / RESULT).exists():
        digest = hashlib.sha256((folder / RESULT).read_bytes()).hexdigest()
        (folder / RESULT).replace(folder / REJECTED.format(digest[:8]))
    for name in (PARTIAL_RESULT, NOTEBOOK, PARTIAL_NOTEBOOK, TRAINED):
        (folder / name).unlink(missing_ok=True)
    plan = folder / PLAN
    if not plan.exists() or plan.read_text() != run.hash:
        clear(folder)
        (folder / HISTORY).unlink(missing_ok=True)
        plan.write_text(run.hash)


def finish(run: Run, folder: Path, exit_code: int) -> None:
    """Check what a run left behind and put it in place, the result last; then tidy up.

    Args:
        run: the run.
        folder: its folder.
        exit_code: of papermill; a notebook is only whole where it is 0.

    Raises:
        ResultError: the run did not end with a result of this plan; its notebook is kept.
    """
    partial = folder / PARTIAL_NOTEBOOK
    try:
        if exit_code != 0 or not (folder / PARTIAL_RESULT).exists():
            raise ResultError(last_line(partial))
        if read_result(folder / PARTIAL_RESULT)["hash"] != run.hash:
            raise ResultError(f"{folder} holds the result of another plan")
    except ResultError as error:
        if partial.exists():
            partial.replace(folder / FAILED_NOTEBOOK)
        raise ResultError(f"{error} (see {folder / FAILED_NOTEBOOK})") from None
    partial.replace(folder / NOTEBOOK)
    (folder / PARTIAL_RESULT).replace(folder / RESULT)
    _tidy(folder)


def clear_leftovers(folder: Path) -> None:
    """Go on where a kill right after the result was written has stopped the tidying up."""
    if (folder / PLAN).exists():
        _tidy(folder)


def _tidy(folder: Path) -> None:
    """Remove what only a run that is not done needs; the plan last, as a sign that more is left."""
    log_of(folder / PARTIAL_NOTEBOOK).unlink(missing_ok=True)
    clear(folder)
    for name in (PARTIAL_RESULT, FAILURE, FAILED_NOTEBOOK, HOLDER, PLAN):
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
    if not results.exists():
        return Status("missing")
    owner = holder(folder)
    if owner is not None:
        done = f"{100 * progress(folder):.0f} % of its training"
        return Status("running", f"{done}, process {owner.pid} on {owner.host}")
    with suppress(FileNotFoundError):
        return Status("failed", json.loads((folder / FAILURE).read_text())["error"])
    interrupted = (folder / PLAN).exists()
    return Status("missing", "interrupted; `study` goes on with it" if interrupted else "")
