"""The site: executed notebooks, the explorer and the teacher's guide, made by Sphinx."""

import shutil
from collections.abc import Iterable, Mapping
from importlib.resources import as_file, files
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from convnext_steps.course.executed import prepares, read_static, relink
from convnext_steps.course.sections import PARTS, SECTIONS
from convnext_steps.errors import StudyError
from convnext_steps.execution.notebook import NOTEBOOKS
from convnext_steps.files import write_bytes

GUIDE = "guide"  # the name of notebooks/README.md among the pages


def write_site(executed: Mapping[str, Path], explorer: str, source: Path, output: Path) -> None:
    """Write the site.

    Args:
        executed: executed notebooks by name.
        explorer: the explorer's page.
        source: a folder for what Sphinx reads; it is recreated.
        output: the site's folder; it is recreated.

    Raises:
        StudyError: Sphinx failed or warned; what it said is on standard error.
    """
    from sphinx.cmd.build import build_main

    for folder in (source, output):
        shutil.rmtree(folder, ignore_errors=True)
    source.mkdir(parents=True)
    _write_pages(executed, source)
    with as_file(files(__package__).joinpath("templates", "site")) as site:
        text = (site / "index.md").read_text(encoding="utf-8")
        guide = [GUIDE] if (source / f"{GUIDE}.md").exists() else []
        text = text.replace("{{ contents }}", contents(executed, guide))
        write_bytes(source / "index.md", text.encode())
        options = ["-q", "-W", "--keep-going", "-c", str(site), "-d", str(source / "doctrees")]
        if build_main([*options, str(source), str(output)]) != 0:
            raise StudyError("Sphinx failed or warned: see above")
    write_bytes(output / "explorer.html", explorer.encode())


def _write_pages(executed: Mapping[str, Path], source: Path) -> None:
    pages = {f"{name}.ipynb": f"{name}.ipynb" for name in executed}
    guide = NOTEBOOKS / "README.md"
    if guide.exists():
        pages["README.md"] = f"{GUIDE}.md"
        text = relink(guide.read_text(encoding="utf-8"), pages)
        write_bytes(source / f"{GUIDE}.md", text.encode())
    built = {file: f"{Path(page).stem}.html" for file, page in pages.items()}
    for name, path in executed.items():
        notebook = fold(read_static(path, pages, built))  # Sphinx leaves links in outputs alone
        write_bytes(source / f"{name}.ipynb", nbformat.writes(notebook).encode())


def fold(notebook: NotebookNode) -> NotebookNode:
    """Fold, in place, the code that prepares and the answers to exercises: shown on demand."""
    for cell in notebook.cells:
        answers = cell.metadata.get("nbgrader", {}).get("solution")
        if cell.cell_type == "code" and (answers or prepares(cell)):
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
        elif answers:
            cell.source = f"<details><summary>An answer</summary>\n\n{cell.source}\n\n</details>"
    return notebook


def contents(names: Iterable[str], guide: list[str]) -> str:
    """The tables of contents: the course's parts, other notebooks, the teacher's guide."""
    names, course = sorted(names), {section.notebook: section.part for section in SECTIONS}
    trees = {part: [name for name in names if course.get(name) == part] for part in PARTS}
    trees |= {"Tools": [name for name in names if name not in course], "Teaching": guide}
    return "\n\n".join(
        "\n".join(["```{toctree}", f":caption: {caption}", ":maxdepth: 1", "", *pages, "```"])
        for caption, pages in trees.items()
        if pages
    )
