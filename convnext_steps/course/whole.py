"""The whole trajectory: held against the paper's, drawn, and how to read it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from convnext_steps.course.lesson import origin
from convnext_steps.course.pictures import Picture
from convnext_steps.course.readings import NOTHING, bullets, floor
from convnext_steps.models.roadmap import roadmap
from convnext_steps.study.figures import BLUE, GREEN, ORANGE, finish, own_style, subplots
from convnext_steps.study.loading import of_the_study
from convnext_steps.study.probes import gains, paper_gains
from convnext_steps.study.results import PROJECT_RESULTS, all_results
from convnext_steps.study.statistics import compare, comparisons, paired, paper_gain
from convnext_steps.study.toml import load_study


def agreement(results: pd.DataFrame) -> pd.DataFrame:
    """One row per comparison: our gain and those of the paper's two regimes, in points.

    `direction` compares our mean with the paper's in the tiny regime, whatever its
    uncertainty; `finding` compares the tested verdicts.
    """
    table = compare(results)
    steps = roadmap("base")
    pairs = comparisons(steps).items()
    base = {step: paper_gain(steps[step], steps[parent])[0] for step, parent in pairs}
    rounded = table["difference"].map(lambda points: round(points, 2))  # as printed: 0.00 is none
    signs = np.sign(rounded * table["paper_difference"])
    return pd.DataFrame(
        {
            "step": table["title"],
            "seeds": table["n"],
            "ours": table["difference"],
            "paper, tiny": table["paper_difference"],
            "paper, base": table["step"].map(base),
            "direction": signs.map({1: "same", 0: "none", -1: "opposite"}).fillna("-"),
            "finding": [_finding(row) for row in table.itertuples()],
        }
    ).set_index("step")


def _finding(row: Any) -> str:
    if row.paper_verdict == "not in the paper":
        return "-"
    if row.n == 0:
        return "no result"
    if row.verdict.startswith("too few"):
        return "undecided"
    if row.verdict == "within noise":
        return "noise in both" if row.paper_verdict == row.verdict else "not found here"
    if row.paper_verdict.startswith(row.verdict):
        return "holds"
    return "only here" if row.paper_verdict == "within noise" else "reversed"


def elsewhere(studies: Sequence[str]) -> pd.DataFrame:
    """The mean gain of each step over its parent in published studies, and the paper's, in points.

    Args:
        studies: names; one without results is a column without numbers.
    """
    table = all_results(PROJECT_RESULTS)
    found = {name: gains(of_the_study(table, load_study(name))).mean() for name in studies}
    columns = pd.DataFrame(found).assign(paper=paper_gains())
    return columns.rename(index={name: step.title for name, step in roadmap().items()})


def turning(table: pd.DataFrame) -> str:
    """Which gains have different signs in different studies, one line each, as Markdown.

    Args:
        table: of `elsewhere`, or mean gains with a column for each study.
    """
    known = table.drop(columns="paper", errors="ignore").dropna(axis=1, how="all").round(2)
    if known.shape[1] < 2:
        return NOTHING
    titles, lines = {name: step.title for name, step in roadmap().items()}, []
    for step, row in known.rename(index=titles).iterrows():
        up, down = (list(row.index[sign]) for sign in (row > 0, row < 0))
        if up and down:
            lines.append(f"**{step}** goes up in {', '.join(up)}; down in {', '.join(down)}.")
    return bullets(lines) or "No gain changes its sign between these studies."


def predict_agreement(results: pd.DataFrame, guess: int = -1) -> pd.DataFrame:
    """How many comparisons have the paper's direction: guessed, by coins, repeated, and ours.

    Args:
        results: of one study.
        guess: the reader's; -1 where none was made.
    """
    table = agreement(results)
    tested = int((table["direction"] != "-").sum())
    repeated = int((table["paper, tiny"] * table["paper, base"] > 0).sum())
    rows = {
        "your guess": [str(guess) if guess >= 0 else "-", str(tested)],
        "tossing coins": [f"{tested / 2:g}", str(tested)],
        "the paper's base regime": [str(repeated), str(len(table))],
        "this study": [str((table["direction"] == "same").sum()), str(tested)],
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["same direction", "of"])


def reading(results: pd.DataFrame) -> str:
    """What the whole trajectory says, and what it cannot say, as Markdown."""
    table = agreement(results)
    found = table[table["direction"] != "-"]
    if found.empty:
        return origin(results)
    same = int((found["direction"] == "same").sum())
    luck = stats.binomtest(same, len(found), alternative="greater").pvalue
    lines = [
        f"**Direction.** {same} of {len(found)} mean gains have the paper's sign; as many coins "
        f"show at least as many heads with a probability of {luck:.2f}.",
        f"**Opposite:** {_names(found, 'direction', 'opposite')}.",
    ]
    for finding in ("holds", "reversed", "noise in both", "not found here", "only here"):
        if finding in set(found["finding"]):
            lines.append(f"**{finding.capitalize()}:** {_names(found, 'finding', finding)}.")
    undecided = int((found["finding"] == "undecided").sum())
    if undecided:
        lines.append(f"**Undecided:** {undecided}. {floor(int(found['seeds'].min()), len(table))}")
    return f"{origin(results)}\n\n{bullets(lines)}"


def _names(table: pd.DataFrame, column: str, value: str) -> str:
    return ", ".join(table.index[table[column] == value]) or "none"


@own_style
def draw_gains(results: pd.DataFrame) -> Picture:
    """The gain of each step over its parent with its interval, next to the paper's two regimes.

    Small dots are seeds; intervals end at the edge of the figure.

    Args:
        results: of one study.
    """
    table, gains = compare(results), agreement(results)
    pairs = dict(zip(table["step"], table["parent"], strict=True))
    seeds = [each.dropna() for _, each in paired(results, pairs).items()]
    figure, axes = subplots(figsize=(11, 0.5 * len(table) + 1.6))
    for row, each in enumerate(seeds):
        axes.plot(each, [row - 0.25] * len(each), "o", color=BLUE, markersize=3, alpha=0.6)
    rows = pd.Series(range(len(table)))
    ours = {"xerr": table["margin"], "color": BLUE, "fmt": "o", "label": "ours"}
    axes.errorbar(table["difference"], rows - 0.25, capsize=3, **ours)
    tiny = {"xerr": table["paper_margin"], "color": ORANGE, "fmt": "s", "label": "the paper, tiny"}
    axes.errorbar(table["paper_difference"], rows, capsize=3, **tiny)
    axes.plot(gains["paper, base"], rows + 0.25, "D", color=GREEN, label="the paper, base")
    far = 1.15 * pd.concat([*seeds, table["paper_difference"]]).abs().max()
    axes.set(xlim=(-far, far), yticks=rows, yticklabels=table["title"])
    axes.set_xlabel("gain over the parent (points of accuracy), with 95 % intervals")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.invert_yaxis()
    finish(axes, "both")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    words = [
        f"{row.title} {_gain(row.difference)} ({_gain(row.paper_difference)})"
        for row in table.itertuples()
    ]
    return Picture(
        figure, f"Gains in points, ours and in brackets the paper's: {'; '.join(words)}."
    )


def _gain(points: float) -> str:
    return "no result" if pd.isna(points) else f"{points:+z.2f}"
