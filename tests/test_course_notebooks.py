"""The notebooks of the course: their form, and that they and their student versions run."""

import csv
import html
import json
import re
from pathlib import Path

import pytest
from test_notebooks import assert_clean, outputs

from convnext_steps.course import quiz, student
from convnext_steps.course.sections import SECTIONS, Section
from convnext_steps.execution.notebook import execute_notebook
from convnext_steps.models import paper

ROOT = Path(__file__).parents[1]
PAPER = Path(paper.__file__).parent
WORDS = 60
SMOKE = {"STUDY": "smoke"}
RATES, FIT, SECONDS = "10_learning_rate", "12_fit", "18_flops_are_not_seconds"
MEASURED = {SECONDS: {"ROUNDS": "1"}}  # this one measures

PROBES = ("11_budget", "13_another_data_set", "14_leave_one_out", "17_stem_stride")
WITHOUT_EXERCISES = (*PROBES, "16_bring_your_own_step")
SECTION_NAMES = [section.notebook for section in SECTIONS]
LESSONS = [name for name in SECTION_NAMES if name not in WITHOUT_EXERCISES]
every_notebook = pytest.mark.parametrize("name", LESSONS)
every_section = pytest.mark.parametrize("name", SECTION_NAMES)


def navigation(notebook: str) -> str:
    """The line of links to the neighbours that begins and ends each notebook, as Markdown."""
    here = SECTION_NAMES.index(notebook)
    links = []
    if here > 0:
        links.append(f"← {link_to(SECTIONS[here - 1])}")
    if here > 1:
        links.append(link_to(SECTIONS[0]))
    if here + 1 < len(SECTIONS):
        links.append(f"{link_to(SECTIONS[here + 1])} →")
    return " · ".join(links)


def link_to(section: Section) -> str:
    return f"[{section.title}]({section.notebook}.ipynb)"


def cells_of(name: str, kind: str | None = None) -> list[dict]:
    notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if kind in (None, cell["cell_type"])]


def text_of(cell: dict) -> str:
    return "".join(cell["source"])


def graded(name: str) -> list[dict]:
    return [cell for cell in cells_of(name) if "nbgrader" in cell["metadata"]]


@every_section
def test_cells_have_ids_in_their_order_and_prose_is_short(name) -> None:
    cells = cells_of(name)
    assert [cell["id"] for cell in cells] == [f"cell-{i:02}" for i in range(len(cells))]
    for cell in cells_of(name, "markdown"):
        assert len(text_of(cell).split()) <= WORDS, text_of(cell)


@every_section
def test_a_notebook_has_goals_prerequisites_time_parameters_and_a_recap(name) -> None:
    prose = [text_of(cell) for cell in cells_of(name, "markdown")]
    (goals,) = [text for text in prose if text.startswith("## Goals")]
    assert len(re.findall(r"^- ", goals, re.MULTILINE)) == 3
    assert any("**Before this:**" in text and "**Run time**" in text for text in prose)
    tagged = [cell["metadata"].get("tags") for cell in cells_of(name, "code")]
    assert tagged[:2] == [["colab"], ["parameters"]]
    assert any(text.startswith("## Recap") for text in prose)


@every_section
def test_a_section_begins_and_ends_with_the_links_to_its_neighbours(name) -> None:
    cells = cells_of(name)
    assert text_of(cells[0]).endswith(navigation(name))
    assert text_of(cells[-1]) == navigation(name)


@every_notebook
def test_exercises_are_at_least_three_and_nbgrader_can_read_them(name) -> None:
    ids = [cell["metadata"]["nbgrader"]["grade_id"] for cell in graded(name)]
    assert len(set(ids)) == len(ids)
    for cell in graded(name):
        meta = cell["metadata"]["nbgrader"]
        kind = meta["grade"], meta["solution"], meta["locked"]
        assert meta["schema_version"] == 3
        assert meta["cell_type"] == cell["cell_type"]
        assert not meta["task"]
        assert ("points" in meta) == meta["grade"]
        if cell["cell_type"] == "markdown":
            assert kind == (True, True, False)  # graded by hand
        elif meta["solution"]:
            assert kind == (False, True, False)
            student.without_solution(text_of(cell))
        else:
            assert kind == (True, False, True)
            assert text_of(cell).splitlines()[-1].startswith("check(")
    checks = sum(id.endswith("-check") for id in ids)
    discussions = sum(cell["cell_type"] == "markdown" for cell in graded(name))
    assert checks >= 1
    assert discussions >= 1
    assert checks + discussions >= 3
    titles = [t for t in map(text_of, cells_of(name, "markdown")) if re.match(r"### \d · ", t)]
    assert len(titles) == checks + discussions


def published_numbers() -> set[str]:
    """Every decimal number of the paper's tables, as it prints them."""
    numbers = set()
    for file in PAPER.glob("*.csv"):
        with file.open(encoding="utf-8") as rows:
            for row in csv.DictReader(rows):
                numbers |= {value for value in row.values() if re.fullmatch(r"\d+\.\d+", value)}
    return numbers


@every_section
def test_numbers_in_prose_are_the_papers_with_their_table(name) -> None:
    for cell in cells_of(name, "markdown"):
        text = re.sub(r"\]\([^)]*\)", "", text_of(cell))
        text = re.sub(r"Sections? 2\.\d( and 2\.\d)?", "", text)
        numbers = re.findall(r"\d+\.\d+", text)
        assert set(numbers) <= published_numbers(), text
        assert not numbers or re.search(r"(Table|Figure) \d", text), text


