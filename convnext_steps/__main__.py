"""python -m convnext_steps, which torchrun needs."""

import sys

from convnext_steps.cli import main

if __name__ == "__main__":
    sys.exit(main())
