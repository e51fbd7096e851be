"""Studies beside each other, and values chosen on held-out images: by hand and against scipy."""

import shlex

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from studies import plan, put, table_of, the_study

from convnext_steps import TrainingConfig, load_results, load_study
from convnext_steps.errors import InvalidStudyError
from convnext_steps.execution.live import Live
from convnext_steps.study.comparison import compare_studies, plot_comparison, to_markdown
from convnext_steps.study.sweep import choose, sweep, sweep_table
from convnext_steps.study.toml import write_study

STEPS = ("kernel_7", "gelu", "fewer_activations")
NAMES = ("quick", "shallow")


def two_studies(folder, seeds: int, gains=(1.0, 3.0)) -> list[pd.DataFrame]:
    """gelu gains about as much as is asked in each, fewer_activations about nothing."""
    random = np.random.default_rng(0)
    for name, gain in zip(NAMES, gains, strict=True):
        for run in plan(name, steps=STEPS, seeds=range(seeds)):
            accuracy = 80 + gain * (run.step != "kernel_7") + 0.1 * random.normal()
            put(run, folder, round(accuracy, 2))
    return [table_of(folder, name) for name in NAMES]


def test_what_is_tested_is_the_difference_of_the_gains(tmp_path) -> None:
    tables = two_studies(tmp_path, 10)
    found = compare_studies(tables).set_index("step")
    gained = []
    for table in tables:
        wide = table.pivot(index="seed", columns="step", values="accuracy")
        gained.append(wide["gelu"] - wide["kernel_7"])
    test = stats.ttest_rel(gained[1], gained[0])
    row = found.loc["gelu"]
    assert (row["n"], row["study"]) == (10, "shallow")
    assert row["difference"] == pytest.approx(row["gain"] - row["first_gain"])
    low, high = test.confidence_interval(0.95)
    assert row["difference"] - row["margin"] == pytest.approx(low)
    assert row["difference"] + row["margin"] == pytest.approx(high)
    assert row["p"] == 2 / 2**10  # every seed says the same
    assert row["p_holm"] == pytest.approx(16 * row["p"])
    assert row["verdict"] == "up"
    assert found.loc["fewer_activations", "verdict"] == "within noise"
    assert found.loc["width", "verdict"] == "too few seeds (0 of 10)"


def test_significant_in_one_alone_is_no_difference(tmp_path) -> None:
    found = compare_studies(two_studies(tmp_path, 10, (0.5, 0.5))).set_index("step")
    assert found.loc["gelu", "verdict"] == "within noise"


def test_three_seeds_allow_no_verdict_but_an_interval(tmp_path) -> None:
    tables = two_studies(tmp_path, 3)
    row = compare_studies(tables).set_index("step").loc["gelu"]
    assert row["verdict"] == "too few seeds (3 of 10)"
    assert row["margin"] > 0
    text = to_markdown(compare_studies(tables), "quick")
    assert text.startswith(
        "| step | study | n | gain in quick | gain | difference | p | verdict |\n"
    )
    assert "| ReLU -> GELU | shallow | 3 | +" in text
    left, right = plot_comparison(tables).axes
    assert [len(axes.containers) for axes in (left, right)] == [2, 2]
    assert all(drawn.has_xerr for axes in (left, right) for drawn in axes.containers)


def test_studies_without_a_common_step_are_one_line(tmp_path) -> None:
    tables = [table_of(tmp_path), table_of(tmp_path, "smoke")]
    with pytest.raises(ValueError, match="quick, smoke have no step in common"):
        compare_studies(tables)
    with pytest.raises(ValueError, match="two studies or more"):
        compare_studies(tables[:1])


def test_a_sweep_is_a_study_for_each_value_on_held_out_images() -> None:
    studies = sweep(the_study(), "recipe.learning_rate", [1e-3, 2e-3])
    assert [study.name for study in studies] == [
        "quick_sweep_learning_rate_0.001",
        "quick_sweep_learning_rate_0.002",
    ]
    assert [study.recipe.learning_rate for study in studies] == [1e-3, 2e-3]
    assert {study.data.held_out for study in studies} == {0.1}
    reported = {run.hash for run in the_study().change({"recipe.learning_rate": 1e-3}).plan()}
    assert not reported & {run.hash for run in studies[0].plan()}
    with pytest.raises(InvalidStudyError, match="two values or more"):
        sweep(the_study(), "recipe.learning_rate", [1e-3])


