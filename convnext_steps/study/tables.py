"""A study's table, and which results belong in it."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from convnext_steps.models.roadmap import roadmap
from convnext_steps.study.plan import plan
from convnext_steps.study.results import load_results

PROJECT_RESULTS = Path(__file__).parents[2] / "results"  # what the project brings


def of_the_plan(table: pd.DataFrame, profile: str, regime: str) -> pd.DataFrame:
    """The results of just this study, as it is planned now; others are named and left out."""
    steps = [step for step in roadmap(regime) if step in set(table["step"])]
    if not steps:
        return table.iloc[:0]
    runs = plan(profile, regime, steps, sorted(set(table["seed"])))
    planned = {(run.step, run.seed): run.hash for run in runs}
    columns = zip(table["step"], table["seed"], table["hash"], strict=True)
    belongs = [planned.get((step, seed)) == digest for step, seed, digest in columns]
    for row in table[[not it for it in belongs]].itertuples():
        warnings.warn(
            f"left out: {row.step} seed {row.seed} is of another design, recipe or data",
            stacklevel=2,
        )
    return table[belongs]


def stored_results(
    results: str | Path, profile: str, regime: str = "tiny", steps: Sequence[str] = ()
) -> pd.DataFrame:
    """The reader's own results of a study; where there are none, those that the project brings.

    These are the standard study's, or else the reference's of the quick one; the column `profile`
    says which. Without any, the table is empty.

    Args:
        results: the results folder.
        profile: the study.
        regime: "tiny" or "base".
        steps: results that lack one of these count as none.
    """
    folders = [
        (Path(results), profile),
        (Path(results), "standard"),
        (PROJECT_RESULTS, "standard"),
        (PROJECT_RESULTS / "reference", "quick"),
    ]
    for folder, name in folders:
        table = of_the_plan(load_results(folder / name / regime), name, regime)
        if not table.empty and set(steps) <= set(table["step"]):
            return table
    return table.iloc[:0]


def to_markdown(summary: pd.DataFrame) -> str:
    """A table of `summarize` for people; a missing result is a dash."""
    lines = [
        "| step | seeds | accuracy % ± std | gain | M multiply-adds | paper top-1 % | paper G |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in summary.itertuples():
        spread = "" if pd.isna(row.std) else f" ± {row.std:.2f}"
        cells = [
            row.title,
            str(row.seeds),
            _format(row.accuracy, ".2f") + spread,
            _format(row.gain, "+.2f"),
            _format(row.macs / 1e6, ".2f"),
            _format(row.paper_top1, ".2f"),
            _format(row.paper_macs / 1e9, ".2f") + ("\\*" if row.paper_erratum else ""),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    if summary["paper_erratum"].any():
        lines += ["", "\\* As counted; the paper's table prints another number."]
    return "\n".join(lines) + "\n"


def _format(value: float, form: str) -> str:
    return "-" if pd.isna(value) else format(value, form)
