"""Beyond the paper: how gains change with the images seen, and what the finished network needs.

Each function takes tables of `load_results`; gains are paired by seed, in points of accuracy.
"""

import logging
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import linregress

from convnext_steps.models.roadmap import FINISHED, roadmap
from convnext_steps.study.counts import images_seen
from convnext_steps.study.loading import load_results, steps_of, study_of
from convnext_steps.study.statistics import (
    ALPHA,
    accuracies,
    holm,
    paired,
    paired_t_p,
    paper_gain,
    spread,
)
from convnext_steps.study.study import Study
from convnext_steps.study.toml import load_study

LOG = logging.getLogger("convnext_steps")


def planned_results(
    study: Study | str, results: str | Path | None = None, seeds: Iterable[int] = (0,)
) -> pd.DataFrame:
    """The planned results of some seeds of a study; says what is missing, and how to make it."""
    study, seeds = load_study(study), list(seeds)
    table = load_results(study, results, seeds)
    planned = len(study.plan(seeds))
    if len(table) < planned:
        found = f"{len(table)} of {planned} results" if len(table) else "no results yet"
        command = f"{study.name} --seeds {' '.join(map(str, seeds))}"
        LOG.warning(f"{study.name}: {found}; make them with `convnext-steps study {command}`")
    return table


def gains(results: pd.DataFrame) -> pd.DataFrame:
    """The gain of each step over its parent, one row per seed; NaN where a run is missing."""
    steps = steps_of(results)
    parents = {name: step.parent for name, step in steps.items() if step.parent}
    pairs = {name: parent for name, parent in parents.items() if parent in steps}
    return paired(results, pairs)


def paper_gains() -> "pd.Series[float]":
    """The paper's gain of each step over its parent; NaN where it has none."""
    steps = roadmap()
    pairs = ((step, steps[step.parent]) for step in steps.values() if step.parent)
    return pd.Series({step.name: paper_gain(step, parent)[0] for step, parent in pairs})


def budget_gains(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One row per gain, for studies that differ in depth and in how many images they see.

    Columns: depth (blocks of the finished network), images (seen), step, seed, gain.

    Args:
        tables: of `load_results`, one per study.
    """
    rows = []
    for table in tables:
        (finished,) = study_of(table).plan(steps=[FINISHED])
        scale = {"depth": sum(finished.design.depths), "images": images_seen(finished)}
        for step, column in gains(table).items():
            for seed, gain in column.dropna().items():
                rows.append({**scale, "step": step, "seed": seed, "gain": gain})
    return pd.DataFrame(rows, columns=["depth", "images", "step", "seed", "gain"])


def trends(budget: pd.DataFrame) -> pd.DataFrame:
    """How a gain changes with every fourfold of the images seen: a line through each seed's gains.

    One row per depth and step: n seeds, the mean of their slopes, half the width of its 95 %
    t-interval, and whether the gain grows or shrinks by the paired t-test, with Holm's correction
    over all rows; the paper's gain next to it.

    Args:
        budget: a table of `budget_gains`.
    """
    rows = []
    for (depth, step), part in budget.groupby(["depth", "step"], sort=False):
        part = part.assign(fourfolds=np.log(part["images"].astype(float)) / math.log(4))
        lines = [line for _, line in part.groupby("seed") if line["images"].nunique() > 1]
        slopes = np.array([linregress(line["fourfolds"], line["gain"]).slope for line in lines])
        row = {"depth": depth, "step": step, "n": slopes.size, **spread(slopes, "slope")}
        rows.append({**row, "p": paired_t_p(slopes)})
    columns = ["depth", "step", "n", "slope", "margin", "p"]
    table = pd.DataFrame(rows, columns=columns).astype({"slope": float, "p": float})
    table["p_holm"] = holm(table["p"])
    cases = [table["p_holm"].isna(), table["p_holm"] > ALPHA, table["slope"] > 0]
    table["verdict"] = np.select(cases, ["too few seeds", "within noise", "grows"], "shrinks")
    table["paper_gain"] = table["step"].map(paper_gains())
    return table


def likeness(budget: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of our mean gains with the paper's, for each depth and budget.

    Args:
        budget: a table of `budget_gains`.
    """
    rows, paper = [], paper_gains().dropna()
    for (depth, images), part in budget.groupby(["depth", "images"]):
        ours = part.groupby("step")["gain"].mean()
        steps = len(ours.index.intersection(paper.index))
        correlation = ours.corr(paper, method="spearman", min_periods=3)
        rows.append({"depth": depth, "images": images, "steps": steps, "correlation": correlation})
    return pd.DataFrame(rows, columns=["depth", "images", "steps", "correlation"])


def removals(results: pd.DataFrame) -> pd.DataFrame:
    """What the finished network loses without each decision: rows are seeds, columns steps."""
    lost = -gains(results)
    return lost.rename(columns=lambda name: name.removeprefix("without_"))


def fit_gaps(results: pd.DataFrame) -> pd.DataFrame:
    """How well each step fits its training images, and what remains on the test images.

    One row per step with such results: seeds, the mean accuracy on the first training images
    (without augmentation) and on the test images in per cent, the mean of their difference by seed
    in points (`gap`) with half the width of its 95 % t-interval, and both mean losses; all over the
    seeds that have both.
    """
    known = results.dropna(subset="fit_accuracy")
    training, test = accuracies(known, "fit_accuracy"), accuracies(known)
    losses = {column: accuracies(known, column).mean() for column in ("fit_loss", "loss")}
    rows = []
    for name, gap in (training - test).dropna(axis=1, how="all").items():
        rows.append(
            {
                "step": name,
                "seeds": gap.count(),
                "training": training[name].mean(),
                "test": test[name].mean(),
                **spread(gap, "gap"),
                "training loss": losses["fit_loss"][name],
                "test loss": losses["loss"][name],
            }
        )
    columns = ["step", "seeds", "training", "test", "gap", "margin", "training loss", "test loss"]
    return pd.DataFrame(rows, columns=columns).set_index("step")
