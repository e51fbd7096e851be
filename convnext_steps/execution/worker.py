"""A module, such as papermill or torchrun, in a process that ends with the one that started it.

Run as a file, so that nothing of the package is imported outside the notebook's kernel:
`python -P worker.py MODULE ...`. The process that starts it holds the other end of its standard
input, which the system closes when that process dies, in whatever way.
"""

import os
import runpy
import sys
import threading


def follow() -> None:
    """End this process when its parent is gone; the kernel follows this process likewise."""
    os.read(sys.stdin.fileno(), 1)  # not through the buffer, whose lock would outlive the program
    os._exit(1)


if __name__ == "__main__":
    # jsonschema, imported by nbformat, would spend a second on a grammar that no notebook needs
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    threading.Thread(target=follow, daemon=True).start()
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
