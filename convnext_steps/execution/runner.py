"""Do the runs of a study: only what is missing, several at once, on this machine or a cluster."""

import logging
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from convnext_steps.errors import ResultError, StudyError
from convnext_steps.execution.backends import Attempt, Backend, Outcome
from convnext_steps.execution.live import Live
from convnext_steps.execution.local import LocalBackend
from convnext_steps.execution.lock import holder
from convnext_steps.execution.pool import PoolBackend
from convnext_steps.execution.ray import RayBackend
from convnext_steps.execution.report import keep_study
from convnext_steps.execution.runfolder import clear_leftovers, done, progress, result_of
from convnext_steps.files import check_writable, own_results
from convnext_steps.models import roadmap
from convnext_steps.study.forecast import check_runs
from convnext_steps.study.plan import Run
from convnext_steps.study.results import RESULT, read_results
from convnext_steps.study.study import Study
from convnext_steps.study.toml import load_study
from convnext_steps.text import few

LOG = logging.getLogger("convnext_steps")

ATTEMPTS = 2
POLL_SECONDS = 0.2
LATER_SECONDS = 5.0  # until a run that failed, or that another runner has, is checked again
NAMED = 4  # runs in the line of the progress bar


class Runner:
    """Keeps some runs of a plan going at once until none is missing.

    Args:
        runs: what is missing.
        results: the results folder; other runners may work on it at the same time.
        backend: where runs are executed.
        workers: runs at once.
        ended: called with each run that is done.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        results: Path,
        backend: Backend,
        workers: int,
        ended: Callable[[Run], None] = lambda run: None,
    ) -> None:
        self.results, self.backend, self.workers, self.ended = results, backend, workers, ended
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

    def _start_some(self) -> None:
        while self.waiting and len(self.active) < self.workers:
            run = self.waiting.popleft()
            if done(run, run.folder(self.results)):  # by another runner
                continue
            if holder(run.folder(self.results)):
                self.later.append(run)
            else:
                self.active[run] = self.backend.start(run, self.results)

    def _collect(self) -> None:
        for run, attempt in list(self.active.items()):
            if outcome := attempt.outcome():
                del self.active[run]
                self._after(run, outcome)

    def _after(self, run: Run, outcome: Outcome) -> None:
        if outcome.state == "done":
            self.ended(run)
        elif outcome.state == "held":  # by a runner that was quicker
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
        words = [few([run.name for run in self.active], NAMED)] if self.active else []
        if not words and self.later:
            words.append(f"{len(self.later)} to be looked at again")
        if self.errors:
            words.append(f"{len(self.errors)} failed")
        bar.set_postfix_str("; ".join(words), refresh=False)
        bar.update(ended + partly - bar.n)


def run_study(
    study: Study | str,
    seeds: Iterable[int] | None = None,
    steps: Sequence[str] | None = None,
    results: str | Path | None = None,
    address: str | None = None,
) -> int:
    """Do the runs of a study that have no result yet; return how many there were.

    Its table and its figure are drawn anew as results come in.

    Args:
        study: a study, or what `load_study` takes; its `how` says how many runs at once. Each has
            one thread, so that results do not depend on their number.
        seeds: whole numbers from 0 on; by default 0, and none for a factorial.
        steps: names; by default all of the study's.
        results: the results folder, by default `results/own`; with Ray, one that all nodes share.
        address: of a Ray cluster, or "local" for one of this machine alone; by default, runs are
            processes of this machine.

    Raises:
        StudyError: runs failed; the others were completed. Or a step was added in this process
            alone.
        ValueError: the results folder cannot be written, there is no such notebook, or Ray is not
            there.
    """
    study, folder = load_study(study, results=results), own_results(results)
    live = Live(study, folder)
    count = do_missing(study, study.plan(seeds, steps), folder, address, live.ended)
    live.draw()
    return count


def do_missing(
    study: Study,
    runs: Sequence[Run],
    results: Path,
    address: str | None = None,
    ended: Callable[[Run], None] = lambda run: None,
) -> int:
    """Do those of a study's runs that have no result yet; `run_study` says more.

    Args:
        study: the study.
        runs: some of its runs.
        results: the results folder.
        address: of a Ray cluster, or "local", or None.
        ended: called with each run that is done.
    """
    check_writable(results)
    missing = _missing(runs, results)
    if not missing:
        return 0
    added = roadmap.OWN_STEPS.get(study.roadmap, {})
    if not study.uses and (unknown := [run.name for run in missing if run.step in added]):
        raise StudyError(
            f"other processes do not know {few(unknown, NAMED)}: write `add_step` into a Python "
            "file, and give it to the study as uses (--uses FILE)"
        )
    if address is None:  # a cluster's head may be without the data
        check_runs(missing)
    with closing(_backend(study, address)) as backend:
        keep_study(study, results)
        workers = backend.workers if study.how.workers == "auto" else study.how.workers
        runner = Runner(missing, results, backend, workers, ended)
        runner.execute()
    if runner.errors:
        details = "\n".join(f"  {run.name}: {error}" for run, error in runner.errors.items())
        raise StudyError(f"{len(runner.errors)} of {len(missing)} runs failed:\n{details}")
    return len(missing)


def _missing(runs: Sequence[Run], results: Path) -> list[Run]:
    """The runs without a result, each once; what kills left of the others is tidied up."""
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
                LOG.warning("%s is trained again: %s", run.name, error)
    return missing


def _backend(study: Study, address: str | None) -> Backend:
    if address:
        return RayBackend(address)
    return LocalBackend(study.how) if study.how.notebooks else PoolBackend(study)


def _bar(total: int) -> "tqdm[None]":
    layout = "{percentage:3.0f} % of {total} runs |{bar}| {elapsed}, {remaining} left{postfix}"
    seconds = 0.5 if sys.stderr.isatty() else 60  # between two updates of the bar
    return tqdm(
        total=total, bar_format=layout, mininterval=seconds, smoothing=0.05, dynamic_ncols=True
    )
