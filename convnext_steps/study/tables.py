"""A study's table: one row per step, ours and the paper's numbers."""

import math

import pandas as pd

from convnext_steps.study.loading import steps_of
from convnext_steps.study.statistics import accuracies, describe
from convnext_steps.text import number


def summarize(results: pd.DataFrame) -> pd.DataFrame:
    """One row per step in the study's order: ours and the paper's; gaps stay empty.

    Accuracies are in per cent; `margin` is half of the mean's 95 % t-interval, `gain` the
    difference from the parent, paired by seed. Where `paper_erratum`, the paper prints a different
    number of multiply-adds from its network's count.

    Raises:
        ValueError: the results are of several studies, or have a run twice.
    """
    columns, ours = accuracies(results), describe(results).set_index("step")
    macs = results.groupby("step")["macs"].first()
    rows = []
    for name, step in steps_of(results).items():
        known = step.parent in columns
        gains = columns[name] - columns[step.parent] if known else columns[name] * math.nan
        rows.append(
            {
                "step": name,
                "title": step.title,
                "seeds": int(ours.loc[name, "n"]),
                "accuracy": ours.loc[name, "mean"],
                "std": ours.loc[name, "std"],
                "margin": ours.loc[name, "margin"],
                "gain": gains.mean(),
                "macs": macs.get(name, float("nan")),
                "paper_top1": step.paper.top1_mean,
                "paper_macs": step.paper.macs,
                "paper_erratum": step.paper.erratum is not None,
            }
        )
    return pd.DataFrame(rows)


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
