"""Where the runs of a study are executed: one interface for this machine and for a cluster."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from convnext_steps.execution.lock import HeldError
from convnext_steps.study.plan import Run
from convnext_steps.text import first_line


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: done, failed, or held, where another runner has the run."""

    state: Literal["done", "failed", "held"]
    error: str = ""

    @classmethod
    def of(cls, error: BaseException | None) -> "Outcome":
        """What an attempt's error means; None where there was none."""
        if error is None:
            return cls("done")
        if isinstance(error, HeldError):
            return cls("held")
        return cls("failed", first_line(str(error) or type(error).__name__))


class Attempt(Protocol):
    """One attempt at one run, under way somewhere."""

    def outcome(self) -> Outcome | None:
        """How it ended; None while it lasts."""

    def stop(self) -> None:
        """End it early; its checkpoints stay, and the next attempt resumes from them."""


class Backend(Protocol):
    """Starts attempts, each of which has the run to itself for as long as it lasts."""

    workers: int  # how many attempts it takes at once

    def start(self, run: Run, results: Path) -> Attempt:
        """Begin one attempt."""

    def close(self) -> None:
        """Wait for what was stopped, and release what was acquired."""
