"""A module, such as papermill, in a process that ends with whoever started it, however that ended.

Run as a file, so that nothing of the package is imported beside the notebook's kernel:
`python worker.py PARENT MODULE ...`.
"""

import os
import runpy
import sys
import threading
import time


def follow(parent: int) -> None:
    """End this process when its parent is gone; the kernel watches this process likewise."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    # jsonschema, imported by nbformat, would spend a second on a grammar that no notebook needs
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    threading.Thread(target=follow, args=(int(sys.argv.pop(1)),), daemon=True).start()
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
