"""A factorial in a lesson: what its results say of every order, and a small one of one's own."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import Markdown

from convnext_steps.execution.runner import run_study
from convnext_steps.study.effect_comparison import compare_effects, in_short
from convnext_steps.study.effects import (
    Analysis,
    analyse,
    interactions,
    main_effects,
    models,
    sign_depends,
)
from convnext_steps.study.factorial import PUBLISHED, Factorial, entries
from convnext_steps.study.loading import load_results
from convnext_steps.study.orders import credits
from convnext_steps.study.study import Study
from convnext_steps.study.toml import load_study
from convnext_steps.text import unknown


def factorial_study(study: Study | str) -> Study:
    """The study, or where it is no factorial, the project's own."""
    study = load_study(study)
    return study if study.factorial else load_study(PUBLISHED)


def fitted(study: Study | str, results: str | Path = "") -> Analysis | None:
    """The models of a factorial's results so far; prints what they rest on, or what is missing.

    Args:
        study: a factorial; of another study, those of `factorial_quick` are shown.
        results: the folder of your own results; where it has none, the published ones are read.
    """
    shown = factorial_study(study)
    table = load_results(shown, results)
    try:
        analysis = analyse(table)
    except ValueError as reason:
        print(f"{reason}; train them: convnext-steps study {shown.name}")
        return None
    planned = entries(shown.factorial) if shown.factorial else ()
    line = f"{shown.name}: {len(table)} of {len(planned)} runs are there"
    if "interactions" not in analysis.models:
        line += "; too few for interactions: in the model, every order credits a decision alike"
    if shown.factorial and not shown.factorial.repeats:
        line += "; no repeats: whatever a model leaves is taken as the noise of a seed"
    print(f"{line}.")
    return analysis


def where_trained(show: Callable[..., Any]) -> Callable[..., Any]:
    """Show a line instead, as long as there are no results."""

    @wraps(show)
    def shown(analysis: Analysis | None, *arguments: Any, **options: Any) -> Any:
        if analysis is None:
            return Markdown("*Nothing to show before the factorial is trained: see above.*")
        return show(analysis, *arguments, **options)

    return shown


@where_trained
def guess_orders(analysis: Analysis, guess: Sequence[str] = ()) -> pd.DataFrame:
    """One row per decision, those whose credit varies most first: guessed, and by the model.

    Columns: your guess, paper's order, mean, smallest and largest (points, over all orders),
    negative (share of the orders) and sign (whether it depends on the order, as `sign_depends` has
    it; a model without interactions cannot tell). All but the guess are the model's alone, without
    the noise of single runs.

    Args:
        analysis: the fitted models.
        guess: the decisions whose sign the reader thinks depends on the order.

    Raises:
        ValueError: there is no such decision.
    """
    for name in guess:
        if name not in analysis.space.decisions:
            raise ValueError(unknown("decision", name, analysis.space.decisions))
    space = analysis.space
    model = analysis.best.predict(analysis.terms(space.sets))
    table = credits(space, model).set_index("decision")
    low, high = table["smallest"], table["largest"]
    signs = pd.Series("not clear", table.index).mask(sign_depends(analysis), "depends")
    shown = pd.DataFrame(
        {
            "your guess": ["depends" if name in guess else "" for name in table.index],
            "paper's order, by the model": table["paper"].round(2),
            "mean": table["mean"].round(2),
            "smallest": low.round(2),
            "largest": high.round(2),
            "negative": [f"{100 * share:.0f} %" for share in table["negative"]],
            "sign": signs if "interactions" in analysis.models else "not known",
        }
    )
    return shown.loc[(high - low).sort_values(ascending=False, kind="stable").index]


@where_trained
def clearest(analysis: Analysis, number: int = 8) -> Any:
    """The clearest interactions, or a line that says that there are too few runs for them."""
    table = interactions(analysis)
    if table.empty:
        return Markdown("*There are too few runs for interactions: the model has none.*")
    shown = table.head(number).set_index(["decision", "other"])
    return shown[["effect", "low", "high", "p_fdr", "found"]].round(3)


@where_trained
def model_errors(analysis: Analysis) -> pd.DataFrame:
    """One row per model: what it explains, what it leaves, and its error on held-out networks."""
    columns = ["terms", "runs", "r2", "r2_paper", "sd", "pure_sd", "error"]
    return models(analysis).set_index("model")[columns].round(2)


@where_trained
def beside(
    analysis: Analysis, study: Study | str, other: Study | str, results: str | Path = ""
) -> Any:
    """The decisions' effects in two factorials, and the interactions that are found to differ.

    Args:
        analysis: the fitted models of the first.
        study: the first.
        other: a factorial of the same decisions.
        results: the folder of your own results.
    """
    names = [factorial_study(each).name for each in (study, other)]
    there = fitted(other, results)
    if there is None:
        return Markdown("*Nothing to show before the other factorial is trained: see above.*")
    try:
        table = in_short(compare_effects(dict(zip(names, (analysis, there), strict=True))))
    except ValueError as reason:
        return Markdown(f"*{reason}*")
    heads = dict(zip(("first_effect", "effect"), names, strict=True))
    table = table.rename(columns={"other": "with", **heads}).set_index(["decision", "with"])
    return table[[*names, "difference", "margin", "found"]].round(2)


def own_factorial(study: Study | str, decisions: Sequence[str]) -> Study:
    """A study of every network with some of the decisions, each trained with two seeds.

    Args:
        study: whose data, scale and recipe are used.
        decisions: a few of the twelve.

    Raises:
        ValueError: a decision does not exist, or lacks the one that it needs.
    """
    study = load_study(study)
    networks = len(Factorial(decisions=tuple(decisions)).space.sets)
    changes = {"factorial.decisions": list(decisions), "factorial.repeats": networks}
    return study.change({**changes, "how.notebooks": False}, "_".join([study.name, *decisions]))


def own_effects(study: Study, results: str | Path = "", train: bool = False) -> Any:
    """The effects and interactions that one's own factorial found, or how to train it.

    Args:
        study: of `own_factorial`.
        results: the folder of your own results.
        train: whether to train what is missing first.
    """
    if train:
        run_study(study, results=results)
    try:
        analysis = analyse(load_results(study, results))
    except ValueError as reason:
        return Markdown(f"*{reason}. Set `TRAIN = True`: {len(study.plan())} runs.*")
    effects, pairs = main_effects(analysis), interactions(analysis)
    pairs = pairs.assign(decision=pairs["decision"] + " with " + pairs["other"])
    found = pd.concat([table for table in (effects, pairs) if len(table)])
    return found.set_index("decision")[["effect", "low", "high", "p"]].round(2)
