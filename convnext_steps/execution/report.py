"""A study's table and figure, as files."""

import os
from pathlib import Path

from filelock import FileLock

from convnext_steps.execution.notebook import execute_notebook
from convnext_steps.files import write_bytes
from convnext_steps.study import statistics
from convnext_steps.study.figures import save_figure
from convnext_steps.study.plan import study_name
from convnext_steps.study.plots import plot_trajectory
from convnext_steps.study.results import PACKED, RESULT, load_results, summarize
from convnext_steps.study.tables import of_the_plan, to_markdown
from convnext_steps.training.checkpoint import clear_partial

GUARD = ".report.lock"  # one report at a time


def report(results: str | Path, profile: str, regime: str = "tiny") -> str:
    """Write a study's table, differences from the parents and figure next to its results.

    Returns the table as Markdown.

    Raises:
        ValueError: the study has no results.
    """
    table = of_the_plan(load_results(results), profile, regime)
    if table.empty:
        raise ValueError(
            f"no results in {results}; make them with `convnext-steps study "
            f"--profile {profile} --regime {regime} --results {results}`"
        )
    summary = summarize(table, regime)
    markdown = to_markdown(summary)
    differences = statistics.to_markdown(statistics.compare(table, regime))
    folder = Path(results, study_name(profile, regime))
    folder.mkdir(exist_ok=True)
    with FileLock(Path(results, GUARD)):
        clear_partial(folder)
        write_bytes(folder / "table.csv", summary.to_csv(index=False).encode())
        write_bytes(folder / "table.md", markdown.encode())
        write_bytes(folder / "differences.md", differences.encode())
        save_figure(plot_trajectory(table, regime), folder / "trajectory")
    return markdown


def show_trajectory(results: Path, profile: str, regime: str) -> bool:
    """Execute `trajectory.ipynb` next to a study's results, unless it is up to date.

    Returns whether there are any.

    Raises:
        NotebookError: a cell failed.
    """
    folder = results / study_name(profile, regime)
    executed, partial = folder / "trajectory.ipynb", folder / "trajectory.partial.ipynb"
    if of_the_plan(load_results(results), profile, regime).empty:
        return False
    folder.mkdir(exist_ok=True)
    parameters = {"PROFILE": profile, "REGIME": regime, "RESULTS": str(results.resolve())}
    with FileLock(results / GUARD):
        files = (path for name in (RESULT, PACKED) for path in results.rglob(name))
        newest = max(path.stat().st_mtime_ns for path in files)
        if not executed.exists() or executed.stat().st_mtime_ns < newest:
            execute_notebook("trajectory", partial, parameters)
            os.utime(partial, ns=(newest, newest))  # of what it shows: more may have come since
            partial.replace(executed)
    return True
