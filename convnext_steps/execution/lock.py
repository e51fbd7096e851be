"""One lock per run's folder: its holder works there, and nobody else does.

The system releases a lock when the process that holds it dies, in whatever way; a holder that is
only suspended keeps its run. A runner holds the lock while it prepares the folder, and again while
it puts a result in place. In between, the worker that executes the notebook holds it (`worker.py`),
so that a run is free again only when its notebook has ended, whatever became of the runner; the
kernel follows the worker within a tenth of a second.
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
    """Another process is working on the run."""


@dataclass(frozen=True)
class Holder:
    """The process that is working on a run, and its host."""

    pid: int
    host: str


@contextmanager
def hold(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of a run's folder, which is created.

    Args:
        folder: the run's.
        patience: seconds to wait for whoever holds it, who may only have a look.

    Raises:
        HeldError: another process holds it.
        OSError: the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise HeldError(f"another process is working in {folder}") from None
    try:
        yield
    finally:
        lock.release()


def holder(folder: Path) -> Holder | None:
    """Who is working on a run; None if nobody is."""
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
