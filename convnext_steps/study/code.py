"""The user's own code that a design comes from, as part of its runs' identity."""

import hashlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

from convnext_steps.models.design import Design


def own_code(design: Design) -> str | None:
    """Sixteen hexadecimal digits that change with the code of a design's class; None for `Design`.

    For a class in a module, the whole file counts. For one in a notebook, its methods count, with
    the functions and classes of the notebook that they name; its constants do not.
    """
    classes = type(design).__mro__
    own = classes[: classes.index(Design)]
    if not own:
        return None
    texts = dict.fromkeys(text for kind in own for text in _sources(kind))
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def _sources(kind: type) -> Iterator[str]:
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    if file and Path(file).is_file():
        yield Path(file).read_text(encoding="utf-8")
    else:
        yield from _followed(kind, set())


def _followed(thing: Any, seen: set[Any]) -> Iterator[str]:
    """The source of a class's methods or of a function, and of what they use from its module."""
    if thing in seen:
        return
    seen.add(thing)
    functions = vars(thing).values() if isinstance(thing, type) else [thing]
    for function in functions:
        if isinstance(function, FunctionType) and _has_source(function):
            yield inspect.getsource(function)
            for name in function.__code__.co_names:
                used = function.__globals__.get(name)
                beside = getattr(used, "__module__", None) == function.__module__
                if beside and isinstance(used, type | FunctionType):
                    yield from _followed(used, seen)


def _has_source(function: FunctionType) -> bool:
    """Whether a person wrote it: a dataclass makes some of its methods itself."""
    return inspect.unwrap(function).__code__.co_filename != "<string>"
