"""Accuracy over the peak learning rate: what one rate for all steps costs each of them."""

from collections.abc import Sequence
from itertools import cycle

import pandas as pd
from matplotlib.ticker import FixedLocator, NullLocator

from convnext_steps.course.pictures import Picture
from convnext_steps.course.trial import train_design
from convnext_steps.models.roadmap import find_step
from convnext_steps.study.figures import STYLES, finish, new_figure, own_style
from convnext_steps.study.results import PROJECT_RESULTS

STORED = PROJECT_RESULTS / "quick_learning_rate.csv"


def rate_results(
    study: str, steps: Sequence[str], rates: Sequence[float], train: bool = False, seed: int = 0
) -> pd.DataFrame:
    """One row per step and rate: `step`, `learning_rate`, `accuracy` in per cent.

    Args:
        study: whose recipe is varied.
        steps: names of steps.
        rates: peak learning rates.
        train: whether to train them; otherwise the project's stored results are read, which are
            of the quick study and seed 0.
        seed: of the training.

    Raises:
        ValueError: none of these results are stored.
    """
    if not train:
        table = pd.read_csv(STORED)
        chosen = table[table["step"].isin(steps) & table["learning_rate"].isin(rates)]
        if chosen.empty:
            raise ValueError("no such steps and rates are stored; set TRAIN = True to train them")
        return chosen
    rows = []
    for name in steps:
        for rate in rates:
            accuracy = train_design(find_step(name).design, study, seed, {"learning_rate": rate})
            rows.append({"step": name, "learning_rate": rate, "accuracy": round(accuracy, 2)})
    return pd.DataFrame(rows)


def cost_of_one_rate(table: pd.DataFrame, rate: float) -> pd.DataFrame:
    """One row per step: its own best rate, and the points that a common rate costs it.

    Args:
        table: of `rate_results`.
        rate: the common one, among those of the table.
    """
    wide = table.pivot(index="step", columns="learning_rate", values="accuracy")
    columns = {
        "own best rate": wide.idxmax(axis=1),
        "accuracy there": wide.max(axis=1),
        f"accuracy at {rate:g}": wide[rate],
        "cost in points": (wide.max(axis=1) - wide[rate]).round(2),
    }
    return pd.DataFrame(columns).loc[list(dict.fromkeys(table["step"]))]


@own_style
def draw_rates(table: pd.DataFrame) -> Picture:
    """Accuracy over the peak learning rate, one line per step.

    Args:
        table: of `rate_results`.
    """
    figure = new_figure(6.5, 3.6)
    axes = figure.subplots()
    words = []
    lines = zip(table.groupby("step", sort=False), cycle(STYLES), strict=False)
    for (name, rows), style in lines:
        axes.semilogx(rows["learning_rate"], rows["accuracy"], label=name, **style)
        best = rows.loc[rows["accuracy"].idxmax()]
        words.append(f"{name} best at {best['learning_rate']:g} with {best['accuracy']:.1f} %")
    rates = sorted(set(table["learning_rate"]))
    axes.xaxis.set_major_locator(FixedLocator(rates))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="peak learning rate (logarithmic)", ylabel="test accuracy (%)")
    finish(axes, legend=True)
    return Picture(figure, f"Test accuracy over the peak learning rate: {'; '.join(words)}.")
