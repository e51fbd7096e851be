"""Runs as processes of this machine."""

import subprocess
import time
from contextlib import suppress
from pathlib import Path

import torch

from convnext_steps.errors import ResultError
from convnext_steps.execution.backends import Outcome
from convnext_steps.execution.lock import HEARTBEAT_SECONDS, claim, keep, release
from convnext_steps.execution.machine import cores
from convnext_steps.execution.notebook import find_notebook, start_notebook
from convnext_steps.execution.runfolder import (
    PARTIAL_NOTEBOOK,
    done,
    finish,
    prepare,
    record_failure,
)
from convnext_steps.study.plan import Run


class LocalBackend:
    """Attempts in processes of their own, one a core, or one alone where there is a GPU."""

    def __init__(self) -> None:
        self.workers = 1 if torch.cuda.is_available() else cores()

    def start(self, run: Run, results: Path) -> "LocalAttempt":
        """Claim the run and start its notebook."""
        return LocalAttempt(run, results)

    def close(self) -> None:
        """Nothing is left: each attempt ends when it is stopped."""


class LocalAttempt:
    """One attempt in a process, under a lease that is renewed whenever the outcome is asked for.

    The notebook has one thread, so that its result does not depend on how many run at once.
    """

    def __init__(self, run: Run, results: Path) -> None:
        self.run, self.folder = run, run.folder(results)
        self.process: subprocess.Popen[bytes] | None = None
        self.renewed = time.monotonic()
        self.ended = self._begin(results)

    def _begin(self, results: Path) -> Outcome | None:
        try:
            if not claim(self.folder, results):
                return Outcome("held")
            if done(self.run, results):  # since the runner looked
                return self._release(Outcome("done"))
            prepare(self.run, self.folder)
            partial = self.folder / PARTIAL_NOTEBOOK
            given = parameters(self.run, self.folder)
            self.process = start_notebook(find_notebook("run_step"), partial, given, threads=1)
        except (OSError, ValueError) as error:
            return self._failed(str(error))
        return None

    def outcome(self) -> Outcome | None:
        """What came of it; renews the lease, and puts in place what an ended process left."""
        if self.ended is None:
            self.ended = self._look_after()
        return self.ended

    def _look_after(self) -> Outcome | None:
        assert self.process is not None
        ended = self.process.poll() is not None
        if not ended and time.monotonic() - self.renewed < HEARTBEAT_SECONDS:
            return None
        self.renewed = time.monotonic()
        try:
            if not keep(self.folder):  # this process slept for long, and another has taken over
                self.stop()
                return Outcome("held")
            if not ended:
                return None
            finish(self.run, self.folder, self.process.returncode)
        except (ResultError, OSError) as error:
            return self._failed(str(error))
        return self._release(Outcome("done"))

    def _failed(self, error: str) -> Outcome:
        with suppress(OSError):  # the folder may be what ails the run
            record_failure(self.folder, error)
        return self._release(Outcome("failed", error))

    def _release(self, outcome: Outcome) -> Outcome:
        release(self.folder)
        return outcome

    def stop(self) -> None:
        """End the process, and then the lease."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
        release(self.folder)


def parameters(run: Run, folder: Path) -> dict[str, str | int]:
    """What `run_step.ipynb` needs to know of a run."""
    return {
        "STEP": run.step,
        "REGIME": run.regime,
        "PROFILE": run.profile,
        "SEED": run.seed,
        "OUTPUT": str(folder.resolve()),
    }
