"""Work that can be taken a step at a time, or all at once."""

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")


def finish(steps: Generator[None, None, T]) -> T:
    """Take all steps of a piece of work; return what it ends with."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
