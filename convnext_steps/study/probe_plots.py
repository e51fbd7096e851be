"""The figures beyond the paper, drawn from tables of `probes`."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from convnext_steps.models.roadmap import roadmap
from convnext_steps.study.plots import SECTION_COLORS
from convnext_steps.study.probes import paper_gains

# Two series apart in colour, lightness and shape.
STYLES: tuple[dict[str, Any], ...] = (
    {"color": SECTION_COLORS["2.6"], "marker": "o"},
    {"color": SECTION_COLORS["2.3"], "marker": "s"},
)
COLUMNS = 5


def plot_budget(budget: pd.DataFrame) -> Figure:
    """The gain of each step over its parent against the images seen, for each depth.

    Small marks are seeds, lines join their means; the dotted line is the paper's gain.

    Args:
        budget: a table of `budget_gains`.
    """
    paper = paper_gains()
    rows = -(-len(paper) // COLUMNS)
    figure = Figure(figsize=(13, 2.3 * rows + 0.8), layout="constrained")
    panels = list(figure.subplots(rows, COLUMNS, sharex=True, sharey=True).flat)
    for axes, (step, gain) in zip(panels, paper.items(), strict=False):
        _draw_gains(axes, budget[budget["step"] == step])
        axes.axhline(0, color="black", linewidth=0.6)
        axes.axhline(gain, color="black", linestyle=":", label="the paper's gain")
        axes.set_title(roadmap()[str(step)].title, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    if not budget.empty:
        ticks = sorted(budget["images"].unique())
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{images:,}" for images in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
    figure.supxlabel("images seen in training")
    figure.supylabel("gain over the parent (points)")
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=3, frameon=False
    )
    return figure


def _draw_gains(axes: Axes, gains: pd.DataFrame) -> None:
    depths = sorted(gains["depth"].unique(), reverse=True)
    for depth, style, line in zip(depths, STYLES, ("-", "--"), strict=False):
        ours = gains[gains["depth"] == depth]
        axes.plot(ours["images"], ours["gain"], linestyle="", markersize=3, alpha=0.6, **style)
        means = ours.groupby("images")["gain"].mean()
        axes.plot(means.index, means, linestyle=line, label=f"{depth} blocks", **style)


def plot_pairs(series: Mapping[str, pd.DataFrame], quantity: str) -> Figure:
    """Two series of the same steps beside each other: small marks are seeds, large ones means.

    Args:
        series: by label, a row a seed and a column a step.
        quantity: what is shown, with its unit.
    """
    (first, *_) = series.values()
    names = list(first.columns)
    figure = Figure(figsize=(9, 0.4 * len(names) + 1.4), layout="constrained")
    axes = figure.subplots()
    for offset, style, (label, table) in zip((-0.15, 0.15), STYLES, series.items(), strict=True):
        rows = [row + offset for row in range(len(names))]
        for _, values in table[names].iterrows():
            axes.plot(values, rows, linestyle="", markersize=3, alpha=0.6, **style)
        axes.plot(table[names].mean(), rows, linestyle="", markersize=8, label=label, **style)
    axes.set_yticks(range(len(names)), [roadmap()[name].title for name in names])
    axes.invert_yaxis()
    axes.set_xlabel(quantity)
    axes.grid(axis="x", color="#DDDDDD")
    low, high = axes.get_xlim()
    if low < 0 < high:
        axes.axvline(0, color="black", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
