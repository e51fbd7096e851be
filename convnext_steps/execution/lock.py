"""One lock per run's folder: the process that trains the run holds it, and nobody else works there.

The system releases a lock when the process that holds it dies, in whatever way; a holder that is
only suspended keeps its run.
"""

import json
import os
import socket
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from convnext_steps.errors import ConvNeXtStepsError
from convnext_steps.files import write_json

LOCK = "run.lock"  # stays, empty: removing it could give two processes a lock each
HOLDER = "holder.partial.json"  # the process that holds the lock, and its host
PATIENCE = 2.0  # seconds: `status` takes a lock for a moment, to look


class HeldError(ConvNeXtStepsError, RuntimeError):
    """Another process is working on the run."""


def take(folder: Path) -> FileLock:
    """Hold the lock of a run's folder, which is created, until it is released or this process ends.

    Raises:
        HeldError: another process holds it.
        OSError: the folder cannot be created or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock((folder / LOCK).resolve(), is_singleton=True)  # a cell may be run again
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise HeldError(f"another process is working in {folder}") from None
    write_json(folder / HOLDER, {"pid": os.getpid(), "host": socket.gethostname()})
    return lock


def holder(folder: Path) -> str:
    """Who is working on a run, in words; "" if nobody is."""
    if not (folder / LOCK).exists():
        return ""
    try:
        with FileLock(folder / LOCK, timeout=0):
            return ""
    except Timeout:
        with suppress(OSError, ValueError, TypeError, KeyError):  # a moment before it is written
            known = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
            return "process {pid} on {host}".format_map(known)
        return "another process"
