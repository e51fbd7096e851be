"""Decisions of your own that need code: a Python file that calls `add_step`."""

import importlib.util
import sys
from pathlib import Path

from convnext_steps.files import expanded
from convnext_steps.text import first_line


def use(path: Path) -> None:
    """Execute a Python file once, for the steps that it adds.

    Raises:
        ValueError: the file does not exist, or fails.
    """
    file = expanded(path).resolve()
    name = f"convnext_steps_uses_{file.stem}"
    if name in sys.modules and sys.modules[name].__file__ == str(file):
        return
    spec = importlib.util.spec_from_file_location(name, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise ValueError(f"uses: there is no Python file {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # somebody's own code can raise anything
        del sys.modules[name]
        raise ValueError(f"uses: {file.name} failed: {first_line(error)}") from None
