"""Studies beside each other: do two of them credit a step with different gains?

"Significant here, not there" is no comparison; what is tested is the difference of the two gains.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from convnext_steps.study import markdown
from convnext_steps.study.figures import STYLES, finish, own_style, subplots
from convnext_steps.study.loading import steps_of, study_of
from convnext_steps.study.probes import gains
from convnext_steps.study.statistics import (
    accuracies,
    comparisons,
    holm,
    sign_flip_p,
    spread,
    verdicts,
)


def compare_studies(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One row per step and study after the first: the difference of its gain from the first's.

    Gains are over the parent, in points; differences are paired by seed. Columns: step, title,
    study, n (seeds that both have), first_gain, gain, difference, std, margin (half of the mean's
    95 % t-interval), p (of the sign-flip test), p_holm (corrected over all rows) and verdict, "too
    few seeds" where no p could pass that correction.

    Args:
        tables: of `load_results`, one per study; the first is what the others are compared with.

    Raises:
        ValueError: there are fewer than two, or no step is common to all.
    """
    if len(tables) < 2:
        raise ValueError("a comparison needs two studies or more")
    first, *others = tables
    pairs = _common(tables)
    rows = [
        _difference(first, other, step, parent)
        for other in others
        for step, parent in pairs.items()
    ]
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"])
    table["verdict"] = verdicts(table["n"], table["difference"], table["p_holm"])
    return table


def _common(tables: Sequence[pd.DataFrame]) -> Mapping[str, str]:
    """The comparisons that all of the studies make: a step and what it is compared with."""
    made = [comparisons(steps_of(table)) for table in tables]
    common = {
        step: parent
        for step, parent in made[0].items()
        if all(other.get(step) == parent for other in made[1:])
    }
    if not common:
        names = ", ".join(study_of(table).name for table in tables)
        raise ValueError(f"the studies {names} have no step in common")
    return common


def _difference(first: pd.DataFrame, other: pd.DataFrame, step: str, parent: str) -> dict[str, Any]:
    ours, theirs = (_gain(table, step, parent, "accuracy") for table in (first, other))
    difference = (theirs - ours).dropna().to_numpy()
    # Whole numbers, so that ties are ties: images, times the images of the other's test set.
    images = [_gain(table, step, parent, "correct") for table in (first, other)]
    sizes = [int(table["test_images"].iloc[0]) if len(table) else 1 for table in (first, other)]
    whole = (images[1] * sizes[0] - images[0] * sizes[1]).dropna().to_numpy()
    return {
        "step": step,
        "title": steps_of(first)[step].title,
        "study": study_of(other).name,
        "n": difference.size,
        "first_gain": ours.mean(),
        "gain": theirs.mean(),
        **spread(difference, "difference"),
        "p": sign_flip_p(whole),
    }


def _gain(table: pd.DataFrame, step: str, parent: str, column: str) -> "pd.Series[float]":
    columns = accuracies(table, column)
    return columns[step] - columns[parent]


def to_markdown(table: pd.DataFrame, first: str) -> str:
    """A table of `compare_studies` as Markdown; a missing result is a dash."""
    columns = {
        "step": table["title"],
        "study": table["study"],
        "n": table["n"],
        f"gain in {first}": markdown.signed(table["first_gain"]),
        "gain": markdown.signed(table["gain"]),
        "difference": markdown.within(table["difference"], table["margin"]),
        "p": markdown.p_values(table["p_holm"]),
        "verdict": table["verdict"],
    }
    return (
        f"{markdown.markdown_table(columns)}\n\n"
        "Gains in points over the parent; their difference paired by n seeds, ± half of its 95 % "
        "t-interval (uncorrected); p of the sign-flip test of the difference, with Holm's "
        f"correction over {len(table)} comparisons.\n"
    )


@own_style
def plot_comparison(tables: Sequence[pd.DataFrame]) -> Figure:
    """The trajectories of several studies: accuracies, and gains with their intervals.

    Args:
        tables: of `load_results`, one per study; the first gives the order of the steps.
    """
    steps = list(steps_of(tables[0]))
    titles = [step.title for step in steps_of(tables[0]).values()]
    figure, (left, right) = subplots(
        1, 2, sharey=True, figsize=(13, max(0.42 * len(steps) + 1.6, 3))
    )
    for place, (table, style) in enumerate(zip(tables, cycle(STYLES), strict=False)):
        shift = 0.6 * ((place + 0.5) / len(tables) - 0.5)
        marks = style | {"linestyle": "", "label": study_of(table).name}
        _draw(left, accuracies(table), steps, shift, marks)
        _draw(right, gains(table), steps, shift, marks)
    right.axvline(0, color="black", linewidth=0.8)
    left.set_yticks(range(len(steps)), titles)
    left.invert_yaxis()
    left.set_xlabel("accuracy on the test set (%)")
    right.set_xlabel("gain over the parent (points), with 95 % intervals")
    for axes in (left, right):
        finish(axes, "both")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _draw(
    axes: Axes, columns: pd.DataFrame, steps: Sequence[str], shift: float, marks: dict[str, Any]
) -> None:
    found = [spread(columns[step].dropna().to_numpy(), "mean") for step in steps if step in columns]
    rows = [row + shift for row, step in enumerate(steps) if step in columns]
    means, margins = ([each[name] for each in found] for name in ("mean", "margin"))
    axes.errorbar(means, rows, xerr=np.nan_to_num(margins), capsize=2, **marks)
