"""Runs in processes that do many of them in turn, without a notebook each."""

import multiprocessing
import os
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from convnext_steps.execution.backends import Outcome
from convnext_steps.execution.lock import HeldError
from convnext_steps.execution.machine import cores
from convnext_steps.execution.work import do_run
from convnext_steps.models.own import use
from convnext_steps.study.plan import Run
from convnext_steps.text import first_line


class PoolBackend:
    """Attempts in a few processes, each of which does one run after the other.

    Args:
        uses: a Python file whose `add_step` adds decisions, or "".
    """

    def __init__(self, uses: str = "") -> None:
        self.workers = 1 if torch.cuda.is_available() else cores()
        self.uses = uses
        self.idle: list[ProcessPoolExecutor] = []

    def start(self, run: Run, results: Path) -> "PoolAttempt":
        """Give the run to an idle process, or to a new one."""
        process = self.idle.pop() if self.idle else self._process()
        return PoolAttempt(process, process.submit(do_run, run, results.resolve()), self)

    def _process(self) -> ProcessPoolExecutor:
        spawn = multiprocessing.get_context("spawn")  # a fork would inherit PyTorch's threads
        return ProcessPoolExecutor(1, spawn, initializer=_begin, initargs=(self.uses,))

    def close(self) -> None:
        """End the idle processes."""
        for process in self.idle:
            process.shutdown()


class PoolAttempt:
    """One attempt in a process of the pool, which is idle again afterwards."""

    def __init__(
        self, process: ProcessPoolExecutor, future: "Future[None]", backend: PoolBackend
    ) -> None:
        self.process, self.future, self.backend = process, future, backend

    def outcome(self) -> Outcome | None:
        """How it ended; None while it lasts."""
        if not self.future.done():
            return None
        error = self.future.exception()
        if isinstance(error, BrokenProcessPool):
            self.process.shutdown()
            return Outcome("failed", "its process died")
        self.backend.idle.append(self.process)
        if error is None:
            return Outcome("done")
        if isinstance(error, HeldError):
            return Outcome("held")
        return Outcome("failed", first_line(str(error) or type(error).__name__))

    def stop(self) -> None:
        """End the process, and with it its hold on the run."""
        for process in list((self.process._processes or {}).values()):
            process.terminate()
        self.process.shutdown()


def _begin(uses: str) -> None:
    """Make this process like a notebook's kernel: one thread, and no longer than its parent."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    torch.set_num_threads(1)
    if uses:
        use(Path(uses))
