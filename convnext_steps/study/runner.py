"""Execute a plan: each run in a process of its own, several at once, only what is missing."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from convnext_steps.study.notebook import (
    check_parameters,
    find_notebook,
    last_line,
    log_of,
    start_notebook,
)
from convnext_steps.study.plan import Run
from convnext_steps.study.results import (
    PARTIAL_RESULT,
    RESULT,
    ResultError,
    done,
    read_result,
    write_json,
)
from convnext_steps.training.checkpoint import clear
from convnext_steps.training.trainer import HISTORY

PARTIAL_NOTEBOOK = "run_step.partial.ipynb"
NOTEBOOK = "run_step.ipynb"
FAILED_NOTEBOOK = "run_step.failed.ipynb"
PLAN = "plan.partial"  # the hash of the plan whose checkpoints are here
POLL_SECONDS = 0.2


class StudyError(RuntimeError):
    """Runs of a study failed; the message says which and why."""


@dataclass
class Worker:
    """One run under way."""

    run: Run
    folder: Path
    process: "subprocess.Popen[bytes]" = field(repr=False)

    def progress(self) -> float:
        """The share of the training that is done, read from the history that the run writes."""
        try:
            last = (self.folder / HISTORY).read_text(encoding="utf-8").splitlines()[-1]
            entry = json.loads(last)
            return float(entry["step"] / entry["total_steps"])
        except (OSError, ValueError, IndexError):
            return 0.0


def run_study(runs: Sequence[Run], results: str | Path, workers: int | None = None) -> int:
    """Execute the runs whose result is missing or another plan's; return how many there were.

    Args:
        runs: the plan.
        results: the results folder.
        workers: runs at once; by default as many as there are cores. Each has one thread, so that
            results do not depend on their number.

    Raises:
        StudyError: runs failed; the others were completed.
        ValueError: the results folder cannot be written, or there is no such notebook.
    """
    check_writable(Path(results))
    missing = [run for run in runs if not done(run, results)]
    if not missing:
        return 0
    notebook = find_notebook("run_step")
    check_parameters(notebook, parameters(missing[0], Path()))
    for data in {(run.data, run.train_images): run for run in missing}.values():
        data.load_data()  # damaged data stop the study before it begins
    errors = _execute(missing, Path(results), notebook, workers or cores())
    if errors:
        details = "\n".join(f"  {name}: {error}" for name, error in errors.items())
        raise StudyError(f"{len(errors)} of {len(missing)} runs failed:\n{details}")
    return len(missing)


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_writable(results: Path) -> None:
    """Refuse a results folder that cannot be written, before any work.

    Raises:
        ValueError: the folder cannot be made or written.
    """
    nearest = results.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise ValueError(
            f"cannot write to the results folder {results}: {error.strerror}"
        ) from None


def parameters(run: Run, folder: Path) -> dict[str, str | int]:
    """What `run_step.ipynb` needs to know of a run."""
    return {
        "STEP": run.step,
        "REGIME": run.regime,
        "PROFILE": run.profile,
        "SEED": run.seed,
        "OUTPUT": str(folder.resolve()),
    }


def _execute(missing: Sequence[Run], results: Path, notebook: Path, workers: int) -> dict[str, str]:
    """Keep `workers` runs going until none is missing; returns the errors by run."""
    waiting = list(missing)
    active: list[Worker] = []
    errors: dict[str, str] = {}
    with _bar(len(missing)) as bar, _stopping(active):
        while waiting or active:
            while waiting and len(active) < workers:
                active.append(_start(waiting.pop(0), results, notebook))
            time.sleep(POLL_SECONDS)
            for worker in [worker for worker in active if worker.process.poll() is not None]:
                active.remove(worker)
                try:
                    finish(worker.run, worker.folder)
                except ResultError as error:
                    errors[worker.run.name] = str(error)
                    bar.write(f"{worker.run.name} failed: {error}")
            finished = len(missing) - len(waiting) - len(active)
            bar.set_postfix_str(", ".join(worker.run.name for worker in active), refresh=False)
            bar.update(finished + sum(worker.progress() for worker in active) - bar.n)
    return errors


def _bar(total: int) -> "tqdm[None]":
    layout = "{percentage:3.0f} % of {total} runs |{bar}| {elapsed}, {remaining} left{postfix}"
    seconds = 0.5 if sys.stderr.isatty() else 60  # between two pictures of the bar
    return tqdm(
        total=total, bar_format=layout, mininterval=seconds, smoothing=0.05, dynamic_ncols=True
    )


@contextlib.contextmanager
def _stopping(active: Iterable[Worker]) -> Iterator[None]:
    """Stop the runs under way when the study is left early."""
    try:
        yield
    finally:
        for worker in active:
            worker.process.terminate()
        for worker in active:
            worker.process.wait()


def _start(run: Run, results: Path, notebook: Path) -> Worker:
    folder = run.folder(results)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (RESULT, PARTIAL_RESULT, NOTEBOOK, PARTIAL_NOTEBOOK, FAILED_NOTEBOOK):
        (folder / name).unlink(missing_ok=True)
    plan_file = folder / PLAN
    if not plan_file.exists() or plan_file.read_text() != run.hash:
        clear(folder)  # checkpoints of another plan
        (folder / HISTORY).unlink(missing_ok=True)
        plan_file.write_text(run.hash)
    partial = folder / PARTIAL_NOTEBOOK
    process = start_notebook(notebook, partial, parameters(run, folder), threads=1)
    return Worker(run, folder, process)


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
    write_json(folder / RESULT, result)
    (folder / PARTIAL_RESULT).unlink()
    (folder / PLAN).unlink(missing_ok=True)
    clear(folder)
    log_of(partial).unlink(missing_ok=True)
