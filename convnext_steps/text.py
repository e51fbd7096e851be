"""Names, lists and numbers as people read them."""

import math
import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches


def unknown(kind: str, name: str, known: Collection[str]) -> str:
    """One line about a name that does not exist, with the nearest that does."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    nearest = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.4)
    others = f"choose from {', '.join(known)}" if known else "there are none"
    hint = f"did you mean {by_lower[nearest[0]]!r}?" if nearest else others
    return f"unknown {kind} {name!r}; {hint}"


def check_name(name: str, what: str) -> None:
    """Check that a name can be a folder's.

    Raises:
        ValueError: it cannot.
    """
    if not re.fullmatch(r"[\w.+-]+", name) or name.startswith("."):
        raise ValueError(f"{what} is {name!r}; it must be of letters, digits, _, -, + and .")


def few(names: Sequence[str], most: int = 3) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def number(value: float | None, form: str = ".2f") -> str:
    """A number in Python's format notation; a dash where there is none (None or NaN)."""
    return "-" if value is None or math.isnan(value) else format(value, form)


def plus_minus(value: float | None, margin: float | None, form: str = ".2f") -> str:
    """A number and, after ±, its margin or its deviation, where there are any."""
    known = margin is not None and not math.isnan(margin)
    return number(value, form) + (f" ± {margin:.2f}" if known else "")


def first_line(error: BaseException | str) -> str:
    """The first line of an error or of a text; of an error, after its kind."""
    lines = str(error).strip().splitlines()[:1]
    kind = [type(error).__name__] if isinstance(error, BaseException) else []
    return ": ".join([*kind, *lines])
