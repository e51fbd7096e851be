"""The ways to do a run: the command, plain papermill, a worker, Python: one result."""

from typing import Any

import pytest
from studies import ended, one_of_an_array, papermill, plan, results_without_times, study, the_study

from convnext_steps import load_results, plot_trajectory, run_study
from convnext_steps.execution.parameters import ParameterError, the_run
from convnext_steps.study.toml import read_changes

CHANGES = "recipe.max_epochs=0.5 scale.width=1/16"
NAME = "smoke_max_epochs_0.5_width_0.0625"


@pytest.mark.slow
def test_every_way_leads_to_the_same_result(tmp_path, told) -> None:
    options = [word for change in CHANGES.split() for word in ("--set", change)]
    options += ["--steps", "resnet"]
    changed = the_study("smoke").change(read_changes(CHANGES))
    (run,) = changed.plan(steps=["resnet"])
    ways = [
        study(tmp_path / "command", *options),
        one_of_an_array(run, tmp_path / "papermill", CHANGES),
        study(tmp_path / "worker", *options, "--set", "how.notebooks=false"),
    ]
    for way in ways:
        ended(way)
    run_study(changed, steps=["resnet"], results=tmp_path / "python")
    first, *others = (
        results_without_times(tmp_path / name)
        for name in ("command", "papermill", "worker", "python")
    )
    assert list(first) == [f"{NAME}/resnet/seed-0/result.json"]
    assert others == [first, first, first]
    out = told("status", "smoke", *options, "--results", tmp_path / "papermill").out
    assert out.endswith("1 done\n")
    assert len(load_results(changed, tmp_path / "papermill")) == 1


GIVEN: dict[str, Any] = {
    **{"STUDY": "smoke", "CHANGES": "", "STEP": "gelu", "SEED": 0},
    **{"OUTPUT": "", "RESULTS": "own", "USES": ""},
}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"STEP": "gelo"}, "unknown step 'gelo'; did you mean 'gelu'?"),
        ({"SEED": "abc"}, "SEED is 'abc'; it must be a whole number"),
        ({"STEP": 3}, "STEP is 3; it must be a text"),
        ({"CHANGES": "recipe.epochs=1"}, "unknown key 'recipe.epochs'"),
    ],
)
def test_a_wrong_parameter_of_the_notebook_is_one_line(changes, line) -> None:
    assert the_run(GIVEN)[1] == plan("smoke", steps=["gelu"])[0]
    with pytest.raises(ParameterError) as error:
        the_run(GIVEN | changes)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_parameter_that_the_notebook_does_not_have_ends_it_in_one_line(tmp_path) -> None:
    """Papermill itself would only log it."""
    line = "ParameterError: unknown parameter 'STEPS'; did you mean 'STEP'?"
    _, err = ended(papermill(tmp_path / "out.ipynb", {"RESULTS": "own", "STEPS": "gelu"}), 1)
    assert err.rstrip().splitlines()[-1] == line
    assert not (tmp_path / "own").exists()


@pytest.mark.slow
def test_an_order_of_ones_own_with_a_step_of_ones_own_runs_to_a_figure(tmp_path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'base = "smoke"\norder = ["gelu", "depthwise"]\nonly = []\n'
        "[recipe]\nmax_epochs = 0.1\n[how]\nnotebooks = false\n"
        '[[step]]\nname = "kernel_13"\nparent = "resnet+depthwise+gelu"\n'
        "change = { kernel_size = 13 }\n"
    )
    results = tmp_path / "results"
    assert run_study(str(file), results=results) == 4
    assert (results / "mine" / "trajectory.png").exists()
    table = load_results(str(file), results)
    assert list(table["step"]) == ["kernel_13", "resnet", "resnet+depthwise+gelu", "resnet+gelu"]
    assert len(plot_trajectory(table).axes) == 1  # only ResNet is one of the paper's networks
