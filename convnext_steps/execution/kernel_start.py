"""What the kernel of an executed notebook runs first, so that its time goes into the training.

It collects garbage less often: imports alone make so many objects that a sixth of their time went
into that. It exits at once: Python takes a second to tear down PyTorch. And it ends with papermill,
and with it its hold on the run's lock.
"""

import atexit
import gc
import os

from convnext_steps.execution.parent import follow_parent

gc.set_threshold(100_000)
atexit.register(os._exit, 0)
follow_parent()
del atexit, gc, os, follow_parent  # they are not the notebook's
