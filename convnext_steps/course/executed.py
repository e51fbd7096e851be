"""Notebooks as they are read: executed, and without what only a running kernel can show."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from nbformat import NotebookNode

from convnext_steps.execution.notebook import (
    NOTEBOOKS,
    execute_notebook,
    find_notebook,
    parameters_of,
    read_notebook,
)
from convnext_steps.files import PACKAGE
from convnext_steps.study.results import PROJECT_RESULTS, result_files

WIDGET = "application/vnd.jupyter.widget-view+json"
REDRAWN = re.compile(r"[^\n]*\r(?!\n)")  # what a progress bar wrote before it wrote anew
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)\s#]+)(#[^)]*)?\)")


def all_notebooks() -> list[str]:
    """The names of the project's notebooks, the course's first."""
    return sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def execute_stale(
    names: Iterable[str], folder: Path, parameters: Mapping[str, str]
) -> dict[str, Path]:
    """Execute notebooks into a folder, except those that have not changed since.

    Args:
        names: notebooks of `notebooks/`, or paths.
        folder: where the executed ones go; it is created.
        parameters: for each notebook that knows them.

    Raises:
        ValueError: there is no such notebook.
        NotebookError: a cell failed.
    """
    done, notebooks = {}, [find_notebook(name) for name in names]
    folder.mkdir(parents=True, exist_ok=True)
    for notebook in notebooks:
        target = folder / notebook.name
        known = parameters_of(notebook)
        values = {name: value for name, value in parameters.items() if name in known}
        if not is_fresh(target, notebook, values):
            print(f"executing {notebook.name}", flush=True)
            partial = target.with_suffix(".partial.ipynb")
            execute_notebook(str(notebook), partial, values)
            partial.replace(target)
        done[notebook.stem] = target
    return done


def is_fresh(target: Path, notebook: Path, values: Mapping[str, str]) -> bool:
    """Whether it was executed with these values, after its sources last changed."""
    try:
        if read_notebook(target).metadata["papermill"]["parameters"] != values:
            return False
    except (OSError, ValueError, KeyError):  # missing or damaged
        return False
    folders = {PROJECT_RESULTS, Path(values.get("RESULTS", PROJECT_RESULTS))}
    results = (path for folder in folders for path in result_files(folder))
    library = (path for kind in ("py", "toml", "csv") for path in PACKAGE.rglob(f"*.{kind}"))
    study = [path for path in [Path(values.get("STUDY", ""))] if path.is_file()]
    newest = max(path.stat().st_mtime for path in (notebook, *study, *library, *results))
    return target.stat().st_mtime > newest


def read_static(path: Path, pages: Mapping[str, str]) -> NotebookNode:
    """An executed notebook for a page: no widgets, progress bars as they end, links that lead on.

    Args:
        path: the executed notebook.
        pages: what a link to a file of `notebooks/` becomes; other relative links become text.
    """
    notebook = read_notebook(path)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = relink(cell.source, pages)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop(WIDGET, None)
            if output.output_type == "stream":
                output.text = REDRAWN.sub("", output.text)
            if "text/markdown" in data:
                data["text/markdown"] = relink(data["text/markdown"], pages)
    return notebook


def prepares(cell: NotebookNode) -> bool:
    """Whether a cell only prepares: Colab's, parameters, and those that begin with imports."""
    if cell.cell_type != "code":
        return False
    tags = set(cell.metadata.get("tags", []))
    starts = cell.source.startswith(("from ", "import ", "%"))
    return starts or bool(tags & {"colab", "parameters", "injected-parameters"})


def relink(markdown: str, pages: Mapping[str, str]) -> str:
    """Markdown whose relative links lead to pages; those that no page holds become text."""

    def replace(match: re.Match[str]) -> str:
        text, target, anchor = match.groups()
        return f"[{text}]({pages[target]}{anchor or ''})" if target in pages else text

    return LINK.sub(replace, markdown)
