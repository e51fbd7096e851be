"""Intervals, tests and verdicts, against scipy, textbook numbers and the paper's table."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from studies import the_study

from convnext_steps import roadmap
from convnext_steps.study.statistics import (
    PATTERNS,
    compare,
    comparisons,
    holm,
    paired_t_p,
    seeds_needed,
    sign_flip_p,
    smallest_p,
)
from convnext_steps.study.tables import summarize


def results_of(accuracies: dict[str, list[float]], regime: str = "tiny") -> pd.DataFrame:
    """A table like that of `load_results`: a step's accuracies by seed, None where a run lacks."""
    names = {"study": "quick"}
    rows = [
        {**names, "step": step, "seed": seed, "accuracy": top1, "correct": np.round(1000 * top1)}
        for step, values in accuracies.items()
        for seed, top1 in enumerate(values)
        if top1 is not None
    ]
    table = pd.DataFrame(rows, columns=["study", "step", "seed", "accuracy", "correct", "macs"])
    table.attrs["study"] = the_study("quick", regime)
    return table


def compared(accuracies: dict[str, list[float]], regime: str = "tiny") -> pd.DataFrame:
    return compare(results_of(accuracies, regime)).set_index("step")


# --- The tests ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "differences", [[0.5], [1, 1, -1, 0], [0, 0, 0], [2, 1, 1, -1, 0, 3], [31, 2, -3, -3, 1]]
)
def test_ties_and_zeros_count_as_every_pattern_counted_by_hand_does(differences) -> None:
    patterns = list(itertools.product((1, -1), repeat=len(differences)))
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in patterns]
    extreme = sum(value >= abs(sum(differences)) for value in sums)
    assert sign_flip_p(differences) == extreme / len(patterns)


def test_drawn_patterns_agree_with_all_and_repeat() -> None:
    differences = np.random.default_rng(0).normal(0.4, 1, 20)
    drawn = sign_flip_p(differences)
    assert drawn == sign_flip_p(differences)
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    exact = np.mean(np.abs(sums) >= abs(differences.sum()) - 1e-9)
    assert 0.01 < exact < 0.5
    assert drawn == pytest.approx(exact, abs=5 * (exact * (1 - exact) / PATTERNS) ** 0.5)
    assert sign_flip_p(np.ones(100, int)) == 2 / (PATTERNS + 1)  # never zero
    assert math.isnan(sign_flip_p([]))


@pytest.mark.filterwarnings("error")
def test_the_t_test_where_it_degenerates() -> None:
    assert math.isnan(paired_t_p([]))
    assert math.isnan(paired_t_p([0.5]))
    assert paired_t_p([0, 0, 0]) == 1
    assert paired_t_p([0.5, 0.5, 0.5]) == 0


def test_holms_correction_by_the_textbook() -> None:
    """Four hypotheses: 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 x 1 raised to what went before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == pytest.approx([1, 1])
    assert holm([0.02]) == pytest.approx([0.02])
    to_come = [0.01, math.nan, 0.04]  # a test that is still to come counts
    assert holm(to_come) == pytest.approx([0.03, math.nan, 0.08], nan_ok=True)


def test_sixteen_comparisons_need_ten_seeds() -> None:
    assert len(comparisons(roadmap("tiny"))) == len(comparisons(roadmap("base"))) == 16
    assert smallest_p(9) == sign_flip_p(np.arange(1, 10)) == 2 / 512 > 0.05 / 16
    assert smallest_p(10) == sign_flip_p(np.arange(1, 11)) == 2 / 1024 < 0.05 / 16
    assert [seeds_needed(m) for m in (1, 2, 16, 17)] == [6, 7, 10, 10]


# --- A study --------------------------------------------------------------------------------


def test_each_step_is_compared_with_its_parent() -> None:
    parents = {name: step.parent for name, step in roadmap("tiny").items() if step.parent}
    assert comparisons(roadmap("tiny")) == {"resnet": "resnet_original"} | parents
    assert parents["gelu"] == "kernel_7"
    assert parents["kernel_9"] == "move_up"


def test_mean_spread_and_interval_by_hand() -> None:
    """1 to 5: mean 3, std sqrt(2.5), and t(4 degrees, 97.5 %) = 2.776 in every table."""
    row = summarize(results_of({"gelu": [81, 82, 83, 84, 85]})).set_index("step").loc["gelu"]
    assert (row["seeds"], row["accuracy"]) == (5, 83)
    assert row["std"] == pytest.approx(2.5**0.5)
    assert row["margin"] == pytest.approx(2.776 * 0.5**0.5, abs=5e-4)


def test_the_interval_of_a_difference_is_of_the_pairs() -> None:
    row = compared({"kernel_7": [80, 70, 60], "gelu": [81, 72, 63]}).loc["gelu"]
    assert (row["n"], row["difference"], row["std"]) == (3, 2, 1)
    assert row["margin"] == pytest.approx(4.303 / 3**0.5, abs=5e-4)  # t(2 degrees, 97.5 %)
    theirs = stats.ttest_rel([81, 72, 63], [80, 70, 60])
    assert row["p_t"] == pytest.approx(theirs.pvalue)
    interval = theirs.confidence_interval(0.95)
    assert row["margin"] == pytest.approx((interval.high - interval.low) / 2)
    assert row["p_sign_flip"] == 0.25


def test_only_seeds_that_both_have_are_compared() -> None:
    """A parent's extra seed, far below, moves its own mean and no difference."""
    accuracies = {"kernel_7": [80, 81, None, 10], "gelu": [81, 83, 99, None]}
    row = compared(accuracies).loc["gelu"]
    assert (row["n"], row["difference"]) == (2, 1.5)
    means = summarize(results_of(accuracies)).set_index("step")
    assert means.loc["kernel_7", "accuracy"] == 57
    assert means.loc["gelu", "gain"] == 1.5
    assert list(means.loc[["kernel_7", "gelu", "width"], "seeds"]) == [3, 3, 0]
    assert math.isnan(means.loc["width", "accuracy"])


