"""The course's notebooks, copied to work on, or without their solutions, as nbgrader does it."""

from collections.abc import Mapping
from pathlib import Path

import nbformat

from convnext_steps.course.executed import all_notebooks
from convnext_steps.execution.notebook import NOTEBOOKS, find_notebook, read_notebook
from convnext_steps.files import write_bytes

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
CODE_STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")  # nbgrader's own two
TEXT_STUB = "YOUR ANSWER HERE"
COURSE = "course"
GLOSSARY = NOTEBOOKS / "glossary.md"


def copy_course(folder: Path) -> list[Path]:
    """Copy the project's notebooks and the guide next to them into a folder, which is created.

    Raises:
        ValueError: one of the files is there already; nothing is copied.
        OSError: the folder cannot be written to.
    """
    sources = sorted([*NOTEBOOKS.glob("*.ipynb"), *NOTEBOOKS.glob("*.md")])
    return _write_new({folder / source.name: source.read_bytes() for source in sources})


def _write_new(files: Mapping[Path, bytes]) -> list[Path]:
    """Write files and return their paths, or none of them if one is there already."""
    for path in files:
        if path.exists():
            raise ValueError(f"{path} exists; choose another place")
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)
    return list(files)


def without_solution(source: str) -> str:
    """A cell's code with nbgrader's stub where the solution was.

    Raises:
        ValueError: the solution has no beginning or no end.
    """
    before, begin, rest = source.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"a solution needs {BEGIN!r} and {END!r}, each on a line of its own")
    indent = before.rpartition("\n")[2]
    return before + f"\n{indent}".join(CODE_STUB) + after


def write_student_versions(name: str, output: Path) -> list[Path]:
    """Write the student version of a notebook, or of all into a folder, with the glossary.

    A notebook without exercises stays as it is.

    Args:
        name: a notebook by name or path, or "course".
        output: a file; for the course, a folder, which is created.

    Raises:
        ValueError: there is no such notebook, or one of the files is there already.
        OSError: the output cannot be written.
    """
    if name != COURSE:
        return _write_new({output: _without_solutions(name)})
    files = {output / f"{each}.ipynb": _without_solutions(each) for each in all_notebooks()}
    return _write_new(files | {output / GLOSSARY.name: GLOSSARY.read_bytes()})


def _without_solutions(name: str) -> bytes:
    """The file of a notebook's student version, as `nbgrader generate_assignment` makes it."""
    path = find_notebook(name)
    notebook = read_notebook(path)
    cells = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    for cell in cells:
        cell.source = without_solution(cell.source) if cell.cell_type == "code" else TEXT_STUB
    if not cells:
        return path.read_bytes()
    return (nbformat.writes(notebook) + "\n").encode()
