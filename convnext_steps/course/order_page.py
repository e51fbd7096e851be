"""The page "Your own order": a factorial's decisions, to be put in any order; it works offline."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from convnext_steps.course.explorer import filled
from convnext_steps.models.roadmap import roadmap
from convnext_steps.study.effects import Analysis, analyse, values
from convnext_steps.study.loading import study_of
from convnext_steps.study.orders import best_and_worst, places
from convnext_steps.study.plots import SECTION_COLORS
from convnext_steps.study.statistics import ALPHA

DIGITS = 3  # of points of accuracy


def order_page(results: pd.DataFrame, links: Mapping[str, str] | None = None) -> str:
    """The page as HTML.

    Args:
        results: a factorial's, a table of `load_results`.
        links: pages beside it, by what the link says.

    Raises:
        ValueError: the results are not a factorial's, or too few.
    """
    return filled("order.html", order_data(results), links)


def order_data(results: pd.DataFrame) -> dict[str, Any]:
    """What the page computes every order's curve from: a model, and what was measured.

    A set of decisions has a code, with the bit of each decision taken, in the paper's order.

    Args:
        results: a factorial's, a table of `load_results`.

    Raises:
        ValueError: the results are not a factorial's, or too few.
    """
    analysis, study = analyse(results), study_of(results)
    space, model = analysis.space, analysis.best
    titles = roadmap()
    rules = [[space.decisions.index(name) for name in rule] for rule in sorted(space.rules)]
    best, worst = best_and_worst(space, model.predict(analysis.terms(space.sets)))
    return {
        "study": {"name": study.name, "description": study.description},
        "decisions": [
            {
                "name": name,
                "title": titles[name].title.removesuffix(" (ConvNeXt-T)"),
                "section": titles[name].section,
                "color": SECTION_COLORS[titles[name].section],
            }
            for name in space.decisions
        ],
        "rules": rules,  # a decision, and what it needs before it
        "interactions": "interactions" in analysis.models,
        "sd": round(float(np.sqrt(model.mse_resid)), DIGITS),
        "networks": _networks(analysis),
        "credit_margins": credit_margins(analysis),
        "orders": {"paper": space.decisions, "best": best, "worst": worst},
    }


def credit_margins(analysis: Analysis) -> list[dict[int, float]]:
    """Half of the 95 % interval of what each decision adds to a set, by the set's code (points).

    Measured accuracies have the noise of their runs, predicted ones that of the model and as much
    of their own.
    """
    linear, best = values(analysis)[1], analysis.best
    half = stats.t.ppf(1 - ALPHA / 2, best.df_resid) * np.sqrt(best.mse_resid)
    codes, found = analysis.space.codes(analysis.space.sets), []
    for before, after, _ in places(analysis.space):
        margins = half * np.linalg.norm(linear[after] - linear[before], axis=1)
        found.append(dict(zip(codes[before].tolist(), margins.round(DIGITS).tolist(), strict=True)))
    return found


def _networks(analysis: Analysis) -> dict[int, list[float]]:
    """Each set's accuracy and runs, by its code; where it has none, the prediction's margin too."""
    space = analysis.space
    codes, runs = space.codes(space.sets), analysis.runs.groupby("step").size()
    trained = dict(zip(space.codes(space.rows(runs.index)).tolist(), runs.tolist(), strict=True))
    accuracies = values(analysis)[0]
    predicted = analysis.best.get_prediction(analysis.terms(space.sets))
    margins = np.ptp(predicted.conf_int(obs=True, alpha=ALPHA), axis=1) / 2  # of one training
    columns = (codes, accuracies.round(DIGITS), margins.round(DIGITS))
    return {
        code: [accuracy, trained[code]] if code in trained else [accuracy, 0, margin]
        for code, accuracy, margin in zip(*(column.tolist() for column in columns), strict=True)
    }
