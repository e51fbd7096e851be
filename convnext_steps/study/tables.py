"""A study's table, and which results belong in it."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from convnext_steps.models.roadmap import roadmap
from convnext_steps.study.plan import plan, study_name
from convnext_steps.study.results import PROJECT_RESULTS, load_results
from convnext_steps.text import number

LOG = logging.getLogger("convnext_steps")


def of_the_plan(table: pd.DataFrame, profile: str, regime: str) -> pd.DataFrame:
    """The results of this study as it is planned now, found by hash, under its own names.

    Others with the study's name are logged and left out.
    """
    seeds = sorted({int(seed) for seed in table["seed"]})
    planned = {run.hash: run for run in plan(profile, regime, list(roadmap(regime)), seeds)}
    belongs = table["hash"].isin(planned)
    named = (table["study"] == study_name(profile, regime)) & table["step"].isin(roadmap(regime))
    for row in table[named & ~belongs].itertuples():
        reason = "belongs to another design, recipe or data"
        LOG.warning("left out: %s seed %s %s", row.step, row.seed, reason)
    runs = [planned[digest] for digest in table.loc[belongs, "hash"]]
    return table[belongs].assign(
        study=study_name(profile, regime),
        step=[run.step for run in runs],
        seed=[run.seed for run in runs],
    )


def stored_results(
    results: str | Path, profile: str, regime: str = "tiny", steps: Sequence[str] = ()
) -> pd.DataFrame:
    """The reader's own results of a study; where there are none, those that the project publishes.

    These are the standard study's, or else the quick one's; the column `study` says which. Without
    any, the table is empty.

    Args:
        results: the results folder.
        profile: the study.
        regime: "tiny" or "base".
        steps: results that lack one of these count as none.
    """
    own, published = load_results(results), load_results(PROJECT_RESULTS)
    candidates = [(own, profile), (own, "standard"), (published, "standard"), (published, "quick")]
    for table, name in candidates:
        found = of_the_plan(table, name, regime)
        if not found.empty and set(steps) <= set(found["step"]):
            return found
    return own.iloc[:0]


def study_results(
    results: str | Path, profile: str, regime: str = "tiny", seeds: Iterable[int] | None = None
) -> pd.DataFrame:
    """The reader's own results of a study; where there are none, the published ones.

    Args:
        results: the results folder.
        profile: the study.
        regime: "tiny", "base" or "leave_one_out".
        seeds: which; all by default.
    """
    wanted = None if seeds is None else list(seeds)
    for folder in (results, PROJECT_RESULTS):
        found = of_the_plan(load_results(folder), profile, regime)
        found = found if wanted is None else found[found["seed"].isin(wanted)]
        if not found.empty:
            break
    return found


def to_markdown(summary: pd.DataFrame) -> str:
    """A table of `summarize` as Markdown; a missing result is a dash."""
    lines = [
        "| step | seeds | accuracy % ± std | gain | M multiply-adds | paper top-1 % | paper G |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in summary.itertuples():
        spread = "" if pd.isna(row.std) else f" ± {row.std:.2f}"
        cells = [
            row.title,
            str(row.seeds),
            number(row.accuracy) + spread,
            number(row.gain, "+.2f"),
            number(row.macs / 1e6),
            number(row.paper_top1),
            number(row.paper_macs / 1e9) + ("\\*" if row.paper_erratum else ""),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    if summary["paper_erratum"].any():
        lines += ["", "\\* As counted; the paper's table prints another number."]
    return "\n".join(lines) + "\n"
