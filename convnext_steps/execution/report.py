"""A study's table and figure, as files."""

import os
from pathlib import Path

from filelock import FileLock

from convnext_steps.errors import ResultError
from convnext_steps.execution.notebook import find_notebook, start_and_wait
from convnext_steps.files import clear_partial, write_bytes
from convnext_steps.study import networks, statistics
from convnext_steps.study.figures import save_figure
from convnext_steps.study.loading import of_the_study
from convnext_steps.study.plots import plot_trajectory
from convnext_steps.study.results import all_results, result_files
from convnext_steps.study.study import Study
from convnext_steps.study.tables import summarize, to_markdown
from convnext_steps.study.toml import study_file, write_study

GUARD = ".report.lock"  # one process at a time writes next to a study's results


def keep_study(study: Study, results: Path) -> Path:
    """Write a study's file next to its results; returns its path."""
    file = study_file(study.name, results)
    with FileLock(results / GUARD):
        write_study(study, file)
    return file


def report(study: Study, results: str | Path) -> str:
    """Write a study's table, differences from the parents and figure next to its results.

    Of a factorial, the table of its networks only. Returns the table as Markdown.

    Raises:
        ResultError: the study has no results.
    """
    table = of_the_study(all_results(results), study)
    if table.empty:
        raise ResultError(
            f"no results of {study.name} in {results}; make them with `convnext-steps study`"
        )
    summary = networks.networks(table) if study.factorial else summarize(table)
    markdown = networks.to_markdown(summary) if study.factorial else to_markdown(summary)
    folder = Path(results, study.name)
    folder.mkdir(exist_ok=True)
    with FileLock(Path(results, GUARD)):
        clear_partial(folder)
        write_bytes(folder / "table.csv", summary.to_csv(index=False).encode())
        write_bytes(folder / "table.md", markdown.encode())
        if study.factorial:
            return markdown
        differences = statistics.compare(table)
        if len(differences):  # none of a study without a step and its parent
            text = statistics.to_markdown(differences)
            write_bytes(folder / "differences.md", text.encode())
        save_figure(plot_trajectory(table), folder / "trajectory")
    return markdown


def show_trajectory(study: Study, results: Path) -> bool:
    """Execute `trajectory.ipynb` next to a study's results, unless it is up to date.

    Returns whether there are any.

    Raises:
        NotebookError: a cell failed.
    """
    folder = results / study.name
    executed, partial = folder / "trajectory.ipynb", folder / "trajectory.partial.ipynb"
    if of_the_study(all_results(results), study).empty:
        return False
    file = keep_study(study, results).resolve()
    parameters = {"STUDY": str(file), "RESULTS": str(results.resolve()), "USES": study.uses}
    with FileLock(results / GUARD):
        newest = max(path.stat().st_mtime_ns for path in result_files(results))
        if not executed.exists() or executed.stat().st_mtime_ns < newest:
            start_and_wait(find_notebook("trajectory"), partial, parameters)
            os.utime(partial, ns=(newest, newest))  # of what it shows: more may have come since
            partial.replace(executed)
    return True
