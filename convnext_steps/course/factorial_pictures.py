"""Pictures of factorials: against a walk that takes one decision at a time, and what pairs do."""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from convnext_steps.course.factorials import where_trained
from convnext_steps.course.pictures import Picture
from convnext_steps.study.effect_plots import plot_credits
from convnext_steps.study.effects import (
    RUNS_PER_TERM,
    Analysis,
    credit_over_orders,
    models,
)
from convnext_steps.study.figures import BLUE, ORANGE, STYLES, finish, own_style, subplots
from convnext_steps.study.orders import places
from convnext_steps.study.space import Floats, Space
from convnext_steps.study.statistics import ALPHA

SIMULATIONS = 200


@where_trained
def draw_credits(analysis: Analysis) -> Picture:
    """Each decision's credit over all orders as a strip, with the paper's order marked."""
    table = credit_over_orders(analysis)
    words = [
        f"{row.decision} {row.smallest_model:+z.1f} to {row.largest_model:+z.1f}, "
        f"in the paper's order as trained {row.paper:+z.1f}"
        for row in table.itertuples()
    ]
    alternative = f"Credit of each decision over all orders, by the model: {'; '.join(words)}."
    return Picture(plot_credits(table), alternative)


def two_ways(space: Space, analysis: Analysis | None = None, seeds: int = 20) -> pd.DataFrame:
    """One row per decision: what a walk and a factorial of equally many runs find, simulated.

    The truth is the fitted model and, for each network, as much again as the model leaves of the
    networks' accuracies; the noise is that of a network's repeats. Without a model no decision does
    anything, and the noise is 1. The walk trains the paper's networks with some seeds, the
    factorial as many networks drawn at random, once each.

    Columns: decision, truth (the average effect over its contexts), and for `walk` and `factorial`
    each: the estimate and half the width of its 95 % interval in the first simulation, `length`
    (of that half, on average) and `holds` (share of the intervals that hold the truth).

    Args:
        space: the decisions and their rules.
        analysis: the fitted models.
        seeds: of each of the walk's networks.
    """
    rng, runs = np.random.default_rng(0), seeds * len(space.paper)
    both = runs > RUNS_PER_TERM * space.terms(space.sets).shape[1]
    known, noise = np.zeros((len(space.sets), SIMULATIONS)), 1.0
    if analysis is not None:
        last = models(analysis).iloc[-1]
        noise = float(np.fmin(last["pure_sd"], last["sd"]))
        left = np.sqrt(last["sd"] ** 2 - noise**2)
        known += analysis.best.predict(analysis.terms(space.sets))[:, None]
        known += rng.normal(scale=left, size=known.shape)
    chain = np.searchsorted(space.codes(space.sets), space.codes(space.paper))
    drawn = rng.choice(len(space.sets), runs, replace=runs > len(space.sets))
    steps = np.eye(len(chain))
    designs = {
        "walk": (np.repeat(chain, seeds), np.repeat(steps, seeds, 0), np.diff(steps, axis=0)),
        "factorial": (drawn, space.terms(space.sets[drawn], both), space.contrasts(both)),
    }
    pairs = [(before, after) for before, after, _ in places(space)]
    truth = np.array([np.mean(known[after] - known[before], axis=0) for before, after in pairs])
    table = pd.DataFrame({"decision": space.decisions, "truth": truth[:, 0]})
    for name, (networks, terms, wanted) in designs.items():
        found = known[networks] + rng.normal(scale=noise, size=(runs, SIMULATIONS))
        estimates, margins = _intervals(terms, wanted, found)
        holds = np.abs(estimates - truth) <= margins
        table[name], table[f"{name}_margin"] = estimates[:, 0], margins[:, 0]
        table[f"{name}_length"], table[f"{name}_holds"] = margins.mean(1), holds.mean(1)
    return table


def _intervals(terms: Floats, wanted: Floats, found: Floats) -> tuple[Floats, Floats]:
    """Least squares: estimates (wanted, draws), and half the width of each 95 % t-interval."""
    inverse = np.linalg.pinv(terms)
    fit, free = inverse @ found, len(terms) - terms.shape[1]
    sd = np.sqrt(((found - terms @ fit) ** 2).sum(0) / free)
    spread = np.linalg.norm(wanted @ inverse, axis=1)
    return wanted @ fit, stats.t.ppf(1 - ALPHA / 2, free) * np.outer(spread, sd)


@own_style
def draw_two_ways(table: pd.DataFrame) -> Picture:
    """One simulated walk and one factorial with equally many runs, from a table of `two_ways`."""
    figure, axes = subplots(figsize=(8, 1.2 + 0.45 * len(table)))
    heights = np.arange(len(table))[::-1]
    axes.axvline(0, color="black", linewidth=0.8)
    looks = (("walk", 0.15, ORANGE, "s"), ("factorial", -0.15, BLUE, "o"))
    for name, shift, color, mark in looks:
        style: dict[str, Any] = {"color": color, "marker": mark, "linestyle": "none", "capsize": 3}
        margins = table[f"{name}_margin"]
        axes.errorbar(table[name], heights + shift, xerr=margins, label=name, **style)
    line: dict[str, Any] = {"marker": "|", "color": "black", "linestyle": "none", "markersize": 18}
    axes.plot(table["truth"], heights, label="true average effect", **line)
    axes.set_yticks(heights, table["decision"])
    axes.set_xlabel("effect on accuracy (points), with 95 % intervals, simulated")
    finish(axes, grid="x")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    lengths = [table[f"{name}_length"].mean() for name in ("walk", "factorial")]
    words = "intervals are ± {:.2f} points on average in the walk, ± {:.2f} in the factorial"
    alternative = f"Simulated estimates of each decision: {words.format(*lengths)}."
    return Picture(figure, alternative)


@where_trained
@own_style
def draw_pair(analysis: Analysis, one: str, other: str) -> Picture:
    """What one decision gains without and with another: the model's means over all their contexts.

    Args:
        analysis: the fitted models.
        one: a decision, a line for each of its values.
        other: a decision, along the axis.
    """
    space = analysis.space
    both = [space.decisions.index(name) for name in (one, other)]
    rest = np.delete(space.sets, both, axis=1)
    _, group, size = np.unique(rest, axis=0, return_inverse=True, return_counts=True)
    free = space.sets[size[group.ravel()] == 4]  # both values of both are allowed
    figure, axes = subplots(figsize=(6, 3.6))
    words, means = [], {}
    for taken, style in zip((0, 1), STYLES, strict=False):
        for with_other in (0, 1):
            rows = free[(free[:, both] == (taken, with_other)).all(1)]
            test = analysis.best.t_test(analysis.terms(rows).mean(0))
            margin = np.ptp(test.conf_int(ALPHA)) / 2
            means[taken, with_other] = float(np.ravel(test.effect)[0]), margin
        label = f"{'with' if taken else 'without'} {one}"
        heights, margins = zip(means[taken, 0], means[taken, 1], strict=True)
        axes.errorbar((0, 1), heights, yerr=margins, capsize=4, label=label, **style)
    for with_other, word in ((0, "without"), (1, "with")):
        gain = means[1, with_other][0] - means[0, with_other][0]
        words.append(f"{gain:+z.2f} points {word} {other}")
    axes.set_xticks((0, 1), (f"without {other}", f"with {other}"))
    axes.set_xlim(-0.3, 1.3)
    axes.set_ylabel("accuracy (%)")
    finish(axes, grid="y", legend=True)
    return Picture(figure, f"In the model, {one} changes accuracy by {' and by '.join(words)}.")
