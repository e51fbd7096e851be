"""What a seed can tell: one draw, pairs of draws, and what fewer of them would have said."""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from convnext_steps.course.pictures import Picture
from convnext_steps.study.figures import BLUE, GREEN, ORANGE, finish, own_style, subplots
from convnext_steps.study.loading import steps_of
from convnext_steps.study.statistics import (
    ALPHA,
    accuracies,
    compare,
    comparisons,
    seeds_needed,
    smallest_p,
    spread,
)

SEEDS = range(2, 13)


def pairs_of_seeds(results: pd.DataFrame, step: str) -> pd.DataFrame:
    """One row per seed that both have: the accuracy of the parent and of the step, and the gain.

    Args:
        results: of one study.
        step: a step that is compared with a parent.

    Raises:
        ValueError: the study compares no such step.
    """
    parents = comparisons(steps_of(results))
    if step not in parents:
        raise ValueError(
            f"{step!r} is not compared with a parent; choose from {', '.join(parents)}"
        )
    table = accuracies(results)[[parents[step], step]].dropna()
    return table.assign(gain=table[step] - table[parents[step]])


def pairing(results: pd.DataFrame) -> pd.DataFrame:
    """One row per comparison: what pairing by seed takes off the spread of a gain, in points.

    `paired` is the standard deviation of the gains by seed; `unpaired` what it would be if step and
    parent had seeds of their own: the root of the sum of both variances.
    """
    rows = []
    for step in comparisons(steps_of(results)):
        table = pairs_of_seeds(results, step)
        first, second, paired = table.std()
        titles = {"step": steps_of(results)[step].title, "seeds": len(table)}
        rows.append({**titles, "unpaired": float(np.hypot(first, second)), "paired": paired})
    return pd.DataFrame(rows).set_index("step")


def smaller_studies(results: pd.DataFrame, size: int) -> pd.DataFrame:
    """What every smaller study with some of these seeds would have said of each gain.

    One row per comparison: the gain and the verdict of all seeds, and of all choices of `size` of
    them the per cent whose mean has the same sign, and whose interval (95 %, uncorrected) excludes
    zero on this side or on the other.

    Args:
        results: of one study.
        size: seeds of a smaller study, two or more.
    """
    table = compare(results)
    rows = []
    for row in table.itertuples():
        gains = pairs_of_seeds(results, row.step)["gain"].to_numpy()
        chosen = np.array(list(combinations(gains, size))).reshape(-1, size)
        means, margins = chosen.mean(axis=1), _half_width(size) * chosen.std(axis=1, ddof=1)
        side = np.sign(row.difference)
        shares = {
            "same sign %": means * side > 0,
            "excludes zero, same sign %": means * side > margins,
            "excludes zero, other sign %": -means * side > margins,
        }
        known = {
            name: 100 * share.mean() if len(chosen) else np.nan for name, share in shares.items()
        }
        rows.append({"step": row.title, "gain": row.difference, "verdict": row.verdict, **known})
    return pd.DataFrame(rows).set_index("step")


def _half_width(seeds: int) -> float:
    """Half of a mean's 95 % t-interval, in standard deviations."""
    return float(stats.t.ppf(1 - ALPHA / 2, seeds - 1) / seeds**0.5)


@own_style
def draw_pairs_of_seeds(results: pd.DataFrame, step: str) -> Picture:
    """A step and its parent seed by seed, and the gains with their deviation and their interval.

    Args:
        results: of one study.
        step: a step that is compared with a parent.
    """
    table = pairs_of_seeds(results, step)
    parent, gains = table.columns[0], table["gain"].to_numpy()
    found = spread(gains, "mean")
    figure, (left, right) = subplots(1, 2, figsize=(10, 3.6))
    for _, row in table.iterrows():
        left.plot([0, 1], [row[parent], row[step]], "o-", color=BLUE, alpha=0.6)
    left.set(xlim=(-0.3, 1.3), ylabel="accuracy on the test set (%)")
    left.set_xticks([0, 1], [parent, step])
    right.plot(gains, [0] * len(gains), "o", color=BLUE, alpha=0.6)
    bars = (("std", 1, ORANGE), ("margin", 2, GREEN))
    for name, height, color in bars:
        right.errorbar(found["mean"], height, xerr=found[name], fmt="D", color=color, capsize=4)
    right.axvline(0, color="black", linewidth=0.8)
    right.set(ylim=(-0.7, 2.7), xlabel="gain over the parent (points)")
    right.set_yticks(
        range(3), ["seeds", "mean ± standard\ndeviation", "mean ± half of\nits interval"]
    )
    for axes in (left, right):
        finish(axes, "both")
    return Picture(
        figure,
        f"{step} against {parent} over {len(gains)} seeds: gain {found['mean']:+.2f} points, "
        f"standard deviation {found['std']:.2f}, "
        f"half the width of the mean's interval {found['margin']:.2f}.",
    )


@own_style
def draw_seeds(comparisons: int = 16) -> Picture:
    """What seeds buy and comparisons cost: interval, smallest p-value, false alarms.

    Args:
        comparisons: how many are made at once.
    """
    figure, (interval, p_value, alarms) = subplots(1, 3, figsize=(12, 3.4))
    widths = {n: _half_width(n) for n in SEEDS}
    interval.plot(SEEDS, list(widths.values()), "o-", color=BLUE)
    interval.set(ylim=(0, None), xlabel="seeds")
    interval.set_ylabel("half the width of the 95 % interval\n(standard deviations)")
    p_value.semilogy(SEEDS, [smallest_p(n) for n in SEEDS], "s-", color=ORANGE)
    for count, style in ((1, "--"), (comparisons, ":")):
        p_value.axhline(ALPHA / count, color="black", linestyle=style, label=f"{ALPHA} / {count}")
    p_value.set(xlabel="seeds", ylabel="smallest possible p-value\nof the sign-flip test")
    many = range(1, comparisons + 1)
    chances = [1 - (1 - ALPHA) ** count for count in many]
    alarms.plot(many, [100 * chance for chance in chances], "D-", color=GREEN, label="uncorrected")
    alarms.axhline(100 * ALPHA, color="black", linestyle="--", label="Holm: at most")
    alarms.set(ylim=(0, None), xlabel="independent comparisons without an effect")
    alarms.set_ylabel("chance of a false alarm (%)")
    for axes in (interval, p_value, alarms):
        finish(axes, "both", legend=axes is not interval)
    return Picture(
        figure,
        f"Half of a mean's interval falls from {widths[2]:.1f} standard deviations with 2 seeds "
        f"to {widths[10]:.1f} with 10. A sign-flip test of {comparisons} comparisons needs "
        f"{seeds_needed(comparisons)} seeds. That many uncorrected tests raise a false alarm "
        f"with a chance of {chances[-1]:.0%}.",
    )
