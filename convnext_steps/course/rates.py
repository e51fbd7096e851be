"""Accuracy over the peak learning rate: what one rate for all costs, and gains at own rates."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pandas as pd

from convnext_steps.course.pictures import Picture
from convnext_steps.execution.runner import run_study
from convnext_steps.study.figures import STYLES, finish, own_style, subplots
from convnext_steps.study.loading import load_results
from convnext_steps.study.statistics import accuracies, spread, tested
from convnext_steps.study.study import Study
from convnext_steps.study.sweep import sweep, sweep_table
from convnext_steps.study.toml import load_study

KEY = "recipe.learning_rate"
EACH, ADDED = "each at its own", "what tuning adds"


def studies_at(study: str, steps: Sequence[str], rates: Sequence[float]) -> list[Study]:
    """A study for each rate that trains these steps only, tested on held-out training images."""
    return sweep(replace(load_study(study), only=tuple(steps)), KEY, rates)


def rate_results(
    study: str,
    steps: Sequence[str],
    rates: Sequence[float],
    results: str | Path,
    train: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per step and rate: `step`, `learning_rate`, `accuracy` (%, held out), and `study`.

    Args:
        study: whose recipe is varied; a tenth of its training images are held out. Where it has no
            results, those of the quick study are shown.
        steps: names of steps.
        rates: peak learning rates.
        results: the folder of your own results; where it has none, the published ones are read.
        train: whether to train what is missing first, with this seed.
        seed: of the training.

    Raises:
        ValueError: none of these results are stored.
    """
    for each in studies_at(study, steps, rates) if train else ():
        run_study(each, [seed], steps, results)
    for name in (study, "quick"):
        studies = studies_at(name, steps, rates)
        wide = sweep_table([load_results(each, results) for each in studies], KEY)
        long = wide.reindex(list(steps)).stack().dropna().rename("accuracy").reset_index()
        if len(long):
            return long.assign(study=name)
    raise ValueError("no such steps and rates are stored; set TRAIN = True to train them")


@own_style
def draw_rates(table: pd.DataFrame) -> Picture:
    """Accuracy over the peak learning rate, one line per step.

    Args:
        table: of `rate_results`.
    """
    figure, axes = subplots(figsize=(6.5, 3.6))
    words = []
    lines = zip(table.groupby("step", sort=False), cycle(STYLES), strict=False)
    for (name, rows), style in lines:
        axes.semilogx(rows["learning_rate"], rows["accuracy"], label=name, **style)
        best = rows.loc[rows["accuracy"].idxmax()]
        words.append(f"{name} best at {best['learning_rate']:g} with {best['accuracy']:.1f} %")
    rates = sorted(set(table["learning_rate"]))
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.minorticks_off()
    axes.set(xlabel="peak learning rate (logarithmic)", ylabel="accuracy on held-out images (%)")
    finish(axes, legend=True)
    return Picture(figure, f"Accuracy over the peak learning rate: {'; '.join(words)}.")


def results_at(
    study: str,
    own: Mapping[str, float],
    results: str | Path,
    seeds: Sequence[int],
) -> dict[float, pd.DataFrame]:
    """A study's results by learning rate: its own first, then those of each network.

    Args:
        study: its name; at another rate, it is the study with only that changed.
        own: by network, its own rate.
        results: the folder of your own results; where it has none, the published ones are read.
        seeds: fresh ones, not used to choose the rates.
    """
    base = replace(load_study(study), only=tuple(own.keys()))
    rates = dict.fromkeys([base.recipe.learning_rate, *own.values()])
    return {rate: load_results(base.change({KEY: rate}), results, seeds) for rate in rates}


def tuned_gains(
    tables: Mapping[float, pd.DataFrame],
    pairs: Mapping[str, str],
    own: Mapping[str, float],
    column: str = "accuracy",
) -> dict[str, pd.DataFrame]:
    """Gains by seed, one column per step: all at the study's rate, and each at its own.

    Args:
        tables: of `results_at`.
        pairs: by step, the network that it is compared with; left out where `own` lacks either.
        own: by network, its own rate.
        column: "accuracy" for points, or "correct" for test images.
    """
    at = {rate: accuracies(table, column) for rate, table in tables.items()}
    rate = next(iter(tables))
    common = dict.fromkeys(own.keys(), rate)
    return {
        label: pd.DataFrame(
            {
                step: at[rates[step]][step] - at[rates[parent]][parent]
                for step, parent in pairs.items()
                if {step, parent} <= rates.keys()
            }
        )
        for label, rates in ((f"all at {rate:g}", common), (EACH, own))
    }


def change_at_own(tables: Mapping[float, pd.DataFrame], own: Mapping[str, float]) -> pd.DataFrame:
    """One row per network whose own rate is not the study's: what it changes on fresh seeds.

    Columns: own rate, seeds, change and margin (points), and in how many seeds accuracy is higher.
    The arguments are those of `tuned_gains`.
    """
    at = {rate: accuracies(table) for rate, table in tables.items()}
    rate = next(iter(tables))
    rows = {}
    for name, tuned in own.items():
        change = (at[tuned][name] - at[rate][name]).dropna().to_numpy()
        if tuned != rate and change.size:
            known = spread(change, "change")
            rows[name] = (tuned, change.size, known["change"], known["margin"], sum(change > 0))
    columns = ["own rate", "seeds", "change", "margin", "higher"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def compare_tuned(
    tables: Mapping[float, pd.DataFrame], pairs: Mapping[str, str], own: Mapping[str, float]
) -> pd.DataFrame:
    """Three rows per step: the gain at the study's rate, at own rates, and what tuning adds.

    Columns: seeds, gain and margin (points; half the width of the mean's 95 % t-interval), p (sign
    flips, with Holm's correction over all rows) and verdict. The arguments are those of
    `tuned_gains`.
    """
    points, images = (tuned_gains(tables, pairs, own, each) for each in ("accuracy", "correct"))
    for gains in (points, images):
        shared, tuned = gains.values()
        gains[ADDED] = tuned - shared
    order = [(rates, step) for step in points[EACH] for rates in points]
    table = tested(*(pd.concat(gains, axis=1)[order] for gains in (points, images)))
    names = {"n": "seeds", "difference": "gain", "p_holm": "p"}
    table = table.drop(columns=["std", "p"]).rename(columns=names)
    return table.swaplevel().rename_axis(["step", "rates"])
