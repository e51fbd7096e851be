"""The notebooks, executed by papermill as users do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from studies import plan, put, the_study

from convnext_steps.errors import NotebookError
from convnext_steps.execution.notebook import _values, execute_notebook, find_notebook
from convnext_steps.execution.work import do_run
from convnext_steps.study.results import RESULT, read_result


def outputs(path: Path) -> list[dict]:
    cells = json.loads(path.read_text())["cells"]
    return [output for cell in cells for output in cell.get("outputs", [])]


def printed(path: Path) -> str:
    texts = []
    for output in outputs(path):
        texts += output.get("text", [])
        texts += output.get("data", {}).get("text/plain", [])
        texts += output.get("data", {}).get("text/markdown", [])
    return "".join(texts)


def pictures(path: Path) -> int:
    """Figures with an alternative text."""
    pages = ["".join(output.get("data", {}).get("text/html", "")) for output in outputs(path)]
    return sum(page.startswith('<img alt="') for page in pages)


def assert_clean(path: Path, allowed: str | None = None) -> None:
    """No warning, and nothing on standard error but what is allowed."""
    for output in outputs(path):
        text = "".join(output.get("text", []))
        assert "Warning" not in text
        assert output.get("name") != "stderr" or (allowed and allowed in text), text


def test_a_notebook_is_found_by_its_name_without_its_number() -> None:
    assert find_notebook("learning_rate") == find_notebook("10_learning_rate")
    assert find_notebook("learning_rate.ipynb") == find_notebook("learning_rate")
    assert find_notebook("trajectory").name == "trajectory.ipynb"  # the report, not 08
    with pytest.raises(ValueError, match="no notebook '_rate'"):
        find_notebook("_rate")


def test_run_step_trains_counts_and_writes(tmp_path, told) -> None:
    executed = tmp_path / "executed.ipynb"
    parameters = ["STEP=separate_downsampling", "STUDY=smoke", "SEED=1", f"OUTPUT={tmp_path}"]
    words = [word for parameter in parameters for word in ("-p", parameter)]
    told("notebook", "run_step", executed, *words)
    assert_clean(executed)
    text = printed(executed)
    assert "81.97 ± 0.06 % top-1, +0.50 against BN -> LN" in text
    assert "-downsampling = 'in_block'" in text
    assert "4.456" in text
    assert pictures(executed) == 1
    (run,) = plan("smoke", steps=["separate_downsampling"], seeds=[1])
    result = read_result(tmp_path / RESULT)
    assert result["hash"] == run.hash
    do_run(run, tmp_path / "again")
    again = read_result(run.folder(tmp_path / "again") / RESULT)
    assert result["loss"] == pytest.approx(again["loss"], rel=1e-3)
    assert result["environment"]["packages"]["torch"]
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").open()]
    assert history[-1]["accuracy"] == result["accuracy"]
    assert f"{result['accuracy']:.2f} % of 512 test images" in text


@pytest.mark.slow
def test_a_cell_that_fails_is_one_line(tmp_path) -> None:
    with pytest.raises(NotebookError, match="ParameterError: unknown step 'gelo'") as e:
        execute_notebook("run_step", tmp_path / "out.ipynb", {"STEP": "gelo", "STUDY": "smoke"})
    assert "\n" not in str(e.value)


@pytest.mark.slow
def test_learning_rates_are_trained_when_asked_to(tmp_path) -> None:
    executed = tmp_path / "executed.ipynb"
    switches = {"STUDY": "smoke", "STEPS": "[resnet]", "RESULTS": str(tmp_path)}
    rates = {"LEARNING_RATES": "[1e-3, 4e-3]"}
    for train, found in (
        ("false", "2 accuracies on held-out images, of the study quick"),
        ("true", "2 accuracies on held-out images, of the study smoke"),
    ):
        execute_notebook("learning_rate", executed, {"TRAIN": train, **switches, **rates})
        assert found in printed(executed)
    assert pictures(executed) == 1
    for name in ("0.001", "0.004"):
        (path,) = tmp_path.glob(f"smoke_sweep_learning_rate_{name}/resnet/seed-0/result.json")
        assert read_result(path)["data"]["held_out"] == 0.1


@pytest.mark.slow
def test_trajectory_opens_on_a_fresh_clone(tmp_path) -> None:
    executed = tmp_path / "executed.ipynb"
    execute_notebook("trajectory", executed, {"RESULTS": str(tmp_path)})
    assert_clean(executed)
    assert pictures(executed) == 1
    assert "81.97" in printed(executed)


@pytest.mark.slow
def test_a_probe_without_results_says_how_to_make_them(tmp_path) -> None:
    executed = tmp_path / "executed.ipynb"
    execute_notebook("budget", executed, {"RESULTS": str(tmp_path), "DEEP": "[smoke]"})
    text = printed(executed)
    assert text.count("no results yet; make them with `convnext-steps study smoke") == 1
    assert "study smoke --seeds 0 1 2`" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "figures", "shown"),
    [
        ("budget", 2, "within noise"),
        ("leave_one_out", 1, "without_gelu"),
        ("stem_stride", 2, "M multiply-adds, stride 4"),
        ("another_data_set", 1, "first_gain"),
    ],
)
def test_a_probe_shows_its_results(tmp_path, name, figures, shown) -> None:
    photographs = the_study("cifar10_jpeg").change({"data.content": "some"}, "cifar10_jpeg")
    for run in [
        *plan("standard_quarter", seeds=[0, 1]),
        *plan("standard_quarter_stride_4", seeds=[0, 1]),
        *plan("standard_quarter_leave_one_out", "leave_one_out", seeds=[0, 1]),
        *plan("standard", seeds=[0, 1]),
        *photographs.plan([0, 1]),
    ]:
        put(run, tmp_path, 80 + len(run.step) / 10 + run.seed)
    executed = tmp_path / "executed.ipynb"
    execute_notebook(name, executed, {"RESULTS": str(tmp_path), "SEEDS": "[0, 1]"})
    assert_clean(executed)
    assert pictures(executed) == figures
    assert shown in printed(executed)


@pytest.mark.slow
def test_a_step_of_ones_own_is_trained_and_then_only_read(tmp_path) -> None:
    executed = tmp_path / "executed.ipynb"
    parameters = {"STUDY": "smoke", "SEEDS": "[0]", "RESULTS": str(tmp_path)}
    for train, found in (("false", False), ("true", True), ("false", True)):
        execute_notebook("bring_your_own_step", executed, parameters | {"TRAIN": train})
        assert_clean(executed)
        text = printed(executed)
        assert ("no results yet of response_norm" in text) != found
        assert "GlobalResponseNorm()" in text
        assert pictures(executed) == 1
    (result,) = tmp_path.rglob("response_norm/*/result.json")
    assert read_result(result)["design"]["response_norm"] is True


@pytest.mark.parametrize(
    ("notebook", "name", "text", "value"),
    [
        *(
            ("run_step", "RESULTS", text, text)
            for text in ("2026-11-24", "o #1", "a: b", "{x}", "[y]", "50 %")
        ),
        ("run_step", "SEED", "10", 10),
        ("learning_rate", "LEARNING_RATES", "[1e-3, .5, 4.]", [0.001, 0.5, 4.0]),
        ("learning_rate", "GUESS_RESNET", "-.5", -0.5),
        ("learning_rate", "TRAIN", "true", True),
        ("learning_rate", "STEPS", "[resnet, gelu]", ["resnet", "gelu"]),
    ],
)
def test_words_mean_what_the_notebooks_parameter_is(notebook, name, text, value) -> None:
    assert _values(find_notebook(notebook), {name: text}) == {name: value}


@pytest.mark.parametrize("text", ["abc", "010"])
def test_a_word_for_a_number_is_one_line_before_anything_is_executed(text) -> None:
    with pytest.raises(ValueError, match=f"^SEED is '{text}'; it must be a whole number$"):
        _values(find_notebook("run_step"), {"SEED": text})


NAMELESS = '{"cells": [{}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'


@pytest.mark.parametrize("command", ["notebook", "student", "slides"])
@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[]", b"\xff\xfe", NAMELESS.encode()])
def test_a_file_that_is_no_notebook_is_refused_in_one_line(
    tmp_path, told, command, content
) -> None:
    path = tmp_path / "damaged.ipynb"
    path.write_bytes(content)
    output = ["--build"] if command == "slides" else []
    error = told(command, path, *output, tmp_path / "out.ipynb", code=2).err
    assert error == f"convnext-steps: {path} is damaged or not a notebook\n"


@pytest.mark.slow
def test_a_notebook_runs_in_this_python_whatever_kernel_it_names(tmp_path) -> None:
    """Without a home that can be written to, and in a folder with a name that YAML would cut."""
    kernel = {"name": "gone", "display_name": ""}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    source = "import sys\nprint(sys.prefix)"
    notebook.cells = [nbformat.v4.new_code_cell(source, id="one")]
    folder = tmp_path / "Course #2"
    folder.mkdir()
    nbformat.write(notebook, folder / "other.ipynb")
    environment = os.environ | {"HOME": "/dev/null", "LC_ALL": "C", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "convnext_steps", "notebook", "other.ipynb", "out.ipynb"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert printed(folder / "out.ipynb").strip() == sys.prefix


@pytest.mark.slow
def test_a_terminal_that_lacks_a_sign_shows_the_rest() -> None:
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "convnext_steps", "show", "gelu"]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"80.62 ? 0.14 % top-1" in done.stdout
