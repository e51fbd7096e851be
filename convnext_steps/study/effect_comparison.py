"""Factorials beside each other: does a decision do in one what it does in another?

Their trainings are taken as independent: that they share images, and networks and seeds where these
are the same, is left out.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from convnext_steps.study import markdown
from convnext_steps.study.effects import Analysis
from convnext_steps.study.statistics import ALPHA


def compare_effects(analyses: Mapping[str, Analysis]) -> pd.DataFrame:
    """One row per effect and factorial after the first: how far it is from the first's.

    Columns: decision, other (of an interaction, else ""), study, first_effect and effect (points),
    difference, margin (half of Welch's 95 % interval), p, p_fdr (Benjamini and Hochberg's, over all
    rows) and found (p_fdr at most 0.05). Interactions only where each has enough runs.

    Args:
        analyses: two or more, by name; the first is what the others are compared with.

    Raises:
        ValueError: there are fewer than two, or their decisions or rules differ.
    """
    first, *others = analyses
    space = analyses[first].space
    if not others:
        raise ValueError("a comparison needs two studies or more")
    for name in others:
        if analyses[name].space != space:
            raise ValueError(f"{first} and {name} differ in their decisions or rules")
    analyses = alike(analyses)
    both = "interactions" in analyses[first].models
    names = [(one, "") for one in space.decisions]
    if both:
        names += [(space.decisions[one], space.decisions[other]) for one, other in space.pairs]
    wanted = space.estimates(both)
    fits = {name: each.best.t_test(wanted) for name, each in analyses.items()}
    table = pd.concat([_beside(fits[first], fits[name], names, name) for name in others])
    table["p_fdr"] = stats.false_discovery_control(table["p"])
    table["found"] = table["p_fdr"] <= ALPHA
    return table.reset_index(drop=True)


def alike(analyses: Mapping[str, Analysis]) -> dict[str, Analysis]:
    """The analyses with the additive models alone, unless each has one with interactions."""
    if all("interactions" in each.models for each in analyses.values()):
        return dict(analyses)
    additive = {name: {"additive": each.models["additive"]} for name, each in analyses.items()}
    return {name: replace(each, models=additive[name]) for name, each in analyses.items()}


def in_short(table: pd.DataFrame) -> pd.DataFrame:
    """Of a table of `compare_effects` the decisions, and the interactions found to differ."""
    return table[(table["other"] == "") | table["found"]]


def _beside(first: Any, other: Any, names: list[tuple[str, str]], study: str) -> pd.DataFrame:
    difference = other.effect - first.effect
    squares = np.square([first.sd, other.sd])
    degrees = np.array([[first.df_denom], [other.df_denom]])
    error = np.sqrt(squares.sum(0))
    free = error**4 / (squares**2 / degrees).sum(0)
    table = pd.DataFrame(names, columns=["decision", "other"]).assign(study=study)
    return table.assign(
        first_effect=first.effect,
        effect=other.effect,
        difference=difference,
        margin=stats.t.ppf(1 - ALPHA / 2, free) * error,
        p=2 * stats.t.sf(np.abs(difference) / error, free),
    )


def to_markdown(analyses: Mapping[str, Analysis]) -> str:
    """Every decision's effects, and the interactions that are found to differ, as Markdown."""
    first, *others = analyses
    table = compare_effects(analyses)
    shown, found = in_short(table), int(table["found"].sum())
    columns = {
        "decision": shown["decision"],
        "with": shown["other"],
        "study": shown["study"],
        f"in {first}": markdown.signed(shown["first_effect"]),
        "effect": markdown.signed(shown["effect"]),
        "difference": markdown.within(shown["difference"], shown["margin"]),
        "p, corrected": markdown.p_values(shown["p_fdr"]),
    }
    additive = (table["other"] == "").all()
    words = ", by additive models (too few runs for others)" if additive else ""
    lines = [
        markdown.markdown_table(columns),
        f"Points of accuracy{words}: each decision's average effect, and those interactions that "
        "are found to differ; differences ± half the width of their 95 % interval (Welch, not "
        f"corrected). {found} of {len(table)} differences are found, with a false discovery rate "
        "of 5 %.",
        *(f"{name}: {_together(analyses[first], analyses[name], first)}" for name in others),
    ]
    return "\n\n".join(lines) + "\n"


def _together(first: Analysis, other: Analysis, name: str) -> str:
    means = [each.runs.groupby("step")["accuracy"].mean() for each in (first, other)]
    both = pd.concat(means, axis=1, join="inner", keys=["first", "other"])
    if len(both) < 3:
        return f"{len(both)} of its networks were trained in {name} too."
    rank = stats.spearmanr(both["first"], both["other"]).statistic
    accuracies = both.mean()
    return (
        f"{len(both):,} of its networks were trained in {name} too, with a mean accuracy of "
        f"{accuracies['other']:.1f} % here and {accuracies['first']:.1f} % there, and a rank "
        f"correlation of {rank:.2f}."
    )
