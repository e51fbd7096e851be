"""Figures of a factorial: effects, interactions, credit over all orders, and the front."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogFormatter

from convnext_steps.study.effects import Analysis, where_from
from convnext_steps.study.figures import (
    BLUE,
    GREY,
    LINES,
    ORANGE,
    RED,
    SKY,
    STYLES,
    finish,
    own_style,
    subplots,
)
from convnext_steps.study.networks import papers_own

PAPERS = "the paper's own, by number of decisions"


@own_style
def plot_effects(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Each decision's average effect with its 95 % t-interval.

    Args:
        tables: of `main_effects`, by the name of the study.
    """
    size = len(next(iter(tables.values())))
    figure, axes = subplots(figsize=(8, 1 + 0.4 * size))
    axes.axvline(0, color="black", linewidth=0.8)
    marks = zip(tables.items(), cycle(STYLES), strict=False)
    for place, ((name, table), style) in enumerate(marks):
        heights = np.arange(size)[::-1] + 0.3 * ((len(tables) - 1) / 2 - place)
        margins = [table["effect"] - table["low"], table["high"] - table["effect"]]
        style = style | {"linestyle": "none", "label": name}
        axes.errorbar(table["effect"], heights, xerr=margins, capsize=4, **style)
    axes.set_yticks(np.arange(size)[::-1], next(iter(tables.values()))["decision"])
    axes.set_xlabel("average effect on accuracy (points), with 95 % intervals")
    finish(axes, grid="x")
    if len(tables) > 1:
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


@own_style
def plot_interactions(interactions: pd.DataFrame, decisions: tuple[str, ...]) -> Figure:
    """A heat map of a table of `interactions`; those found have a frame, others are small print."""
    size = len(decisions)
    grid = np.full((size, size), np.nan)
    figure, axes = subplots(figsize=(2.5 + 0.7 * size, 2 + 0.6 * size))
    most = interactions["effect"].abs().max()
    for row in interactions.itertuples():
        one, other = decisions.index(row.other), decisions.index(row.decision)
        grid[one, other] = row.effect
        dark = abs(row.effect) > 0.6 * most
        axes.text(
            *(other, one, f"{row.effect:+z.2f}"),
            ha="center",
            va="center",
            color="white" if dark else "black",
            fontsize=10 if row.found else 7,
            fontweight="bold" if row.found else "normal",
        )
        if row.found:
            frame: dict[str, Any] = {"fill": False, "edgecolor": "black", "linewidth": 2}
            axes.add_patch(Rectangle((other - 0.47, one - 0.47), 0.94, 0.94, **frame))
    image = axes.imshow(grid, cmap="PuOr", vmin=-most, vmax=most)
    axes.set_xticks(range(size), decisions, rotation=45, ha="right")
    axes.set_yticks(range(size), decisions)
    axes.set_title("framed: found, at a false discovery rate of 5 %; empty: not free to vary")
    figure.colorbar(image, shrink=0.7, label="points that one gains more when the other is taken")
    finish(axes)
    return figure


@own_style
def plot_credits(credits: pd.DataFrame) -> Figure:
    """Each decision's credit over all orders as a strip, from a table of `credit_over_orders`."""
    figure, axes = subplots(figsize=(9, 1.6 + 0.45 * len(credits)))
    places = np.arange(len(credits))[::-1]
    axes.axvline(0, color="black", linewidth=0.8)
    words = "all orders, with the noise of single runs"
    noisy: dict[str, Any] = {"label": words, "color": GREY, "linewidth": 2}
    axes.hlines(places, credits["smallest"], credits["largest"], **noisy)
    middle: dict[str, Any] = {"label": "nine tenths of these", "color": LINES, "linewidth": 15}
    axes.hlines(places, credits["q05"], credits["q95"], **middle)
    model = credits["smallest_model"], credits["largest_model"]
    axes.hlines(places, *model, color=SKY, linewidth=7, label="all orders, by the model alone")
    means: dict[str, Any] = {"fmt": "o", "color": BLUE, "capsize": 4, "zorder": 3}
    margins = [credits["mean"] - credits["mean_low"], credits["mean_high"] - credits["mean"]]
    axes.errorbar(credits["mean"], places, xerr=margins, label="mean of all orders, 95 %", **means)
    hollow: dict[str, Any] = {"mfc": "none", "markersize": 9, "mew": 2, "zorder": 4}
    axes.plot(credits["paper"], places, "D", color=RED, label="the paper's order", **hollow)
    axes.set_yticks(places, credits["decision"])
    axes.set_xlabel(f"credit (points)\n{where_from(credits)}")
    finish(axes, grid="x")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


@own_style
def plot_front(analysis: Analysis) -> Figure:
    """Accuracy against multiply-adds of every network, with the front and the paper's own."""
    columns = ["accuracy", "macs", "paper", "front"]
    means = analysis.runs.groupby("step")[columns].mean().sort_values("macs", kind="stable")
    front, chain = means[means["front"] > 0], papers_own(means)
    figure, axes = subplots(figsize=(9, 5.5))
    axes.plot(means["macs"] / 1e6, means["accuracy"], ".", color=GREY, label="every network")
    line: dict[str, Any] = {"color": "black", "linewidth": 1.2, "label": "the front"}
    axes.step(front["macs"] / 1e6, front["accuracy"], where="post", **line)
    style: dict[str, Any] = {"mec": "black", "markersize": 8}
    axes.plot(chain["macs"] / 1e6, chain["accuracy"], "D", color=ORANGE, label=PAPERS, **style)
    for row in chain.itertuples():
        position, decisions = (row.macs / 1e6, row.accuracy), str(row.Index).count("+")
        axes.annotate(str(decisions), position, xytext=(6, 4), textcoords="offset points")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.5)))
    axes.set_xlabel("million multiply-adds per image")
    axes.set_ylabel("test accuracy (%)")
    finish(axes, grid="both", legend=True)
    return figure
