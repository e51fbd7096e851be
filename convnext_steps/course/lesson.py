"""The results of a lesson: trained or stored, drawn, put in a table, and read honestly."""

from pathlib import Path
from typing import Any

import pandas as pd

from convnext_steps.course.pictures import Picture
from convnext_steps.course.readings import bullets
from convnext_steps.course.sections import find_section
from convnext_steps.execution.runner import run_study
from convnext_steps.study.loading import steps_of, stored_results
from convnext_steps.study.markdown import within
from convnext_steps.study.plots import plot_trajectory
from convnext_steps.study.statistics import compare
from convnext_steps.study.study import Study
from convnext_steps.study.tables import summarize
from convnext_steps.study.toml import load_study
from convnext_steps.text import plus_minus


def results_of(
    study: Study | str, results: str | Path, train: bool = False, section: str = ""
) -> pd.DataFrame:
    """The results that a lesson discusses: of all steps of a study, or of one section's.

    Args:
        study: a study, or what `load_study` takes.
        results: the folder of your own results; empty: `results/own`.
        train: whether to train what is missing of one seed first, into this folder.
        section: the paper's section, such as "2.3"; empty: all steps.

    Raises:
        ValueError: the study's roadmap lacks a step of the section.
    """
    study = load_study(study, results=results)
    names = list(study.steps())
    if section:
        names = [study.find(name).name for name in find_section(section).names()]
    if train:
        run_study(study, steps=names, results=results)
    return stored_results(study, results, steps=names)


def origin(results: pd.DataFrame) -> str:
    """One line that says where the numbers come from."""
    if results.empty:
        return "No results are stored; `convnext-steps study` makes them."
    (study,) = set(results["study"])
    seeds = sorted(int(seed) for seed in set(results["seed"]))
    return f"Results of the study {study}, seeds {', '.join(map(str, seeds))}."


def trajectory(results: pd.DataFrame, until: str | None = None, ask: bool = False) -> Picture:
    """The trajectory to the end of a section, or all of it, with alternative text.

    Args:
        results: of one study.
        until: the paper's section that it ends with.
        ask: leave this section's bars for the reader to predict.
    """
    means = summarize(results).set_index("step")["accuracy"]
    words = []
    for step in steps_of(results).values():
        if until is None or step.section < until or (step.section == until and not ask):
            mean = means[step.name]
            ours = "no result" if pd.isna(mean) else f"{mean:.1f} %"
            paper = step.paper.top1_mean  # None for a step of the reader's own
            words.append(f"{step.title} {ours}" + (f" ({paper:.1f} %)" if paper else ""))
        elif step.section == until:
            words.append(f"{step.title}: left open")
    alternative = f"Bars of accuracy, ours and in brackets the paper's: {'; '.join(words)}."
    return Picture(plot_trajectory(results, until=until, ask=ask), alternative)


def section_accuracies(results: pd.DataFrame, number: str) -> pd.DataFrame:
    """One row per step: our mean over the seeds with its spread, and the paper's, in per cent."""
    table = summarize(results).set_index("step").loc[find_section(number).names()]
    paper = [steps_of(results)[name].paper for name in table.index]
    return pd.DataFrame(
        {
            "step": table["title"],
            "seeds": table["seeds"],
            "ours": within(table["accuracy"], table["std"], ".2f"),
            "paper": [plus_minus(each.top1_mean, each.top1_std) for each in paper],
        }
    ).set_index("step")


def section_gains(results: pd.DataFrame, number: str) -> pd.DataFrame:
    """One row per step: its gain over its parent in points, tested, next to the paper's."""
    table = _comparisons(results, number)
    return pd.DataFrame(
        {
            "step": table["title"],
            "against": table["against"],
            "ours": within(table["difference"], table["margin"]),
            "verdict": table["verdict"],
            "paper": within(table["paper_difference"], table["paper_margin"]),
            "paper's verdict": table["paper_verdict"],
        }
    ).set_index("step")


def reading(results: pd.DataFrame, number: str) -> str:
    """What the results of a section say, and what they cannot say, as Markdown."""
    lines = [_sentence(row) for row in _comparisons(results, number).itertuples()]
    return f"{origin(results)}\n\n{bullets(lines)}"


def _comparisons(results: pd.DataFrame, number: str) -> pd.DataFrame:
    table = compare(results)
    return table[table["step"].isin([step.name for step in find_section(number).steps()])]


def _sentence(row: Any) -> str:
    paper = f"{plus_minus(row.paper_difference, row.paper_margin, '+z.2f')}, {row.paper_verdict}"
    name = f"**{row.title}** against {row.against}"
    if row.n == 0:
        return f"{name}: no result here; in the paper {paper}."
    ours = f"{row.difference:+z.2f} points over {row.n} seed{'' if row.n == 1 else 's'}"
    if not pd.isna(row.margin):
        low, high = row.difference - row.margin, row.difference + row.margin
        ours += f" (95 % interval {low:+z.2f} to {high:+z.2f}, uncorrected)"
    conclusion = f"Ours: {row.verdict}."
    if row.paper_verdict.startswith(row.verdict):
        conclusion = f"Ours: {row.verdict}, as in the paper."
    elif {row.verdict, row.paper_verdict.split()[0]} == {"up", "down"}:
        conclusion = f"Ours: {row.verdict}, unlike in the paper."
    if row.verdict.startswith("too few"):
        conclusion = f"No verdict here: {row.verdict}."
    return f"{name}: {ours}; in the paper {paper}. {conclusion}"
