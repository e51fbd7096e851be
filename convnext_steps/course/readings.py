"""What results beyond the roadmap say, in words written when the notebook runs, as Markdown.

A lesson whose parameters choose the results has no fixed sentence about them: it has one of these.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from scipy import stats

from convnext_steps.models.roadmap import FINISHED, roadmap
from convnext_steps.study.loading import study_of
from convnext_steps.study.probes import fit_gaps, likeness, paper_gains, trends
from convnext_steps.study.statistics import (
    ALPHA,
    accuracies,
    compare,
    seeds_needed,
    smallest_p,
    spread,
)
from convnext_steps.text import plus_minus

NOTHING = "No results yet."


def bullets(lines: Iterable[str]) -> str:
    """Lines as a list in Markdown."""
    return "\n".join(f"- {line}" for line in lines)


def floor(seeds: int, comparisons: int) -> str:
    """What so few seeds can prove, in one sentence."""
    needed = seeds_needed(comparisons)
    if seeds >= needed:
        return f"{seeds} seeds are enough for a verdict on {comparisons} comparisons."
    return (
        f"With {seeds} seed{'s' * (seeds != 1)} no p-value of the sign-flip test can fall below "
        f"{smallest_p(seeds):.2g}, and {comparisons} comparisons need {needed} seeds: with fewer "
        "there are means and intervals, but no verdict."
    )


def read_gains(table: pd.DataFrame) -> str:
    """The largest differences of a table of `compare` or `compare_studies`, and what they prove."""
    known = table.dropna(subset=["difference"])
    if known.empty:
        return NOTHING
    ends = known.loc[[known["difference"].idxmin(), known["difference"].idxmax()]]
    low, high = (
        f"{row.title} {plus_minus(row.difference, row.margin, '+z.2f')}"
        for row in ends.itertuples()
    )
    clear = known[known["difference"].abs() > known["margin"]]
    lines = [
        floor(int(known["n"].min()), len(table)),
        f"**Highest:** {high}. **Lowest:** {low}.",
        f"**Intervals that exclude zero:** {len(clear)} of {len(known)}"
        + (f" ({', '.join(clear['title'])})" if len(clear) else "")
        + f". They are not corrected: without any effect, {ALPHA * len(known):.1f} of "
        f"{len(known)} would exclude it on average.",
    ]
    return bullets(lines)


def read_costs(table: pd.DataFrame, costs: "pd.Series[float]", finished: str) -> str:
    """Which removals leave a network that costs about the same, so that only accuracy differs.

    Args:
        table: of `compare`.
        costs: multiply-adds by step.
        finished: the step that the others are compared with.
    """
    known = table.set_index("step")
    ratios = costs[known.index] / costs[finished]
    far = ratios[(ratios - 1).abs() > 0.1].sort_values()
    words = [f"{known.loc[step, 'title']} ({ratio:.1f} ×)" for step, ratio in far.items()]
    return (
        f"**Not at equal cost:** {', '.join(words) or 'none'} as multiples of the finished "
        "network's multiply-adds. There a gain may be paid for, and a loss may save something."
    )


def read_trends(budget: pd.DataFrame) -> str:
    """Which gains grow and shrink with the images seen, and which change their sign on the way."""
    table = trends(budget)
    if table.empty:
        return NOTHING
    passed = table[table["verdict"].isin(["grows", "shrinks"])]
    lines = [f"{len(passed)} of {len(table)} slopes pass the corrected test."]
    for depth, part in table.groupby("depth", sort=False):
        rows = part.set_index("step")["slope"].dropna()
        if len(rows):
            up, down = rows.idxmax(), rows.idxmin()
            lines.append(
                f"**{depth} blocks:** {up} grows most ({rows[up]:+.2f} points per fourfold), "
                f"{down} shrinks most ({rows[down]:+.2f})."
            )
            lines.append(_crossings(budget[budget["depth"] == depth]))
    return bullets(lines)


def _crossings(budget: pd.DataFrame) -> str:
    words, sure = [], []
    budgets = budget["images"].min(), budget["images"].max()
    for step, part in budget.groupby("step", sort=False):
        ends = (part[part["images"] == images]["gain"] for images in budgets)
        few, many = (spread(end, "mean") for end in ends)
        if few["mean"] * many["mean"] < 0:
            words.append(f"{step} ({few['mean']:+.2f} to {many['mean']:+.2f})")
            sure += [step] * all(abs(end["mean"]) > end["margin"] for end in (few, many))
    return (
        f"Mean gains that change their sign: {', '.join(words) or 'none'}. Of these, at both ends "
        f"an interval excludes zero for {', '.join(sure) or 'none'}."
    )


def read_likeness(budget: pd.DataFrame) -> str:
    """Whether more images bring the order of the gains closer to the paper's."""
    table = likeness(budget).dropna()
    if table.empty:
        return NOTHING
    lines = [
        f"**{depth} blocks:** {', '.join(f'{each:.2f}' for each in part['correlation'])}, from "
        f"{part['images'].min():,} images to {part['images'].max():,}."
        for depth, part in table.sort_values("images").groupby("depth")
    ]
    limit = chance_likeness(paper_gains().dropna().index.intersection(budget["step"]))
    chance = (
        "If networks differed by chance alone, one such correlation would lie between "
        f"{-limit:.2f} and {limit:.2f} in 95 % of cases; {len(table)} are shown, not corrected."
    )
    return bullets([*lines, chance])


