"""A module, such as papermill, in a process that ends with whoever started it.

Run as a file, so that nothing of the package is imported beside the notebook's kernel:
`python -P worker.py PARENT LOCK MODULE ...`. It holds the lock from beginning to end, unless LOCK
is "-"; where another process holds it, it ends at once with the exit code HELD.
"""

import json
import os
import runpy
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

HELD = 75
PATIENCE = 5.0  # seconds: a runner may hold the lock for a moment, to look
HOLDER = "holder.partial.json"  # as in lock.py, which is not imported here


def follow(parent: int) -> None:
    """End this process when its parent is gone; the kernel follows this process likewise."""
    while os.getppid() == parent:
        time.sleep(0.1)
    os._exit(1)


def take(lock: str) -> Any:
    """Hold a lock, for as long as what is returned lives, and leave word of who does."""
    from filelock import FileLock, Timeout

    held = FileLock(lock)
    try:
        held.acquire(timeout=PATIENCE)
    except Timeout:
        os._exit(HELD)
    me = {"pid": os.getpid(), "host": socket.gethostname()}
    Path(lock).with_name(HOLDER).write_text(json.dumps(me))
    return held


if __name__ == "__main__":
    # jsonschema, imported by nbformat, would spend a second on a grammar that no notebook needs
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    threading.Thread(target=follow, args=(int(sys.argv.pop(1)),), daemon=True).start()
    held = None if (lock := sys.argv.pop(1)) == "-" else take(lock)
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
