"""Studies beside each other: do two of them credit a step with different gains?

"Significant here, not there" is no comparison; what is tested is the difference of the two gains.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from convnext_steps.study import markdown
from convnext_steps.study.figures import STYLES, finish, own_style, subplots
from convnext_steps.study.loading import steps_of, study_of
from convnext_steps.study.probes import gains
from convnext_steps.study.statistics import accuracies, comparisons, paired, spread, tested

COLUMNS = [
    *("step", "title", "study", "n", "first_gain", "gain"),
    *("difference", "std", "margin", "p", "p_holm", "verdict"),
]


def compare_studies(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One row per step and study after the first: the difference of its gain from the first's.

    Gains are over the parent, in points, of the seeds that both have; differences are paired by
    seed. Columns: step, title, study, n (seeds that both have), first_gain, gain, difference, std,
    margin (half of the mean's 95 % t-interval), p (of the sign-flip test), p_holm (corrected over
    all rows) and verdict, "too few seeds" where no p could pass that correction.

    Args:
        tables: of `load_results`, one per study; the first is what the others are compared with.

    Raises:
        ValueError: there are fewer than two, or no step is common to all.
    """
    if len(tables) < 2:
        raise ValueError("a comparison needs two studies or more")
    pairs = _common(tables)
    first, *others = (paired(table, pairs) for table in tables)
    # Whole numbers, so that ties are ties: images, times the images of the other's test set.
    images = [paired(table, pairs, "correct") for table in tables]
    sizes = [int(table["test_images"].iloc[0]) if len(table) else 1 for table in tables]
    whole = [
        correct * sizes[0] - images[0] * size
        for correct, size in zip(images[1:], sizes[1:], strict=True)
    ]
    names = [study_of(table).name for table in tables[1:]]
    differences = [gains - first for gains in others]
    points = pd.concat(differences, axis=1, keys=names)
    table = tested(points, pd.concat(whole, axis=1, keys=names))
    table = table.rename_axis(["study", "step"]).reset_index()
    table["title"] = [steps_of(tables[0])[step].title for step in table["step"]]
    both = [difference.notna() for difference in differences]
    table["first_gain"] = np.concatenate([first.where(each).mean() for each in both])
    of_others = [gains.where(each).mean() for gains, each in zip(others, both, strict=True)]
    table["gain"] = np.concatenate(of_others)
    return table[COLUMNS]


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
        for axes, columns in ((left, accuracies(table)), (right, gains(table))):
            known = [spread(column, "mean") for _, column in columns.reindex(columns=steps).items()]
            means, margins = ([each[name] for each in known] for name in ("mean", "margin"))
            rows = np.arange(len(steps)) + shift
            axes.errorbar(means, rows, xerr=np.nan_to_num(margins), capsize=2, **marks)
    right.axvline(0, color="black", linewidth=0.8)
    left.set_yticks(range(len(steps)), titles)
    left.invert_yaxis()
    left.set_xlabel("accuracy on the test set (%)")
    right.set_xlabel("gain over the parent (points), with 95 % intervals")
    for axes in (left, right):
        finish(axes, "both")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
