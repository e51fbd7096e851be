"""Execute a plan: only what is missing, several runs at once, on this machine or a cluster."""

import logging
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from convnext_steps.errors import ResultError, StudyError
from convnext_steps.execution.backends import Attempt, Backend, Outcome
from convnext_steps.execution.local import LocalBackend, parameters
from convnext_steps.execution.lock import holder
from convnext_steps.execution.notebook import check_parameters, find_notebook
from convnext_steps.execution.ray import RayBackend
from convnext_steps.execution.runfolder import clear_leftovers, done, progress, result_of
from convnext_steps.files import check_writable
from convnext_steps.study.plan import Run
from convnext_steps.study.results import RESULT, read_results

LOG = logging.getLogger("convnext_steps")

ATTEMPTS = 2
POLL_SECONDS = 0.2
LATER_SECONDS = 5.0  # until a run that failed, or that another runner has, is looked at again
NAMED = 4  # runs in the line of the progress bar


class Runner:
    """Keeps some runs of a plan going at once until none is missing.

    Args:
        runs: what is missing.
        results: the results folder; other runners may work on it at the same time.
        backend: where runs are executed.
        workers: runs at once.
    """

    def __init__(self, runs: Sequence[Run], results: Path, backend: Backend, workers: int) -> None:
        self.results, self.backend, self.workers = results, backend, workers
        self.waiting = deque(runs)
        self.total = len(runs)
        self.later: list[Run] = []
        self.active: dict[Run, Attempt] = {}
        self.failures = Counter[Run]()
        self.errors: dict[Run, str] = {}

    def execute(self) -> None:
        """Work until every run is done, here or by another runner, or has failed too often."""
        looked = time.monotonic()
        with _bar(self.total) as bar:
            try:
                while self.waiting or self.later or self.active:
                    if time.monotonic() - looked > LATER_SECONDS:
                        self.waiting.extend(self.later)
                        self.later.clear()
                        looked = time.monotonic()
                    self._start_some()
                    time.sleep(POLL_SECONDS)
                    self._collect()
                    self._show(bar)
            finally:
                for attempt in self.active.values():
                    attempt.stop()

    def check(self) -> None:
        """Tell of the runs that have failed too often.

        Raises:
            StudyError: there are some.
        """
        if self.errors:
            details = "\n".join(f"  {run.name}: {error}" for run, error in self.errors.items())
            raise StudyError(f"{len(self.errors)} of {self.total} runs failed:\n{details}")

    def _start_some(self) -> None:
        while self.waiting and len(self.active) < self.workers:
            run = self.waiting.popleft()
            if done(run, self.results):  # by another runner
                continue
            if holder(run.folder(self.results)) is not None:
                self.later.append(run)
            else:
                self.active[run] = self.backend.start(run, self.results)

    def _collect(self) -> None:
        for run, attempt in list(self.active.items()):
            if outcome := attempt.outcome():
                del self.active[run]
                self._ended(run, outcome)

    def _ended(self, run: Run, outcome: Outcome) -> None:
        if outcome.state == "held":  # by a runner that was quicker
            self.later.append(run)
        elif outcome.state == "failed":
            self.failures[run] += 1
            if self.failures[run] < ATTEMPTS:
                self.later.append(run)
                LOG.warning("%s is tried again: %s", run.name, outcome.error)
            else:
                self.errors[run] = outcome.error

    def _show(self, bar: "tqdm[None]") -> None:
        open_runs = len(self.waiting) + len(self.later) + len(self.active)
        ended = self.total - open_runs - len(self.errors)
        partly = sum(progress(run.folder(self.results)) for run in self.active)
        names = ", ".join(run.name for run in list(self.active)[:NAMED])
        if len(self.active) > NAMED:
            names += f" and {len(self.active) - NAMED} more"
        if not names and self.later:
            names = f"{len(self.later)} to be looked at again"
        if self.errors:
            names += f"; {len(self.errors)} failed"
        bar.set_postfix_str(names, refresh=False)
        bar.update(ended + partly - bar.n)


def run_study(
    runs: Sequence[Run],
    results: str | Path,
    workers: int | None = None,
    backend: str = "local",
    address: str | None = None,
) -> int:
    """Execute the runs whose result is missing or another plan's; return how many there were.

    Args:
        runs: the plan.
        results: the results folder; with Ray, one that all of its nodes share.
        workers: runs at once; by default as many as the backend takes. Each has one thread, so
            that results do not depend on their number.
        backend: "local", in processes of this machine, or "ray".
        address: of a Ray cluster; without one, Ray runs on this machine alone.

    Raises:
        StudyError: runs failed; the others were completed.
        ValueError: the results folder cannot be written, there is no such notebook, or Ray is not
            there.
    """
    results = Path(results)
    check_writable(results)
    found = {result["hash"] for result in read_results(results)}
    missing = []
    for run in {run.hash: run for run in runs}.values():
        folder = run.folder(results)
        if run.hash in found:
            clear_leftovers(folder)
            continue
        missing.append(run)
        try:
            result_of(run, folder)
        except ResultError as error:
            if (folder / RESULT).exists():
                LOG.warning("%s is trained anew: %s", run.name, error)
    if not missing:
        return 0
    check_parameters(find_notebook("run_step"), parameters(missing[0], Path()))
    if backend == "local":
        for run in {(run.source, run.images): run for run in missing}.values():
            run.load_data()  # damaged data stop the study before it begins
    with closing(open_backend(backend, address)) as chosen:
        results.mkdir(parents=True, exist_ok=True)
        runner = Runner(missing, results, chosen, workers or chosen.workers)
        runner.execute()
    runner.check()
    return len(missing)


def open_backend(name: str, address: str | None) -> Backend:
    """The backend of this name; `run_study` says more.

    Raises:
        ValueError: Ray is not installed, or there is no cluster at the address.
    """
    return LocalBackend() if name == "local" else RayBackend(address)


def _bar(total: int) -> "tqdm[None]":
    layout = "{percentage:3.0f} % of {total} runs |{bar}| {elapsed}, {remaining} left{postfix}"
    seconds = 0.5 if sys.stderr.isatty() else 60  # between two pictures of the bar
    return tqdm(
        total=total, bar_format=layout, mininterval=seconds, smoothing=0.05, dynamic_ncols=True
    )
