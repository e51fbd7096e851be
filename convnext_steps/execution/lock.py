"""Leases: who is doing a run, so that two runners on one folder never do it twice.

A lease is a file that its owner touches every few seconds. One that is not touched any more has
been abandoned, and whoever claims the run next takes it over. Claims are made one at a time, under
a lock on the results folder.
"""

import json
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

HEARTBEAT_SECONDS = 5.0
ABANDONED_SECONDS = 60.0  # without a heartbeat, of an owner on another machine
GONE_SECONDS = 4.0  # of an owner on this machine that has died: time for its notebook to end too
LEASE = "lease.partial.json"
GUARD = ".claims.lock"
TOKEN = uuid.uuid4().hex  # of this process


@dataclass(frozen=True)
class Owner:
    """A process: its machine, its number there, and what tells it from another of that number."""

    host: str
    pid: int
    space: str = ""  # of process numbers: containers of one machine may have their own
    token: str = ""

    @classmethod
    def me(cls) -> "Owner":
        """This process."""
        return cls(socket.gethostname(), os.getpid(), _space(), TOKEN)

    def gone(self) -> bool:
        """Whether it is known to have died: it was on this machine, and is there no more."""
        if (self.host, self.space) != (socket.gethostname(), _space()):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


def _space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        return ""


@contextmanager
def claims(results: Path) -> Iterator[float]:
    """One claim at a time; yields the time by the file system's clock, which all machines share."""
    guard = results / GUARD
    with FileLock(guard):
        os.utime(guard)
        yield guard.stat().st_mtime


def claim(folder: Path, results: Path) -> bool:
    """Take the lease of a run, unless somebody alive has it."""
    with claims(results) as now:
        if holder(folder, now) is not None:
            return False
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LEASE).write_text(json.dumps(asdict(Owner.me())))
        return True


def holder(folder: Path, now: float) -> Owner | None:
    """Who is doing a run; None where nobody is, or its owner is there no more."""
    owner = _read(folder)
    if owner is None:
        return None
    try:
        age = now - (folder / LEASE).stat().st_mtime
    except FileNotFoundError:
        return None
    if age > ABANDONED_SECONDS or (age > GONE_SECONDS and owner.gone()):
        return None
    return owner


def keep(folder: Path) -> bool:
    """Renew this process's lease; False where it has lost it to another."""
    if _read(folder) != Owner.me():
        return False
    os.utime(folder / LEASE)
    return True


def release(folder: Path) -> None:
    """Give up this process's lease."""
    if _read(folder) == Owner.me():
        (folder / LEASE).unlink(missing_ok=True)


def _read(folder: Path) -> Owner | None:
    try:
        return Owner(**json.loads((folder / LEASE).read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError):  # written this very moment, or cut off by a full disk
        return Owner("unknown", 0)
