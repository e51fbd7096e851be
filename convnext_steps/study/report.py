"""A study's table and figure, as files."""

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from filelock import FileLock
from matplotlib.figure import Figure

from convnext_steps.models.roadmap import roadmap
from convnext_steps.study import statistics
from convnext_steps.study.notebook import execute_notebook
from convnext_steps.study.plan import plan
from convnext_steps.study.plots import plot_trajectory
from convnext_steps.study.results import RESULT, load_results, summarize
from convnext_steps.training.checkpoint import clear_partial
from convnext_steps.training.files import write_bytes

GUARD = ".report.lock"  # one report at a time
PROJECT_RESULTS = Path(__file__).parents[2] / "results"  # what the project brings


def report(results: str | Path, profile: str, regime: str = "tiny") -> str:
    """Write a study's table, differences to the parents and figure beside its results.

    Returns the table as Markdown.

    Raises:
        ValueError: the study has no results.
    """
    folder = Path(results, profile, regime)
    table = of_the_plan(load_results(folder), profile, regime)
    if table.empty:
        raise ValueError(
            f"no results in {folder}; make them with `convnext-steps study "
            f"--profile {profile} --regime {regime} --results {results}`"
        )
    summary = summarize(table, regime)
    markdown = to_markdown(summary)
    differences = statistics.to_markdown(statistics.compare(table, regime))
    with FileLock(Path(results, GUARD)):
        clear_partial(folder)
        write_bytes(folder / "table.csv", summary.to_csv(index=False).encode())
        write_bytes(folder / "table.md", markdown.encode())
        write_bytes(folder / "differences.md", differences.encode())
        save_figure(plot_trajectory(table, regime), folder / "trajectory")
    return markdown


def show_trajectory(results: Path, profile: str, regime: str) -> bool:
    """Execute `trajectory.ipynb` beside a study's results, unless it was since the newest of them.

    Returns whether there are any.

    Raises:
        NotebookError: a cell failed.
    """
    folder = results / profile / regime
    executed, partial = folder / "trajectory.ipynb", folder / "trajectory.partial.ipynb"
    if not any(folder.rglob(RESULT)):
        return False
    parameters = {"PROFILE": profile, "REGIME": regime, "RESULTS": str(results.resolve())}
    with FileLock(results / GUARD):
        newest = max(path.stat().st_mtime_ns for path in folder.rglob(RESULT))
        if not executed.exists() or executed.stat().st_mtime_ns < newest:
            execute_notebook("trajectory", partial, parameters)
            os.utime(partial, ns=(newest, newest))  # of what it shows: more may have come since
            partial.replace(executed)
    return True


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


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as `path`.png and `path`.svg, the same bytes for the same picture."""
    with mpl.rc_context({"svg.hashsalt": "convnext_steps", "svg.fonttype": "none"}):
        for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
            picture = io.BytesIO()
            figure.savefig(picture, format=suffix[1:], dpi=150, metadata=metadata)
            figure.set_layout_engine("none")  # laid out once, for both
            write_bytes(path.with_suffix(suffix), picture.getvalue())


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
