"""One lock per run's folder: whoever holds it works there, and nobody else does.

The system releases a lock when the process that holds it dies, however that ends; a holder that is
only stopped keeps its run. A runner holds the lock while it prepares the folder, and again while it
puts a result in place. In between, the worker that executes the notebook does (`worker.py`), so
that a run is free again only when its training has ended, whatever became of the runner.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from convnext_steps.errors import ConvNeXtStepsError

LOCK = "run.lock"  # stays, empty: removing it could give two processes a lock each
HOLDER = "holder.partial.json"  # written by the worker: its process and host


class HeldError(ConvNeXtStepsError, RuntimeError):
    """Somebody else works on the run."""


@dataclass(frozen=True)
class Holder:
    """The process that works on a run, and its host."""

    pid: int
    host: str


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which is made.

    Raises:
        HeldError: another process holds it.
        OSError: the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise HeldError(f"another process works in {folder}") from None
    try:
        yield
    finally:
        lock.release()


def holder(folder: Path) -> Holder | None:
    """Who works on a run; None where nobody does."""
    if not (folder / LOCK).exists():
        return None
    try:
        with hold(folder):
            return None
    except HeldError:
        try:
            return Holder(**json.loads((folder / HOLDER).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # a moment before it is written
            return Holder(0, "unknown")
