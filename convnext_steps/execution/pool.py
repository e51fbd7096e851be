"""Runs in processes that do many of them, without a notebook each; how many at once."""

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from convnext_steps.device import gpu_shares, visible
from convnext_steps.execution.backends import Outcome
from convnext_steps.execution.machine import cores
from convnext_steps.execution.parent import follow_parent
from convnext_steps.execution.turns import Turns
from convnext_steps.execution.work import run_steps
from convnext_steps.study.plan import Data, Run
from convnext_steps.study.study import Study
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.image_transforms import ONE_BY_ONE
from convnext_steps.training.images import ImageData

AT_ONCE = 8  # runs on one GPU: more were no faster, results/speed/gpu_check_runs_at_once.json


class PoolBackend:
    """Attempts in a few processes: one per core, or one per GPU that does several by turns.

    Args:
        study: whose runs they are.
    """

    def __init__(self, study: Study) -> None:
        processes = study.how.processes
        self.gpus = gpu_shares(study.how.device, processes)
        self.at_once = AT_ONCE if self.gpus and processes == 1 else 1
        self.workers = self.at_once * len(self.gpus) or max(1, cores() // processes)
        if study.how.workers != "auto" and self.gpus:
            self.at_once = -(-study.how.workers // len(self.gpus))
        self.crews: list[Crew] = []

    def start(self, run: Run, results: Path) -> "PoolAttempt":
        """Give the run to the process with the fewest, or to a new one."""
        for dead in [crew for crew in self.crews if not crew.alive]:
            dead.end()
            self.crews.remove(dead)
        crew = min(self.crews, key=lambda crew: len(crew.open), default=None)
        idle_gpu = len(self.crews) < len(self.gpus)
        if crew is None or len(crew.open) >= self.at_once or (crew.open and idle_gpu):
            used = [crew.gpus for crew in self.crews]
            free = [own for own in self.gpus if own not in used]
            crew = Crew(free[0] if free else None)
            self.crews.append(crew)
        return PoolAttempt(crew, crew.begin(run, results.resolve()))

    def close(self) -> None:
        """End the processes."""
        for crew in self.crews:
            crew.end()


class Crew:
    """One process that does runs, and what it has said of them."""

    def __init__(self, own_gpus: Sequence[int] | None) -> None:
        self.gpus = own_gpus
        spawn = multiprocessing.get_context("spawn")  # a fork would inherit PyTorch's threads
        self.pipe, other = spawn.Pipe()
        settings = visible(own_gpus)
        self.process = spawn.Process(target=_work, args=(other, bool(settings)))
        with environment(settings):  # before anything that it imports looks for GPUs
            self.process.start()
        other.close()
        self.keys = count()
        self.open: set[int] = set()
        self.outcomes: dict[int, Outcome] = {}
        self.alive = True

    def begin(self, run: Run, results: Path) -> int:
        """Hand over a run; return its key."""
        key = next(self.keys)
        self.open.add(key)
        with suppress(OSError):  # it has died, which `outcome` says
            self.pipe.send((key, run, results))
        return key

    def outcome(self, key: int) -> Outcome | None:
        """How a run ended; None while it lasts."""
        try:
            while self.pipe.poll():
                ended, outcome = self.pipe.recv()
                self.outcomes[ended] = outcome
                self.open.discard(ended)
        except (EOFError, OSError):
            self.alive = False
            for lost in self.open:
                self.outcomes[lost] = Outcome("failed", "its process died")
            self.open.clear()
        return self.outcomes.get(key)

    def end(self) -> None:
        """End the process, at once if it is at work, and with it its hold on its runs."""
        self.alive = False
        if self.open:
            self.process.terminate()
        self.pipe.close()  # which tells it that there is nothing more to do
        self.process.join()


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """A block in which the environment has these settings, for the processes started there."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class PoolAttempt:
    """One attempt in a process of the pool."""

    def __init__(self, crew: Crew, key: int) -> None:
        self.crew, self.key = crew, key

    def outcome(self) -> Outcome | None:
        """How it ended; None while it lasts."""
        return self.crew.outcome(self.key)

    def stop(self) -> None:
        """End the process, which all of its runs resume from elsewhere."""
        if self.crew.alive:
            self.crew.end()


def _work(pipe: Connection, on_gpu: bool) -> None:
    """Do the runs that come through the pipe, by turns, and say how each ended."""
    follow_parent()
    torch.set_num_threads(1)

    def ended(key: int, error: BaseException | None) -> None:
        pipe.send((key, Outcome.of(error)))
        memory = isinstance(error, torch.OutOfMemoryError)
        if isinstance(error, torch.AcceleratorError) and not memory:
            os._exit(1)  # what failed on a GPU in any other way fails all that follows

    turns = Turns(ended, on_gpu=on_gpu)
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            while pipe.poll(0 if turns.busy else None):
                key, run, results = pipe.recv()
                turns.add(key, partial(run_steps, run, results, _load))
            turns.go_on()


def _load(run: Run) -> tuple[ImageData, ImageData]:
    """A run's images, read once for all runs of this process that share them."""
    decisive = {name: getattr(run.config, name) for name in ONE_BY_ONE}  # what reading depends on
    return _read(run.data, TrainingConfig(**decisive))


@lru_cache(maxsize=2)
def _read(data: Data, config: TrainingConfig) -> tuple[ImageData, ImageData]:
    return data.load(config)
