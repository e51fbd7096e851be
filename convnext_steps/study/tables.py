"""A study's table: one row per step, ours and the paper's numbers."""

import math
from operator import add

import pandas as pd

from convnext_steps.study.loading import steps_of
from convnext_steps.study.markdown import markdown_table, numbers, signed, within
from convnext_steps.study.probes import gains
from convnext_steps.study.statistics import accuracies, spread


def summarize(results: pd.DataFrame) -> pd.DataFrame:
    """One row per step in the study's order: ours and the paper's; gaps stay empty.

    Accuracies are in per cent; `margin` is half the width of the mean's 95 % t-interval, `gain` the
    difference from the parent, paired by seed. Where `paper_erratum`, the paper prints a different
    number of multiply-adds from its network's count.

    Raises:
        ValueError: the results are of several studies, or have a run twice.
    """
    columns, gained = accuracies(results), gains(results).mean()
    macs = results.groupby("step")["macs"].first()
    rows = []
    for name, step in steps_of(results).items():
        rows.append(
            {
                "step": name,
                "title": step.title,
                "seeds": columns[name].count(),
                **spread(columns[name], "accuracy"),
                "gain": gained.get(name, math.nan),
                "macs": macs.get(name, math.nan),
                "paper_top1": step.paper.top1_mean,
                "paper_macs": step.paper.macs,
                "paper_erratum": step.paper.erratum is not None,
            }
        )
    return pd.DataFrame(rows)


def to_markdown(summary: pd.DataFrame) -> str:
    """A table of `summarize` as Markdown; a missing result is a dash."""
    errata = ["\\*" if erratum else "" for erratum in summary["paper_erratum"]]
    columns = {
        "step": summary["title"],
        "seeds": summary["seeds"],
        "accuracy % ± std": within(summary["accuracy"], summary["std"], ".2f"),
        "gain": signed(summary["gain"]),
        "M multiply-adds": numbers(summary["macs"] / 1e6),
        "paper top-1 %": numbers(summary["paper_top1"]),
        "paper G": map(add, numbers(summary["paper_macs"] / 1e9), errata),
    }
    note = "\n\n\\* As counted; the paper's table prints another number." if any(errata) else ""
    return f"{markdown_table(columns)}{note}\n"
