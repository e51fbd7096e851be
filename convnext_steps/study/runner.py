"""Execute a plan: each run in a process of its own, several at once, only what is missing."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from convnext_steps.study.errors import StudyError
from convnext_steps.study.lease import HEARTBEAT_SECONDS, claim, keep, release
from convnext_steps.study.notebook import check_parameters, find_notebook, start_notebook
from convnext_steps.study.plan import Run
from convnext_steps.study.results import ResultError, done
from convnext_steps.study.runfolder import (
    PARTIAL_NOTEBOOK,
    finish,
    prepare,
    progress,
    record_failure,
)

ATTEMPTS = 2
POLL_SECONDS = 0.2


@dataclass
class Worker:
    """One run under way in this process's care."""

    run: Run
    folder: Path
    process: "subprocess.Popen[bytes]" = field(repr=False)
    renewed: float  # when the lease was, by the monotonic clock


class Runner:
    """Keeps some runs of a plan going at once until none is missing.

    Args:
        runs: what is missing.
        results: the results folder; other runners may work on it at the same time.
        workers: runs at once.
    """

    def __init__(self, runs: Sequence[Run], results: Path, workers: int) -> None:
        self.results, self.workers = results, workers
        self.notebook = find_notebook("run_step")
        check_parameters(self.notebook, parameters(runs[0], Path()))
        self.waiting = list(runs)
        self.active: list[Worker] = []
        self.attempts = dict.fromkeys(runs, 0)
        self.errors: dict[Run, str] = {}

    def execute(self) -> None:
        """Work until every run is done, here or by another runner, or has failed too often."""
        total = len(self.waiting)
        with _bar(total) as bar, self._stopping():
            while self.waiting or self.active:
                self._start_some()
                time.sleep(POLL_SECONDS)
                for worker in list(self.active):
                    self._look_after(worker)
                ended = total - len(self.waiting) - len(self.active)
                partly = sum(progress(worker.folder) for worker in self.active)
                names = [worker.run.name for worker in self.active]
                bar.set_postfix_str(", ".join(names) or "other runners at work", refresh=False)
                bar.update(ended + partly - bar.n)

    def _start_some(self) -> None:
        for run in list(self.waiting):
            if len(self.active) == self.workers:
                return
            folder = run.folder(self.results)
            if done(run, self.results):  # by another runner
                self.waiting.remove(run)
            elif claim(folder, self.results):
                self.waiting.remove(run)
                try:
                    self.active.append(self._start(run, folder))
                except OSError as error:
                    self._failed(run, folder, str(error))
                    release(folder)

    def _start(self, run: Run, folder: Path) -> Worker:
        self.attempts[run] += 1
        prepare(run, folder)
        partial = folder / PARTIAL_NOTEBOOK
        process = start_notebook(self.notebook, partial, parameters(run, folder), threads=1)
        return Worker(run, folder, process, time.monotonic())

    def _look_after(self, worker: Worker) -> None:
        """Renew a run's lease; where the run has ended, check and keep what it left."""
        ended = worker.process.poll() is not None
        if not ended and time.monotonic() - worker.renewed < HEARTBEAT_SECONDS:
            return
        worker.renewed = time.monotonic()
        kept = keep(worker.folder)
        if kept and not ended:
            return
        self.active.remove(worker)
        if not kept:  # this process slept for long, and another runner has taken over
            self.waiting.append(worker.run)
            _stop([worker])
            return
        try:
            finish(worker.run, worker.folder)
        except ResultError as error:
            self._failed(worker.run, worker.folder, str(error))
        release(worker.folder)

    def _failed(self, run: Run, folder: Path, error: str) -> None:
        record_failure(folder, error, self.attempts[run])
        if self.attempts[run] < ATTEMPTS:
            self.waiting.append(run)
            tqdm.write(f"{run.name} is tried again: {error}", file=sys.stderr)
        else:
            self.errors[run] = error

    @contextlib.contextmanager
    def _stopping(self) -> Iterator[None]:
        """Stop the runs under way when the study is left early."""
        try:
            yield
        finally:
            _stop(self.active)
            for worker in self.active:
                release(worker.folder)


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
    for run in {(run.data, run.train_images): run for run in missing}.values():
        run.load_data()  # damaged data stop the study before it begins
    Path(results).mkdir(parents=True, exist_ok=True)
    runner = Runner(missing, Path(results), workers or cores())
    runner.execute()
    if runner.errors:
        details = "\n".join(f"  {run.name}: {error}" for run, error in runner.errors.items())
        raise StudyError(f"{len(runner.errors)} of {len(missing)} runs failed:\n{details}")
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
        raise ValueError(f"cannot write to the folder {results}: {error}") from None


def parameters(run: Run, folder: Path) -> dict[str, str | int]:
    """What `run_step.ipynb` needs to know of a run."""
    return {
        "STEP": run.step,
        "REGIME": run.regime,
        "PROFILE": run.profile,
        "SEED": run.seed,
        "OUTPUT": str(folder.resolve()),
    }


def _bar(total: int) -> "tqdm[None]":
    layout = "{percentage:3.0f} % of {total} runs |{bar}| {elapsed}, {remaining} left{postfix}"
    seconds = 0.5 if sys.stderr.isatty() else 60  # between two pictures of the bar
    return tqdm(
        total=total, bar_format=layout, mininterval=seconds, smoothing=0.05, dynamic_ncols=True
    )


def _stop(workers: Iterable[Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.process.wait()
