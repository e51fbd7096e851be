"""The lesson on orders: its tables against the statistics, and the notebook as it is run."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from studies import put
from test_course_notebooks import assert_checked
from test_effects import simulated, table_of
from test_notebooks import assert_clean, pictures, printed

from convnext_steps import load_study
from convnext_steps.course import factorial_pictures, factorials
from convnext_steps.execution.notebook import execute_notebook
from convnext_steps.study.effects import analyse
from convnext_steps.study.factorial import entries

THREE = ["depthwise", "gelu", "fewer_activations"]


@pytest.fixture(scope="module")
def found():
    return simulated(0)


def test_credits_that_depend_on_the_order_are_those_that_both_hurt_and_help(found) -> None:
    analysis, _, _ = found
    table = factorials.guess_orders(analysis, ["gelu"])
    assert table["paper's order, by the model"].sum() == pytest.approx(table["mean"].sum(), abs=0.1)
    assert list(table.index[table["your guess"] == "depends"]) == ["gelu"]
    depends = table["sign"] == "depends"
    assert 0 < depends.sum() < 12
    assert ((table["smallest"] < 0) & (table["largest"] > 0))[depends].all()
    assert set(table["sign"]) == {"depends", "not clear"}
    width = table["largest"] - table["smallest"]
    assert width.is_monotonic_decreasing
    with pytest.raises(ValueError, match="unknown decision 'gelo'; did you mean 'gelu'"):
        factorials.guess_orders(analysis, ["gelo"])


def test_a_beginning_is_read_without_interactions(found) -> None:
    _, _, table = found
    analysis = analyse(table.iloc[:100])
    assert set(factorials.guess_orders(analysis)["sign"]) == {"not known"}
    assert "too few runs for interactions" in factorials.clearest(analysis).data
    assert list(factorials.model_errors(analysis).index) == ["additive"]


def test_the_factorial_is_surer_and_the_walk_misses_the_average(found) -> None:
    analysis, _, _ = found
    pure = factorials.model_errors(analysis)["pure_sd"].iloc[-1]
    table = factorial_pictures.two_ways(analysis.space, analysis)
    assert table["factorial_length"].median() < 0.6 * table["walk_length"].median()
    assert table["factorial_holds"].mean() == pytest.approx(0.95, abs=0.02)
    assert table["walk_holds"].min() < 0.2  # one context is not the average
    nothing = factorial_pictures.two_ways(analysis.space)
    assert table["walk_length"].mean() == pytest.approx(
        pure * nothing["walk_length"].mean(), rel=0.02
    )
    assert nothing["walk_holds"].mean() == pytest.approx(0.95, abs=0.03)
    seeds = 20  # the textbook's interval of a difference of two means
    assert nothing["walk_length"].mean() == pytest.approx(1.97 * np.sqrt(2 / seeds), rel=0.02)


def test_what_a_model_leaves_widens_the_factorials_intervals_and_not_the_walks(found) -> None:
    analysis, _, _ = found
    additive = replace(analysis, models={"additive": analysis.models["additive"]})
    whole, part = (factorial_pictures.two_ways(each.space, each) for each in (analysis, additive))
    assert part["walk_length"].mean() == pytest.approx(whole["walk_length"].mean(), rel=0.02)
    assert part["factorial_length"].mean() > 1.5 * whole["factorial_length"].mean()
    assert part["factorial_holds"].mean() == pytest.approx(0.95, abs=0.04)
    assert part["walk_holds"].mean() < 0.5


def test_a_pair_is_drawn_as_its_interaction(found) -> None:
    analysis, _, _ = found
    pairs = factorials.clearest(analysis, 62)
    for one, other in (("gelu", "fewer_activations"), ("stage_ratio", "patchify")):
        words = factorial_pictures.draw_pair(analysis, one, other).alternative
        without, taken = map(float, re.findall(r"([+-]\d+\.\d\d) points", words))
        pair = next(pair for pair in pairs.index if set(pair) == {one, other})
        assert taken - without == pytest.approx(pairs.loc[pair, "effect"], abs=0.02)


def test_effects_in_another_study_are_set_beside_those_here(found, monkeypatch) -> None:
    analysis, _, table = found
    monkeypatch.setattr(factorials, "load_results", lambda *_: table)
    shown = factorials.beside(analysis, "factorial_quick", "factorial_shallow")
    assert list(shown) == ["factorial_quick", "factorial_shallow", "difference", "margin", "found"]
    assert (shown["difference"] == 0).all()
    assert len(shown) == 12
    assert not shown["found"].any()
    itself = factorials.beside(analysis, "factorial_quick", "quick").data
    assert "a comparison needs two studies or more" in itself
    monkeypatch.setattr(factorials, "load_results", lambda *_: table.iloc[:0])
    assert (
        "before the other factorial is trained"
        in factorials.beside(analysis, "quick", "quick").data
    )
    study = factorials.own_factorial("smoke", THREE)
    mine = table_of(study, range(16))
    monkeypatch.setattr(factorials, "load_results", lambda *_: mine)
    assert "differ in their decisions or rules" in factorials.beside(analysis, "quick", study).data


def test_ones_own_factorial_has_every_network_twice() -> None:
    study = factorials.own_factorial("smoke", THREE)
    runs = study.plan()
    assert study.name == "smoke_depthwise_gelu_fewer_activations"
    assert (len(runs), len({run.step for run in runs}), len({run.seed for run in runs})) == (
        16,
        8,
        16,
    )
    with pytest.raises(ValueError, match="move_up needs inverted, which is not among them"):
        factorials.own_factorial("smoke", ["move_up", "gelu"])


def test_without_results_each_table_says_so_and_the_first_says_what_to_do(
    tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("convnext_steps.study.loading.PROJECT_RESULTS", tmp_path)
    assert factorials.fitted("quick", tmp_path) is None
    assert "train them: convnext-steps study factorial_quick" in capsys.readouterr().out
    assert "before the factorial is trained" in factorials.guess_orders(None).data
    study = factorials.own_factorial("smoke", THREE)
    line = f"*{study.name}: 0 runs are too few to tell 3 effects apart. Set `TRAIN = True`: 16 runs"
    assert line in factorials.own_effects(study, tmp_path).data


def put_beginning(folder, number: int) -> None:
    """The first results of the quick factorial, with made-up accuracies."""
    study = load_study("factorial_quick")
    _, _, table = simulated(0)
    assert [each.step for each in entries(study.factorial)] == list(table["step"])
    runs = study.plan()[:number]
    for run, accuracy in zip(runs, table["accuracy"], strict=False):
        put(run, folder, round(float(accuracy), 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "shown", "figures"),
    [(328, "328 of 328 runs are there.", 4), (100, "too few for interactions: in the model", 4)],
)
def test_the_notebook_shows_what_there_is(tmp_path, number, shown, figures) -> None:
    put_beginning(tmp_path, number)
    executed = tmp_path / "out.ipynb"
    execute_notebook("15_order", executed, {"RESULTS": str(tmp_path)})
    assert_clean(executed)
    assert_checked(executed, "15_order", "**Right.**")
    assert shown in printed(executed)
    assert pictures(executed) == figures


@pytest.mark.slow
def test_the_notebook_trains_a_factorial_of_three_when_asked_to(tmp_path) -> None:
    executed = tmp_path / "out.ipynb"
    execute_notebook("15_order", executed, {"RESULTS": str(tmp_path), "TRAIN": "true"})
    results = [json.loads(path.read_text()) for path in tmp_path.rglob("result.json")]
    assert len({(each["step"], each["seed"]) for each in results}) == 16
    assert "depthwise with gelu" in printed(executed)
