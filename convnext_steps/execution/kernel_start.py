"""What the kernel of an executed notebook runs first, so that its time goes into the training.

It looks for garbage less often: imports alone make so many objects that a sixth of their time went
into that. And it ends at once: Python needs a second to take PyTorch apart.
"""

import atexit
import gc
import os

gc.set_threshold(100_000)
atexit.register(os._exit, 0)
del atexit, gc, os  # they are not the notebook's
