"""The course's notebooks, copied to work on, or without their solutions, as nbgrader does it."""

import copy
import json
from pathlib import Path
from typing import Any

from convnext_steps.course.executed import all_notebooks
from convnext_steps.execution.notebook import NOTEBOOKS, find_notebook
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
    for source in sources:
        if (folder / source.name).exists():
            raise ValueError(f"{folder / source.name} exists; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        write_bytes(folder / source.name, source.read_bytes())
    return [folder / source.name for source in sources]


def student_version(notebook: dict[str, Any]) -> dict[str, Any]:
    """A copy of a notebook without its solutions, as `nbgrader generate_assignment` makes it.

    Args:
        notebook: what a notebook's file holds.

    Raises:
        ValueError: a solution has no beginning or no end.
    """
    student = copy.deepcopy(notebook)
    for cell in student["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("solution"):
            code = cell["cell_type"] == "code"
            text = without_solution("".join(cell["source"])) if code else TEXT_STUB
            cell["source"] = text.splitlines(keepends=True)
    return student


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
        ValueError: there is no such notebook, or the output would replace the notebook itself.
        OSError: the output cannot be written.
    """
    if name == COURSE:
        output.mkdir(parents=True, exist_ok=True)
        write_bytes(output / GLOSSARY.name, GLOSSARY.read_bytes())
        targets = {name: output / f"{name}.ipynb" for name in all_notebooks()}
    else:
        targets = {name: output}
    for source, target in targets.items():
        path = find_notebook(source)
        if target.exists() and target.samefile(path):
            raise ValueError(f"{target} is the notebook with the solutions; choose another output")
        student = student_version(json.loads(path.read_text(encoding="utf-8")))
        text = json.dumps(student, indent=1, ensure_ascii=False)
        write_bytes(target, (text + "\n").encode())
    return list(targets.values())
