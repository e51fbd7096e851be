"""Tables as Markdown, and columns of numbers as people read them; a missing number is a dash."""

from collections.abc import Iterable, Mapping

import pandas as pd

from convnext_steps.text import number, plus_minus

WORDS = {  # columns of words, which begin at the left; numbers end at the right
    *("step", "against", "study", "verdict", "paper's verdict"),
    *("network", "front", "decision", "with", "model"),
}


def markdown_table(columns: Mapping[str, Iterable[object]]) -> str:
    """Columns of the same length, by their heads."""
    marks = "|".join("---" if name in WORDS else "--:" for name in columns)
    rows = [columns, *zip(*columns.values(), strict=True)]
    cells = ([str(cell).replace("|", "\\|") for cell in row] for row in rows)
    head, *lines = ("| " + " | ".join(row) + " |" for row in cells)
    return "\n".join([head, f"|{marks}|", *lines])


def numbers(values: Iterable[float], form: str = ".2f") -> list[str]:
    """Numbers in Python's format notation."""
    return [number(value, form) for value in values]


def signed(values: Iterable[float]) -> list[str]:
    """Differences in points, with their sign."""
    return numbers(values, "+z.2f")


def within(values: Iterable[float], margins: Iterable[float], form: str = "+z.2f") -> list[str]:
    """Differences in points, or numbers in another form, each with its margin."""
    pairs = zip(values, margins, strict=True)
    return [plus_minus(value, margin, form) for value, margin in pairs]


def percent(values: Iterable[float]) -> list[str]:
    """Shares in per cent."""
    return ["-" if pd.isna(value) else f"{100 * value:.0f} %" for value in values]


def p_values(values: Iterable[float]) -> list[str]:
    """Probabilities, to three digits."""
    return ["< 0.001" if value < 0.001 else number(value, ".3f") for value in values]
