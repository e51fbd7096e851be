"""The notebooks, executed by papermill as users do."""

import json
from pathlib import Path

import pytest

from convnext_steps import cli
from convnext_steps.study.errors import NotebookError
from convnext_steps.study.notebook import execute_notebook
from convnext_steps.study.plan import plan
from convnext_steps.study.results import PARTIAL_RESULT, read_result


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
    return sum("image/svg+xml" in output.get("data", {}) for output in outputs(path))


def assert_clean(path: Path) -> None:
    """No error, no warning, nothing on standard error."""
    for output in outputs(path):
        assert output["output_type"] != "error"
        assert "Warning" not in "".join(output.get("text", []))
        assert output.get("name") != "stderr", output["text"]


def test_run_step_trains_counts_and_writes(tmp_path, capsys) -> None:
    executed = tmp_path / "executed.ipynb"
    parameters = ["STEP=separate_downsampling", "PROFILE=smoke", f"OUTPUT={tmp_path}"]
    words = [word for parameter in parameters for word in ("-p", parameter)]
    assert cli.main(["notebook", "run_step", str(executed), *words]) == 0
    assert_clean(executed)
    text = printed(executed)
    assert "81.97 ± 0.06 % top-1, +0.50 against BN -> LN" in text
    assert "-downsampling = 'in_block'" in text
    assert "4.456" in text
    assert pictures(executed) == 1
    (run,) = plan("smoke", steps=["separate_downsampling"])
    result = read_result(tmp_path / PARTIAL_RESULT)
    assert result["hash"] == run.hash
    assert result["environment"]["packages"]["torch"]
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").open()]
    assert history[-1]["accuracy"] == result["accuracy"]
    assert f"{result['accuracy']:.2f} % of 512 test images" in text


def test_a_cell_that_fails_is_one_line(tmp_path) -> None:
    with pytest.raises(NotebookError, match=r"ValueError: unknown step 'gelo'; did you mean") as e:
        execute_notebook("run_step", tmp_path / "out.ipynb", {"STEP": "gelo", "PROFILE": "smoke"})
    assert "\n" not in str(e.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters", "figures"),
    [
        ("flops_are_not_seconds", {"ROUNDS": "1"}, 2),
        ("learning_rate", {"STEPS": "[resnet]", "LEARNING_RATES": "[0.001, 0.004]"}, 1),
    ],
)
def test_the_other_notebooks_run_at_the_smoke_size(tmp_path, name, parameters, figures) -> None:
    executed = tmp_path / "executed.ipynb"
    execute_notebook(name, executed, {"PROFILE": "smoke", **parameters})
    assert_clean(executed)
    assert pictures(executed) == figures


def test_trajectory_opens_on_a_fresh_clone(tmp_path) -> None:
    executed = tmp_path / "executed.ipynb"
    execute_notebook("trajectory", executed, {"RESULTS": str(tmp_path)})
    assert_clean(executed)
    assert pictures(executed) == 1
    assert "81.97" in printed(executed)
