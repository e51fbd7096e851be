"""What the kernel of an executed notebook runs first, so that its time goes into the training.

It collects garbage less often: imports alone make so many objects that a sixth of their time went
into that. It exits at once: Python takes a second to tear down PyTorch. And it ends within a tenth
of a second of papermill, and with it its hold on the run's lock.
"""

import atexit
import gc
import os
import threading


def _follow(parent: int) -> None:
    import os
    import time

    while os.getppid() == parent:
        time.sleep(0.1)
    os._exit(1)


gc.set_threshold(100_000)
atexit.register(os._exit, 0)
if os.name == "posix":  # on Windows a parent's number stays; there ipykernel waits for the parent
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
del atexit, gc, os, threading, _follow  # they are not the notebook's
