"""Runs as executed notebooks, in processes of this machine; how many at once."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from convnext_steps.device import gpu_shares, visible
from convnext_steps.execution.backends import Outcome
from convnext_steps.execution.lock import HeldError
from convnext_steps.execution.machine import cores
from convnext_steps.execution.notebook import find_notebook, last_line, log_of, start_notebook
from convnext_steps.execution.runfolder import (
    FAILED_NOTEBOOK,
    NOTEBOOK,
    PARTIAL_NOTEBOOK,
    clear_leftovers,
    done,
    record_failure,
)
from convnext_steps.study.plan import Run
from convnext_steps.study.toml import study_file
from convnext_steps.training.how import How

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class LocalBackend:
    """Attempts in processes of their own: one per core, or one per GPU.

    Args:
        how: of the study whose runs they are.
    """

    def __init__(self, how: How) -> None:
        self.gpus = gpu_shares(how.device, how.processes)
        self.workers = len(self.gpus) or max(1, cores() // how.processes)
        self.attempts: list[LocalAttempt] = []

    def start(self, run: Run, results: Path) -> "LocalAttempt":
        """Start the run's notebook, on the GPUs that fewest others use."""
        self.attempts = [attempt for attempt in self.attempts if attempt.ended is None]
        used = [attempt.gpus for attempt in self.attempts]
        own = min(self.gpus, key=used.count, default=None)
        self.attempts.append(LocalAttempt(run, results, own))
        return self.attempts[-1]

    def close(self) -> None:
        """Nothing is left: each attempt ends when it is stopped."""


class LocalAttempt:
    """One attempt in a process of its own, whose notebook takes the run's lock.

    The notebook has one thread, so that its result does not depend on how many run at once.
    """

    def __init__(self, run: Run, results: Path, own_gpus: list[int] | None = None) -> None:
        self.run, self.folder, self.gpus = run, run.folder(results), own_gpus
        self.partial = self.folder / PARTIAL_NOTEBOOK.format(os.getpid())
        self.process: subprocess.Popen[bytes] | None = None
        self.ended: Outcome | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            parameters = {
                "STUDY": str(study_file(run.study, results).resolve()),
                "STEP": run.step,
                "SEED": run.seed,
                "RESULTS": str(results.resolve()),
                "USES": run.uses,
            }
            settings = ONE_THREAD | visible(own_gpus)
            notebook = find_notebook("run_step")
            self.process = start_notebook(notebook, self.partial, parameters, settings)
        except (OSError, ValueError) as error:
            self.ended = self._failed(str(error))

    def outcome(self) -> Outcome | None:
        """How it ended; gives the executed notebook its name."""
        if self.ended is None and self.process is not None:
            exit_code = self.process.poll()
            self.ended = None if exit_code is None else self._finish(exit_code)
        return self.ended

    def _finish(self, exit_code: int) -> Outcome:
        if exit_code == 0 and done(self.run, self.folder):
            with suppress(FileNotFoundError):  # another runner took it for a leftover
                self.partial.replace(self.folder / NOTEBOOK)
            clear_leftovers(self.folder)
            return Outcome("done")
        last = last_line(self.partial)
        log_of(self.partial).unlink(missing_ok=True)
        if HeldError.__name__ in last:
            self.partial.unlink(missing_ok=True)
            return Outcome("held")
        with suppress(FileNotFoundError):
            self.partial.replace(self.folder / FAILED_NOTEBOOK)
        return self._failed(f"{last} (see {self.folder / FAILED_NOTEBOOK})")

    def _failed(self, error: str) -> Outcome:
        with suppress(OSError):  # the folder may be what is wrong
            record_failure(self.folder, error)
        return Outcome("failed", error)

    def stop(self) -> None:
        """End the process; its kernel, which holds the run, follows within a tenth of a second."""
        if self.process is not None and self.ended is None:
            self.process.terminate()
            self.process.wait()
            log_of(self.partial).unlink(missing_ok=True)
            self.partial.unlink(missing_ok=True)