def test_an_accuracy_that_is_not_a_number_is_a_gap() -> None:
    row = compared({"kernel_7": [80, math.nan], "gelu": [81, 83]}).loc["gelu"]
    assert (row["n"], row["difference"]) == (1, 1)
    assert math.isnan(row["margin"])


@pytest.mark.parametrize(("seeds", "verdict"), [(9, "too few seeds (9 of 10)"), (10, "up")])
def test_the_tenth_seed_makes_a_verdict_possible(seeds, verdict) -> None:
    """A gain that every seed shows, in a study whose other steps have no results."""
    row = compared({"kernel_7": [80] * seeds, "gelu": list(range(81, 81 + seeds))}).loc["gelu"]
    assert row["verdict"] == verdict
    assert row["p_sign_flip_holm"] == min(1, 16 * 2 / 2**seeds)


def test_verdicts_without_seeds() -> None:
    verdicts = compared({"kernel_7": [80], "gelu": [None, 81], "layer_norm": [82]})["verdict"]
    assert verdicts["gelu"] == "too few seeds (0 of 10)"  # none in common
    assert verdicts["layer_norm"] == "too few seeds (0 of 10)"  # its parent has none
    assert verdicts["width"] == "no results"
    assert set(compared({})["verdict"]) == {"no results"}


def test_no_difference_is_within_noise() -> None:
    row = compared({"kernel_7": [80.5] * 11, "gelu": [80.5] * 11}).loc["gelu"]
    assert (row["verdict"], row["p_sign_flip"], row["p_t"]) == ("within noise", 1, 1)


def test_the_sign_flip_test_gives_the_verdict() -> None:
    """Nine gains and a loss of next to nothing: beyond doubt for a t-test, 4 / 1024 x 16 here."""
    row = compared({"kernel_7": [80] * 10, "gelu": [81.0] * 9 + [79.99]}).loc["gelu"]
    assert row["p_t_holm"] < 0.001
    assert row["p_sign_flip_holm"] == 0.0625
    assert row["verdict"] == "within noise"


def test_studies_do_not_mix() -> None:
    table = results_of({"gelu": [80]})
    with pytest.raises(ValueError, match="mix the studies other, quick"):
        compare(pd.concat([table, table.assign(study="other", seed=1)]))
    with pytest.raises(ValueError, match="gelu seed 0 appears twice"):
        compare(pd.concat([table, table]))


# --- The paper ------------------------------------------------------------------------------


def test_the_papers_verdict_is_welchs_test_on_its_printed_numbers() -> None:
    table = compared({})
    for name, parent in comparisons(roadmap("tiny")).items():
        step, before = (roadmap("tiny")[key].paper for key in (name, parent))
        row = table.loc[name]
        assert row["paper_difference"] == pytest.approx(step.top1_mean - before.top1_mean)
        if before.top1_std is None:
            continue
        printed = (step.top1_mean, step.top1_std, 3, before.top1_mean, before.top1_std, 3)
        p = stats.ttest_ind_from_stats(*printed, equal_var=False).pvalue
        assert (row["paper_verdict"] == "within noise") == (p >= 0.05)
    base = compared({}, "base")["paper_verdict"]
    assert base["gelu"] == "down (no std printed)"