def test_each_step_has_its_own_best_and_all_a_common_one(tmp_path) -> None:
    studies = sweep(the_study(), "recipe.learning_rate", [1e-3, 2e-3])
    accuracies = {"kernel_7": (70.0, 72.0), "gelu": (81.0, 80.0)}
    for place, study in enumerate(studies):
        for run in study.plan([0, 1], list(accuracies)):
            put(run, tmp_path, accuracies[run.step][place] + run.seed)
    wide = sweep_table([load_results(study, tmp_path) for study in studies], "recipe.learning_rate")
    assert dict(wide.loc["gelu"]) == {1e-3: 81.5, 2e-3: 80.5}
    chosen = choose(wide)
    assert list(chosen.index) == ["kernel_7", "gelu"]
    assert dict(chosen["own best"]) == {"kernel_7": 2e-3, "gelu": 1e-3}
    assert set(chosen["common"]) == {2e-3}
    assert dict(chosen["cost"]) == {"kernel_7": 0, "gelu": 1}


def test_a_sweep_says_how_to_report_what_it_chose(tmp_path, told) -> None:
    uses, data = tmp_path / "mine.py", tmp_path / "my data"
    uses.touch()
    data.mkdir()
    change = {"data.root": str(data), "data.content": "some"}
    for study in sweep(the_study("smoke").change(change), "recipe.learning_rate", [1e-3, 2e-3]):
        for run in study.plan():
            put(run, tmp_path, 80 + 1000 * run.config.learning_rate)
    words = ["study", "smoke", "--set", f"data.root={data}", "--set", "data.content=some"]
    words += ["--uses", uses, "--results", tmp_path, "--sweep", "recipe.learning_rate=0.001,0.002"]
    *table, last = told(*words).out.splitlines()
    assert table[-1].split() == ["separate_downsampling", "0.002", "82.0", "0.002", "82.0", "0.0"]
    command = last.removeprefix("to report it: ").partition(", with")[0]
    assert shlex.split(command) == [
        *("convnext-steps", "study", "smoke", "--uses", str(uses)),
        *("--set", f"data.root={data}", "--set", "data.content=some"),
        *("--set", "recipe.learning_rate=0.002"),
    ]


def test_a_change_that_does_not_reach_the_original_recipe_is_told(caplog) -> None:
    load_study("quick").change({"recipe.learning_rate": 1e-3, "recipe.batch_size": 32})
    assert caplog.messages == ["resnet_original keeps its own learning_rate"]
    load_study("imagenette").change({"recipe.learning_rate": TrainingConfig().learning_rate})
    assert len(caplog.messages) == 2


def test_a_written_study_changes_nothing_of_the_original_recipe(tmp_path, caplog) -> None:
    write_study(load_study("quick"), tmp_path / "quick.toml")
    load_study(tmp_path / "quick.toml")
    assert not caplog.messages


def test_each_finished_run_is_a_line_and_from_the_second_on_there_is_a_figure(
    tmp_path, capsys
) -> None:
    live = Live(the_study(), tmp_path)
    first, second = plan(steps=["kernel_7", "gelu"])
    put(first, tmp_path, 80.0)
    live.ended(first)
    assert capsys.readouterr().out == "kernel_7 seed 0: 80.00 %, 32 s\n"
    assert not (tmp_path / "quick" / "trajectory.png").exists()
    put(second, tmp_path, 81.5)
    live.ended(second)
    assert capsys.readouterr().out == "gelu seed 0: 81.50 % (+1.50 on kernel_7), 32 s\n"
    assert (tmp_path / "quick" / "trajectory.png").exists()


def test_a_dry_run_says_what_is_missing_and_what_it_costs(tmp_path, told) -> None:
    (run,) = plan(steps=["gelu"])
    put(run, tmp_path)
    steps = ["--steps", "gelu", "width"]
    out = told("study", "quick", "--dry-run", *steps, "--results", tmp_path).out
    assert "   0 gelu seed 0 " in out
    assert "2 runs, a job array of 0-1; 1 are missing" in out
    assert "40,000 images seen" in out


def test_a_network_beside_the_studys_steps_alone_is_not_drawn_and_no_error(tmp_path) -> None:
    (run,) = plan("quick", steps=["resnet+gelu"])
    put(run, tmp_path, 80.0)
    live = Live(the_study(), tmp_path)
    live.draw()
    assert not (tmp_path / "quick" / "table.md").exists()
