"""Runs as processes of this machine."""

import subprocess
from contextlib import suppress
from pathlib import Path

import torch

from convnext_steps.errors import ResultError
from convnext_steps.execution.backends import Outcome
from convnext_steps.execution.lock import LOCK, HeldError, hold
from convnext_steps.execution.machine import cores
from convnext_steps.execution.notebook import find_notebook, start_notebook
from convnext_steps.execution.runfolder import (
    PARTIAL_NOTEBOOK,
    done,
    finish,
    prepare,
    record_failure,
)
from convnext_steps.execution.worker import HELD
from convnext_steps.study.plan import Run


class LocalBackend:
    """Attempts in processes of their own, one a core, or one alone where there is a GPU."""

    def __init__(self) -> None:
        self.workers = 1 if torch.cuda.is_available() else cores()

    def start(self, run: Run, results: Path) -> "LocalAttempt":
        """Start the run's notebook."""
        return LocalAttempt(run, results)

    def close(self) -> None:
        """Nothing is left: each attempt ends when it is stopped."""


class LocalAttempt:
    """One attempt in a process, which holds the run's lock.

    The notebook has one thread, so that its result does not depend on how many run at once.
    """

    def __init__(self, run: Run, results: Path) -> None:
        self.run, self.folder = run, run.folder(results)
        self.process: subprocess.Popen[bytes] | None = None
        self.ended = self._begin(results)

    def _begin(self, results: Path) -> Outcome | None:
        try:
            with hold(self.folder):
                if done(self.run, results):  # since the runner looked
                    return Outcome("done")
                prepare(self.run, self.folder)
            self.process = start_notebook(
                find_notebook("run_step"),
                self.folder / PARTIAL_NOTEBOOK,
                parameters(self.run, self.folder),
                threads=1,
                lock=(self.folder / LOCK).resolve(),
            )
        except HeldError:
            return Outcome("held")
        except (OSError, ValueError) as error:
            return self._failed(str(error))
        return None

    def outcome(self) -> Outcome | None:
        """What came of it; puts in place what an ended process left."""
        if self.ended is None and self.process is not None:
            exit_code = self.process.poll()
            self.ended = None if exit_code is None else self._finish(exit_code)
        return self.ended

    def _finish(self, exit_code: int) -> Outcome:
        if exit_code == HELD:
            return Outcome("held")
        try:
            with hold(self.folder):
                finish(self.run, self.folder, exit_code)
        except HeldError:
            return Outcome("held")
        except (ResultError, OSError) as error:
            return self._failed(str(error))
        return Outcome("done")

    def _failed(self, error: str) -> Outcome:
        with suppress(OSError):  # the folder may be what ails the run
            record_failure(self.folder, error)
        return Outcome("failed", error)

    def stop(self) -> None:
        """End the process, and with it its hold on the run."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()


def parameters(run: Run, folder: Path) -> dict[str, str | int]:
    """What `run_step.ipynb` needs to know of a run."""
    return {
        "STEP": run.step,
        "REGIME": run.regime,
        "PROFILE": run.profile,
        "SEED": run.seed,
        "OUTPUT": str(folder.resolve()),
    }
