"""Slides of a notebook: reveal.js and the page in one folder, to show offline."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from nbconvert import SlidesExporter
from nbformat import NotebookNode

from convnext_steps.course.executed import prepares, read_static
from convnext_steps.files import write_bytes

SUFFIX = ".slides.html"
TEMPLATES = Path(__file__).with_name("templates")


def write_slides(executed: Mapping[str, Path], output: Path) -> list[Path]:
    """Write one file of slides for each executed notebook, and reveal.js next to them.

    Args:
        executed: executed notebooks by name.
        output: the folder; it is created.
    """
    output.mkdir(parents=True, exist_ok=True)
    pages = {f"{name}.ipynb": f"{name}{SUFFIX}" for name in executed}
    shutil.copytree(TEMPLATES / "reveal", output / "reveal", dirs_exist_ok=True)
    shutil.copy(TEMPLATES / "slides" / "slides.css", output)
    exporter = SlidesExporter(
        template_name="slides",
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    written = []
    for name, path in executed.items():
        notebook = read_static(path, pages)
        titles = (re.match(r"# (.+)", cell.source) for cell in notebook.cells)
        notebook.metadata["title"] = next((found[1] for found in titles if found), name)
        text, _ = exporter.from_notebook_node(set_slides(notebook))
        written.append(output / pages[f"{name}.ipynb"])
        write_bytes(written[-1], text.encode())
    return written


def set_slides(notebook: NotebookNode) -> NotebookNode:
    """Divide a notebook into slides, in place.

    Each heading of the second level begins a slide; below it follows a slide for each cell of code
    with the prose before it. Left out are the cells that prepare, and those that hold or check
    answers.
    """
    after_code = False
    for cell in notebook.cells:
        code = cell.cell_type == "code"
        if prepares(cell) or cell.metadata.get("nbgrader"):
            kind = "skip"
        elif cell.source.startswith("## ") and not code:
            kind = "slide"
        else:
            kind = "subslide" if after_code else "-"
        cell.metadata["slideshow"] = {"slide_type": kind}
        after_code = code if kind != "skip" else after_code
    return notebook
