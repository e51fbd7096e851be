"""The page "Your own order": a factorial's decisions, to be put in any order; it works offline."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from convnext_steps.course.explorer import filled
from convnext_steps.models.roadmap import roadmap
from convnext_steps.study.effects import ALPHA, Analysis, analyse, values
from convnext_steps.study.loading import study_of
from convnext_steps.study.orders import best_and_worst, places
from convnext_steps.study.plots import SECTION_COLORS
from convnext_steps.study.space import Floats

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
        "sets": len(space.sets),
        "pairs": space.pairs if "interactions" in analysis.models else [],
        "coefficients": _rounded(model.params, 2 * DIGITS),
        "sd": round(float(np.sqrt(model.mse_resid)), DIGITS),
        "margins": _rounded(prediction_margins(analysis)),
        "measured": _measured(analysis),
        "credit_margins": [_rounded(margins) for margins in credit_margins(analysis)],
        "orders": {"paper": space.decisions, "best": best, "worst": worst},
    }


def prediction_margins(analysis: Analysis) -> Floats:
    """Half of the 95 % interval of one training of each set, as the model predicts it (points)."""
    predicted = analysis.best.get_prediction(analysis.terms(analysis.space.sets))
    return np.ptp(predicted.conf_int(obs=True, alpha=ALPHA), axis=1) / 2


def credit_margins(analysis: Analysis) -> list[Floats]:
    """Half of the 95 % interval of what each decision adds to a set, by the set's code (points).

    Measured accuracies have the noise of their runs, predicted ones that of the model.
    """
    linear, sd = values(analysis)[1], np.sqrt(analysis.best.mse_resid)
    return [
        _quantile(analysis) * sd * np.linalg.norm(linear[after] - linear[before], axis=1)
        for before, after, _ in places(analysis.space)
    ]


def _quantile(analysis: Analysis) -> float:
    return float(stats.t.ppf(1 - ALPHA / 2, analysis.best.df_resid))


def _measured(analysis: Analysis) -> list[list[float]]:
    """The code, the mean accuracy and the number of runs of every network that was trained."""
    space, networks = analysis.space, analysis.runs.groupby("step")["accuracy"]
    codes = space.codes(space.rows(networks.groups)).tolist()
    means = _rounded(networks.mean().to_numpy())
    return [list(each) for each in zip(codes, means, networks.size().tolist(), strict=True)]


def _rounded(numbers: Floats, digits: int = DIGITS) -> list[float]:
    return np.round(np.asarray(numbers, float), digits).tolist()