def chance_likeness(names: Iterable[str], draws: int = 20_000) -> float:
    """The correlation of ranks with the paper's gains that 5 % of studies without effects exceed.

    In either direction, by simulation. Steps share parents, so their gains are not independent.
    """
    steps, paper = roadmap(), paper_gains()[list(names)]
    noise = np.random.default_rng(0).normal(size=(draws, len(steps)))
    place = {name: column for column, name in enumerate(steps)}
    parents = [place[steps[name].parent or name] for name in paper.index]
    drawn = noise[:, [place[name] for name in paper.index]] - noise[:, parents]
    ours, theirs = (stats.zscore(stats.rankdata(each, axis=-1), -1) for each in (drawn, paper))
    return float(np.quantile(np.abs(ours @ theirs) / len(paper), 1 - ALPHA))


def read_sizes(tables: Iterable[pd.DataFrame]) -> str:
    """How far the finished network ends above or below ResNet-50, study by study.

    Args:
        tables: of `load_results`, one per study of the whole roadmap.
    """
    lines = []
    for table in tables:
        columns = accuracies(table)
        change = (columns[FINISHED] - columns["resnet"]).dropna()
        if change.size:
            found = spread(change, "mean")
            points = plus_minus(found["mean"], found["margin"], "+z.2f")
            seeds = f"{change.size} seed{'s' * (change.size != 1)}"
            lines.append(f"**{study_of(table).name}:** {points} points ({seeds}).")
    return bullets(lines) if lines else NOTHING


def read_step(results: pd.DataFrame, step: str) -> str:
    """What the results say of one step: its gain, its interval, and what that excludes."""
    row = compare(results).set_index("step").loc[step]
    if math.isnan(row["difference"]):
        return NOTHING
    if math.isnan(row["margin"]):
        return f"One seed: {row['difference']:+.2f} points, without an interval."
    low, high = row["difference"] - row["margin"], row["difference"] + row["margin"]
    zero = "excludes" if low > 0 or high < 0 else "includes"
    return (
        f"{row['difference']:+.2f} points over {row['n']} seeds; the 95 % interval from {low:+.2f} "
        f"to {high:+.2f} {zero} zero. Effects outside it are hardly compatible with these seeds; "
        f"those inside cannot be told apart. Verdict: {row['verdict']}."
    )


def read_fit(results: pd.DataFrame) -> str:
    """The highest accuracies on training and on test images, and the widest gap between them.

    Where no result has the accuracy on training images, one line says what to train.
    """
    table = fit_gaps(results)
    if results.empty:
        return NOTHING
    if table.empty:
        fresh = range(results["seed"].max() + 1, results["seed"].max() + 4)
        command = f"convnext-steps study {study_of(results).name} --seeds {fresh[0]}-{fresh[-1]}"
        return (
            "These results, of an older version, lack the accuracy on training images. Fresh "
            f"seeds have it: `{command}`."
        )
    wide, best = table["gap"].idxmax(), table["training"].idxmax()
    gap = plus_minus(table.loc[wide, "gap"], table.loc[wide, "margin"], "+z.2f")
    test = table["test"].idxmax()
    lines = [
        f"**Fit:** {best} fits best ({table.loc[best, 'training']:.1f} % of the training images); "
        f"{test} tests best ({table.loc[test, 'test']:.1f} %). Whether they lead is not tested.",
        f"**Gap:** widest for {wide} ({gap} points); over all steps "
        f"{table['gap'].min():+.2f} to {table['gap'].max():+.2f}. Whether they differ at all is "
        "not tested.",
    ]
    return bullets(lines)


def read_regularisation(bare: pd.DataFrame, mixed: pd.DataFrame) -> str:
    """What mixing and erasing change, step by step: on training images, and on test images."""
    lines = []
    for name in accuracies(bare):
        words = []
        for column, images in (("fit_accuracy", "training"), ("accuracy", "test")):
            change = (accuracies(mixed, column)[name] - accuracies(bare, column)[name]).dropna()
            found = spread(change, "mean")
            if change.size:
                points = plus_minus(found["mean"], found["margin"], "+z.2f")
                words.append(f"{points} points on the {images} images")
        if words:
            lines.append(f"**{name}:** {', '.join(words)}.")
    return bullets(lines) if lines else NOTHING


def read_tuning(table: pd.DataFrame, pairs: Mapping[str, str]) -> str:
    """Each step's gain at the common rate, at own rates, and what tuning adds, with verdicts.

    Args:
        table: of `rates.compare_tuned`.
        pairs: by step, the network that it is compared with.
    """
    lines = []
    for step, rows in table.dropna(subset=["gain"]).groupby("step", sort=False):
        words = [
            f"{rates} {plus_minus(row.gain, row.margin, '+z.2f')} points ({row.verdict})"
            for (_, rates), row in zip(rows.index, rows.itertuples(), strict=True)
        ]
        lines.append(f"**{step} over {pairs[str(step)]}:** {'; '.join(words)}.")
    return bullets(lines) if lines else NOTHING