QUIZZES = [path.name.removesuffix(".toml") for path in quiz.FOLDER.iterdir()]


@pytest.mark.parametrize("name", QUIZZES)
def test_a_lesson_with_a_quiz_ends_with_it_a_recap_and_further_reading(name) -> None:
    cells = [text_of(cell) for cell in cells_of(name)]
    shown = cells.index(f'quiz("{name}")')
    assert cells[shown - 1].startswith("## Quiz\n")
    assert cells[shown + 1].startswith("## Recap\n")
    assert cells[shown + 2].startswith("## Further reading\n")
    words = repr(quiz.quiz(name).questions)
    assert set(re.findall(r"\d+\.\d+", words)) <= published_numbers()


STRICT = """from convnext_steps.course import exercises


def scaled(value):
    if isinstance(value, tuple):
        return tuple(map(scaled, value))
    if isinstance(value, bool):
        return not value
    return value if isinstance(value, (str, set, list)) else 1.1 * value


def check(answer, cases, hint, judge=exercises.check):
    wrongs = [lambda *_: next(iter(cases.values()))]
    if any(repr(scaled(value)) != repr(value) for value in cases.values()):
        wrongs.append(lambda *given: scaled(answer(*given)))
    for wrong in wrongs:
        assert judge(wrong, cases, hint).points == 0, hint
    return judge(answer, cases, hint)
"""


def write_tried_version(name: str, target: Path) -> None:
    """A copy in which each check comes first without an answer, then with the solution.

    In lessons with a quiz, checks fail if a constant, or an answer ten per cent off, were right.
    """
    notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    tried, cells = [], notebook["cells"]
    for cell, following in zip(cells, [*cells[1:], {}], strict=True):
        if cell["cell_type"] == "code" and cell["metadata"].get("nbgrader", {}).get("solution"):
            stub = cell | {"source": student.without_solution(text_of(cell))}
            tried += [each | {"id": f"{each['id']}-stub"} for each in (stub, following)]
        tried.append(cell)
        if "import check" in text_of(cell) and name in QUIZZES:
            tried.append(cell | {"id": "strict", "source": [STRICT]})
    target.write_text(json.dumps(notebook | {"cells": tried}), encoding="utf-8")


def run(name: str, folder: Path) -> Path:
    output, source = folder / f"{name}.ipynb", folder / f"copy-{name}.ipynb"
    write_tried_version(name, source)
    given = SMOKE | MEASURED.get(name, {})
    if name != RATES:
        given["RESULTS"] = str(folder)
    execute_notebook(str(source), output, given)
    return output


def markdown(path: Path) -> list[str]:
    shown = [output.get("data", {}).get("text/markdown", "") for output in outputs(path)]
    return ["".join(text) for text in shown]


def assert_runs(path: Path, name: str) -> None:
    """Nothing on standard error but which results are missing; figures say what they show."""
    assert_clean(path, allowed="make them with")
    pages = ["".join(output.get("data", {}).get("text/html", "")) for output in outputs(path)]
    images = re.findall(r"<img[^>]*>", "".join(pages))
    alternatives = [html.unescape(re.search(r'alt="([^"]*)"', image)[1]) for image in images]
    assert len(images) >= (1 if name in (RATES, FIT) else 2)
    assert all(len(text.split()) >= 5 for text in alternatives)


def assert_checked(path: Path, name: str, words: str) -> None:
    """Every check of a notebook has said this."""
    checks = sum(cell["cell_type"] == "code" for cell in graded(name)) // 2
    assert sum(text.startswith(words) for text in markdown(path)) == checks


@pytest.mark.slow
@every_notebook
def test_every_notebook_runs_unanswered_and_its_solutions_are_right(name, tmp_path) -> None:
    executed = run(name, tmp_path)
    assert_runs(executed, name)
    for words in ("**Not answered yet.**", "**Right.**"):
        assert_checked(executed, name, words)


@every_notebook
def test_only_its_check_needs_an_answer(name) -> None:
    """So that a student's version runs to its end without one."""
    cells = cells_of(name, "code")
    for index, cell in enumerate(cells):
        if cell["metadata"].get("nbgrader", {}).get("solution"):
            others = " ".join(text_of(each) for each in cells[:index] + cells[index + 2 :])
            (answer,) = re.findall(r"^def (\w+)", text_of(cell), re.MULTILINE)
            assert not re.search(rf"\b{answer}\(", others)


@pytest.mark.slow
def test_a_section_is_trained_when_asked_to(tmp_path) -> None:
    output = tmp_path / "out.ipynb"
    switches = {"TRAIN": "true", "TRY": "true", "RESULTS": str(tmp_path)}
    execute_notebook("03_resnextify", output, {**SMOKE, **switches})
    assert any("Results of the study smoke, seeds 0." in text for text in markdown(output))
    assert len(list(tmp_path.rglob("result.json"))) == 3


@pytest.mark.slow
def test_networks_are_trained_and_looked_into_when_asked_to(tmp_path) -> None:
    output = tmp_path / "out.ipynb"
    execute_notebook("19_inside", output, SMOKE | {"TRAIN": "true", "RESULTS": str(tmp_path)})
    assert "Trained as the study smoke says: move_up, kernel_7." in markdown(output)
    assert len(list(tmp_path.rglob("weights.safetensors"))) == 2
