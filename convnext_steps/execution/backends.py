"""Where the runs of a study are executed: one interface for this machine and for a cluster."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from convnext_steps.study.plan import Run


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt: done, failed, or held, where another runner has the run."""

    state: Literal["done", "failed", "held"]
    error: str = ""


class Attempt(Protocol):
    """One attempt at one run, under way somewhere."""

    def outcome(self) -> Outcome | None:
        """What came of it; None while it lasts."""

    def stop(self) -> None:
        """End it early; its checkpoints stay, and the next attempt goes on from them."""


class Backend(Protocol):
    """Starts attempts, each of which has the run to itself for as long as it lasts."""

    workers: int  # how many attempts it takes at once

    def start(self, run: Run, results: Path) -> Attempt:
        """Begin one attempt."""

    def close(self) -> None:
        """Wait for what was stopped, and let go of what was taken."""
