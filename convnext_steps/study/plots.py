"""The figures, drawn from result files only."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from convnext_steps.models.paper import TABLES, published_roadmap
from convnext_steps.models.roadmap import Step, published_steps
from convnext_steps.study.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    finish,
    own_style,
    subplots,
)
from convnext_steps.study.loading import steps_of, study_of
from convnext_steps.study.tables import summarize

# One colour for each section of the paper, and one for the user's own steps.
SECTION_COLORS = {
    "2.1": GREY,
    "2.2": SKY,
    "2.3": ORANGE,
    "2.4": GREEN,
    "2.5": PURPLE,
    "2.6": BLUE,
    "own": RED,
}
SECTION_TITLES = {
    "2.1": "recipe",
    "2.2": "macro design",
    "2.3": "ResNeXt-ify",
    "2.4": "inverted bottleneck",
    "2.5": "large kernels",
    "2.6": "micro design",
    "own": "steps",
}


@own_style
def plot_trajectory(results: pd.DataFrame, until: str | None = None, ask: bool = False) -> Figure:
    """The paper's Figure 2 for our results, next to the paper's own numbers.

    On the left, for each step: every seed's accuracy as a dot, their mean as a bar, the
    multiply-adds of the trained network next to it; a step without results is a gap. On the right,
    quoted: the accuracies of Tables 10 and 11 on ImageNet-1K. Steps of `add_step` come last.

    Args:
        results: a table of `load_results`, of one study.
        until: the section of the paper that the trajectory ends with; None: all of it.
        ask: leave the bars of this last section for the reader to predict.
    """
    all_steps = steps_of(results).values()
    steps = [step for step in all_steps if until is None or step.section <= until]
    shown = [step for step in steps if not (ask and step.section == until)]
    quotes = any(step.paper.macs for step in steps[1:])
    widths = (3, 2) if quotes else (1,)
    size = (13, max(0.42 * len(steps) + 1.6, 3))
    grid = {"sharey": True, "width_ratios": widths, "squeeze": False}
    figure, [[ours, *quoted]] = subplots(1, len(widths), figsize=size, **grid)
    _draw_ours(ours, shown, results)
    for axes in quoted:
        _draw_paper(axes, shown, study_of(results).roadmap)
    for axes in (ours, *quoted):
        for row, step in enumerate(steps[len(shown) :], start=len(shown)):
            _draw_open(axes, row, step)
    labels = [f"{step.title} (probe)" if step.probe else step.title for step in steps]
    ours.set_yticks(range(len(steps)), labels)
    ours.set_ylim(len(steps) + 0.2, -1.2)  # the first step at the top, under the column heads
    sections = {step.section for step in steps}
    handles = [
        ours.barh([0], [0], color=color, label=f"{section} {SECTION_TITLES[section]}")
        for section, color in SECTION_COLORS.items()
        if section in sections
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=7, frameon=False)
    return figure


@own_style
def plot_history(history: Sequence[Mapping[str, float]]) -> Figure:
    """One run's training loss and test accuracy over its steps, from its history."""
    table = pd.DataFrame(history)
    figure, (loss, accuracy) = subplots(1, 2, figsize=(7, 3))
    training = table.dropna(subset="training_loss")
    loss.plot(training["step"], training["training_loss"], color=SECTION_COLORS["2.6"])
    loss.set(xlabel="step", ylabel="training loss (nats)")
    tests = table.dropna(subset="accuracy")
    accuracy.plot(tests["step"], tests["accuracy"], "o-", color=SECTION_COLORS["2.3"])
    accuracy.set(xlabel="step", ylabel="test accuracy (%)")
    return figure


def _draw_ours(axes: Axes, steps: list[Step], results: pd.DataFrame) -> None:
    summary = summarize(results).set_index("step")
    left, right = _limits(results["accuracy"])
    for row, step in enumerate(steps):
        mean, macs = summary.loc[step.name, ["accuracy", "macs"]]
        if np.isnan(mean):
            axes.text(left, row, "  no result", va="center", color="gray", style="italic")
            continue
        axes.barh(row, mean - left, left=left, **_style(step))
        seeds = results[results["step"] == step.name]["accuracy"]
        axes.plot(seeds, np.full(len(seeds), row), "o", color="black", markersize=3.5, zorder=3)
        _column(axes, row, f"{mean:.1f} %   {macs / 1e6:.2f} M")
    axes.set_xlim(left, right + 0.35 * (right - left))
    axes.set_xlabel("accuracy on the test set (%)")
    studies = ", ".join(sorted(set(results["study"]))) or "none"
    axes.set_title(f"this study ({studies}; seeds: {results['seed'].nunique()})\n")
    _column(axes, -1, "mean   multiply-adds")
    finish(axes)


def _draw_paper(axes: Axes, steps: list[Step], roadmap: str) -> None:
    known = [step.paper.top1_mean for step in published_steps(roadmap).values()]
    left, right = _limits(pd.Series([top for top in known if top is not None]))
    for row, step in enumerate(steps):
        top, deviation = step.paper.top1_mean, step.paper.top1_std
        if top is None or step.paper.macs is None:
            continue
        axes.barh(row, top - left, left=left, xerr=deviation, **_style(step))
        mark = "*" if step.paper.erratum else " "
        _column(axes, row, f"{top:.1f} %   {step.paper.macs / 1e9:.2f} G{mark}")
    swin = published_roadmap(roadmap)["swin"]
    if swin.top1_mean:
        axes.axvline(swin.top1_mean, color="black", linestyle=":", linewidth=1)
        axes.text(swin.top1_mean, -1, f"{swin.title} ", ha="right", va="center", fontsize=8)
    axes.set_xlim(left, right + 0.55 * (right - left))
    note = "\n* as counted; the table prints another number" if roadmap == "tiny" else ""
    axes.set_xlabel(f"top-1 accuracy on ImageNet-1K (%){note}")
    axes.set_title(f"the paper (quoted from its {TABLES[roadmap]})\n")
    _column(axes, -1, "mean   multiply-adds")
    finish(axes)


def _draw_open(axes: Axes, row: int, step: Step) -> None:
    """An empty bar: what will it be?"""
    left, right = axes.get_xlim()
    style = _style(step) | {"facecolor": "none", "linestyle": "--"}
    axes.barh(row, 0.3 * (right - left), left=left, **style)
    axes.text(left + 0.15 * (right - left), row, "?", ha="center", va="center", fontweight="bold")


def _column(axes: Axes, row: float, text: str) -> None:
    """Write numbers at the right edge, in the row of their step."""
    transform = axes.get_yaxis_transform()
    axes.text(1, row, text, transform=transform, ha="right", va="center", fontsize=8.5)


def _limits(accuracies: "pd.Series[float]") -> tuple[float, float]:
    """Where the accuracy axis begins and ends: the bars show differences, as in the paper."""
    if accuracies.empty:
        return 0.0, 100.0
    low, high = float(accuracies.min()), float(accuracies.max())
    return low - max(0.5, 0.15 * (high - low)), high + 0.1


def _style(step: Step) -> dict[str, Any]:
    """Steps of the chain are filled in their section's colour, probes only outlined and hatched."""
    color = SECTION_COLORS[step.section]
    if step.probe:
        return {"facecolor": "white", "edgecolor": color, "hatch": "///", "height": 0.55}
    return {"facecolor": color, "edgecolor": color, "height": 0.75}
