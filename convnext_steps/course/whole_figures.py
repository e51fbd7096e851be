"""Figures of the whole trajectory: its gains, and what seeds and comparisons do to them."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from convnext_steps.course.pictures import Picture
from convnext_steps.course.whole import agreement
from convnext_steps.study.statistics import ALPHA, accuracies, compare, seeds_needed, smallest_p

OURS, TINY, BASE = "#0072B2", "#E69F00", "#009E73"  # Okabe and Ito's, as in study/plots.py
SEEDS = range(2, 13)


def draw_gains(results: pd.DataFrame) -> Picture:
    """The gain of each step over its parent with its interval, beside the paper's two regimes.

    Small dots are seeds; intervals end at the edge of the figure.

    Args:
        results: of one profile.
    """
    table, gains, columns = compare(results), agreement(results), accuracies(results)
    seeds = [(columns[pair.step] - columns[pair.parent]).dropna() for pair in table.itertuples()]
    figure = Figure(figsize=(11, 0.5 * len(table) + 1.6), layout="constrained")
    axes = figure.subplots()
    for row, each in enumerate(seeds):
        axes.plot(each, [row - 0.25] * len(each), "o", color=OURS, markersize=3, alpha=0.6)
    rows = pd.Series(range(len(table)))
    ours = {"xerr": table["margin"], "color": OURS, "fmt": "o", "label": "ours"}
    axes.errorbar(table["difference"], rows - 0.25, capsize=3, **ours)
    tiny = {"xerr": table["paper_margin"], "color": TINY, "fmt": "s", "label": "the paper, tiny"}
    axes.errorbar(table["paper_difference"], rows, capsize=3, **tiny)
    axes.plot(gains["paper, base"], rows + 0.25, "D", color=BASE, label="the paper, base")
    far = 1.15 * pd.concat([*seeds, table["paper_difference"]]).abs().max()
    axes.set(xlim=(-far, far), yticks=rows, yticklabels=table["title"])
    axes.set_xlabel("gain over the parent (points of accuracy), with 95 % intervals")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.invert_yaxis()
    _finish(axes)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    words = [
        f"{row.title} {_gain(row.difference)} ({_gain(row.paper_difference)})"
        for row in table.itertuples()
    ]
    return Picture(
        figure, f"Gains in points, ours and in brackets the paper's: {'; '.join(words)}."
    )


def _gain(points: float) -> str:
    return "no result" if pd.isna(points) else f"{points:+z.2f}"


def draw_seeds(comparisons: int = 16) -> Picture:
    """What seeds buy and comparisons cost: interval, smallest p-value, false alarms.

    Args:
        comparisons: how many are made at once.
    """
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    interval, p_value, alarms = figure.subplots(1, 3)
    widths = {n: stats.t.ppf(1 - ALPHA / 2, n - 1) / n**0.5 for n in SEEDS}
    interval.plot(SEEDS, list(widths.values()), "o-", color=OURS)
    interval.set(ylim=(0, None), xlabel="seeds")
    interval.set_ylabel("half of the 95 % interval\n(standard deviations)")
    p_value.semilogy(SEEDS, [smallest_p(n) for n in SEEDS], "s-", color=TINY)
    for count, style in ((1, "--"), (comparisons, ":")):
        p_value.axhline(ALPHA / count, color="black", linestyle=style, label=f"{ALPHA} / {count}")
    p_value.set(xlabel="seeds", ylabel="smallest possible p-value\nof the sign-flip test")
    many = range(1, comparisons + 1)
    chances = [1 - (1 - ALPHA) ** count for count in many]
    alarms.plot(many, [100 * chance for chance in chances], "D-", color=BASE, label="uncorrected")
    alarms.axhline(100 * ALPHA, color="black", linestyle="--", label="Holm: at most")
    alarms.set(ylim=(0, None), xlabel="independent comparisons without an effect")
    alarms.set_ylabel("chance of a false alarm (%)")
    for axes in (interval, p_value, alarms):
        _finish(axes)
    for axes in (p_value, alarms):
        axes.legend(frameon=False)
    return Picture(
        figure,
        f"Half of a mean's interval falls from {widths[2]:.1f} standard deviations with 2 seeds "
        f"to {widths[10]:.1f} with 10. A sign-flip test of {comparisons} comparisons needs "
        f"{seeds_needed(comparisons)} seeds. So many uncorrected tests raise a false alarm with a "
        f"chance of {chances[-1]:.0%}.",
    )


def _finish(axes: Axes) -> None:
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
