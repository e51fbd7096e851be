"""Answers to exercises, checked without a traceback."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

MISSING = "**Not answered yet.** Write your answer in the cell above, run it, then this one again."
TRIED: dict[str, set[str]] = {}  # different wrong results so far, by the exercise's hint


@dataclass(frozen=True)
class Verdict:
    """What a check says about an answer; printed as text it is the points, which nbgrader reads."""

    points: int
    message: str

    def __repr__(self) -> str:
        return str(self.points)

    def _repr_markdown_(self) -> str:
        return self.message


def check(answer: Callable[..., Any], cases: Mapping[tuple[Any, ...], Any], hint: str) -> Verdict:
    """Call an answer with the arguments of each case and compare what it returns.

    What is expected is shown from the second different wrong result on.

    Args:
        answer: the function that the reader completes.
        cases: what is expected, by the arguments.
        hint: where to look when the answer is not right yet; it also identifies the exercise.
    """
    for arguments, expected in cases.items():
        try:
            found = answer(*arguments)
            right = _equal(found, expected)
        except NotImplementedError:
            return Verdict(0, MISSING)
        except Exception as error:  # an answer can go wrong in any way
            found, right = f"{type(error).__name__}: {error}", False
        if found is None or found is ...:
            return Verdict(0, MISSING)
        if not right:
            tried = TRIED.setdefault(hint, set())
            tried.add(_short(found))
            shown = f", but `{_short(expected)}` is expected" if len(tried) > 1 else ""
            given = f"For `{', '.join(map(_short, arguments))}`: " if arguments else ""
            wrong = f"**Not yet.** {given}your answer gives `{_short(found)}`{shown}. {hint}"
            return Verdict(0, wrong)
    return Verdict(1, "**Right.**")


def _equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, tuple):
        same = isinstance(found, tuple) and len(found) == len(expected)
        return same and all(map(_equal, found, expected))
    if isinstance(expected, torch.Tensor):
        same = isinstance(found, torch.Tensor) and found.shape == expected.shape
        return same and torch.allclose(found.double(), expected.double(), atol=1e-5)
    if isinstance(expected, float):
        return math.isclose(found, expected, rel_tol=1e-3)
    return bool(found == expected)


def _short(value: Any) -> str:
    """A value in few characters; of a tensor its shape says enough."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of {tuple(value.shape)}"
    text = f"{value:,}" if type(value) in (int, float) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
