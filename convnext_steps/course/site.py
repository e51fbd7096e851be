"""The site: executed notebooks, the explorer, glossary and teacher's guide, made by Sphinx."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from convnext_steps.course.executed import prepares, read_static, relink
from convnext_steps.course.lesson import trajectory
from convnext_steps.course.sections import PARTS, SECTIONS
from convnext_steps.errors import StudyError
from convnext_steps.execution.notebook import NOTEBOOKS
from convnext_steps.files import write_bytes
from convnext_steps.study.loading import stored_results

TEMPLATES = Path(__file__).parent / "templates" / "site"
TEXTS = {"glossary.md": "glossary", "README.md": "guide"}  # of notebooks/, by their page's name


def write_site(executed: Mapping[str, Path], source: Path, output: Path) -> None:
    """Write the site; its index expects the explorer's page beside it.

    Args:
        executed: executed notebooks by name.
        source: a folder for what Sphinx reads; it is recreated.
        output: the site's folder; it is recreated.

    Raises:
        StudyError: Sphinx failed or warned, as standard error says; or the site's folder is there
            without the source, so that it is not this command's, and is kept.
    """
    if output.exists() and not source.exists():
        raise StudyError(f"{output} was not made by this command; choose another --build")
    from sphinx.cmd.build import build_main

    for folder in (source, output):
        shutil.rmtree(folder, ignore_errors=True)
    source.mkdir(parents=True)
    pages = _write_pages(executed, source)
    text = relink((TEMPLATES / "index.md").read_text(encoding="utf-8"), pages)
    figure = trajectory(stored_results("standard"))
    text = text.replace("{{ figure }}", figure._repr_html_())
    text = text.replace("{{ contents }}", contents(executed))
    write_bytes(source / "index.md", text.encode())
    options = ["-q", "-W", "--keep-going", "-c", str(TEMPLATES), "-d", str(source / "doctrees")]
    if build_main([*options, str(source), str(output)]) != 0:
        raise StudyError("Sphinx failed or warned: see above")


def _write_pages(executed: Mapping[str, Path], source: Path) -> dict[str, str]:
    """Write what Sphinx reads, and return the page's file for each file of `notebooks/`."""
    pages = {f"{name}.ipynb": f"{name}.ipynb" for name in executed}
    pages |= {file: f"{page}.md" for file, page in TEXTS.items()}
    for file in TEXTS:
        text = relink((NOTEBOOKS / file).read_text(encoding="utf-8"), pages)
        write_bytes(source / pages[file], text.encode())
    for name, path in executed.items():
        notebook = fold(read_static(path, pages))
        write_bytes(source / f"{name}.ipynb", nbformat.writes(notebook).encode())
    return pages


def fold(notebook: NotebookNode) -> NotebookNode:
    """Fold, in place, the code that prepares and the answers to exercises: shown on demand."""
    for cell in notebook.cells:
        answers = cell.metadata.get("nbgrader", {}).get("solution")
        if cell.cell_type == "code" and (answers or prepares(cell)):
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
        elif answers:
            cell.source = f"<details><summary>An answer</summary>\n\n{cell.source}\n\n</details>"
    return notebook


def contents(names: Iterable[str]) -> str:
    """The tables of contents: the course's parts, other notebooks, and texts such as the guide."""
    names, course = sorted(names), {section.notebook: section.part for section in SECTIONS}
    trees = {part: [name for name in names if course.get(name) == part] for part in PARTS}
    trees["Tools"] = [name for name in names if name not in course]
    trees["Reference"] = list(TEXTS.values())
    return "\n\n".join(
        "\n".join(["```{toctree}", f":caption: {caption}", ":maxdepth: 1", "", *pages, "```"])
        for caption, pages in trees.items()
        if pages
    )
