"""The craft of ablations: seeds, fit, and readings that are written from the results."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from studies import plan, put, the_study
from test_course import results_of, with_accuracy

from convnext_steps import load_results, load_study
from convnext_steps.course import probe_pictures, rates, readings, seeds
from convnext_steps.models.roadmap import FINISHED, roadmap
from convnext_steps.study import results as results_module
from convnext_steps.study.probes import budget_gains, fit_gaps, paper_gains
from convnext_steps.study.results import PROJECT_RESULTS, all_results
from convnext_steps.study.statistics import compare


def drawn_at_random(seeds: int) -> pd.DataFrame:
    results = results_of(plan("quick", seeds=range(seeds)))
    noise = torch.randn(len(results), generator=torch.Generator().manual_seed(0))
    return with_accuracy(results, pd.Series(50 + noise.numpy(), results.index).astype(float))


def test_a_gain_is_taken_apart_seed_by_seed() -> None:
    results = drawn_at_random(5)
    table = seeds.pairs_of_seeds(results, "gelu")
    by_hand = results[results["step"] == "gelu"].set_index("seed")["accuracy"]
    assert list(table.columns) == ["kernel_7", "gelu", "gain"]
    assert list(table["gelu"]) == list(by_hand.loc[range(5)])
    row = seeds.pairing(results).loc["ReLU -> GELU"]
    covariance = table[["kernel_7", "gelu"]].cov().iloc[0, 1]
    assert row["paired"] ** 2 == pytest.approx(row["unpaired"] ** 2 - 2 * covariance)
    interval = stats.ttest_1samp(table["gain"], 0).confidence_interval()
    half = (interval.high - interval.low) / 2
    picture = seeds.draw_pairs_of_seeds(results, "gelu")
    assert f"half the width of the mean's interval {half:.2f}" in picture.alternative
    with pytest.raises(ValueError, match="'resnet_original' is not compared"):
        seeds.pairs_of_seeds(results, "resnet_original")


def test_every_smaller_study_is_asked() -> None:
    """Against scipy's interval for each choice of three of the five seeds, one by one."""
    results = drawn_at_random(5)
    row = seeds.smaller_studies(results, 3).loc["BN -> LN"]
    gains = seeds.pairs_of_seeds(results, "layer_norm")["gain"]
    chosen = [list(each) for each in itertools.combinations(gains, 3)]
    side = 1 if gains.mean() > 0 else -1
    intervals = [stats.ttest_1samp(each, 0).confidence_interval() for each in chosen]
    lows, highs = [each.low * side for each in intervals], [each.high * side for each in intervals]
    assert row["same sign %"] == 10 * sum(side * sum(each) > 0 for each in chosen)
    excluded = [min(low, high) > 0 for low, high in zip(lows, highs, strict=True)]
    assert row["excludes zero, same sign %"] == 10 * sum(excluded)
    few = seeds.smaller_studies(drawn_at_random(2), 3)
    assert few["same sign %"].isna().all()


def stored_lines(name: str) -> list[dict]:
    text = (PROJECT_RESULTS / name / "runs.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_the_fit_is_read_from_result_files_and_nan_where_they_lack_it() -> None:
    table = all_results(PROJECT_RESULTS).set_index("hash")
    lines = stored_lines("quick_sweep_learning_rate_0.004")
    line = next(line for line in lines if line["step"] == "resnet")
    row = table.loc[line["hash"]]
    assert row["fit_accuracy"] == line["fit"]["accuracy"]
    assert row["fit_loss"] == line["fit"]["loss"]
    older = table.loc[stored_lines("standard")[0]["hash"]]
    assert math.isnan(older["fit_accuracy"])
    assert set(results_module.COLUMNS) == {*table.columns, "hash"}


def with_fit(gaps: dict[int, float], step: str) -> pd.DataFrame:
    """Results of quick, of which one step has been measured on training images, by seed."""
    results = results_of(plan("quick", seeds=range(3))).assign(loss=0.5, fit_loss=0.4)
    known = results["seed"].map(gaps).where(results["step"] == step)
    return results.assign(fit_accuracy=results["accuracy"] + known)


def test_fit_and_gap_are_paired_by_seed() -> None:
    results = with_fit({0: 1.0, 2: 4.0}, "gelu")
    table = fit_gaps(results)
    assert list(table.index) == ["gelu"]
    interval = stats.ttest_1samp([1.0, 4.0], 0).confidence_interval()
    assert dict(table.loc["gelu", ["seeds", "training", "test", "gap"]]) == {
        "seeds": 2,
        "training": 82.5,
        "test": 80.0,
        "gap": 2.5,
    }
    losses = table.loc["gelu", ["training loss", "test loss"]]
    assert losses.tolist() == pytest.approx([0.4, 0.5])
    assert table.loc["gelu", "margin"] == pytest.approx((interval.high - interval.low) / 2)
    assert "widest for gelu (+2.50 ±" in readings.read_fit(results)
    drawn = probe_pictures.draw_fit(results)
    assert "ReLU -> GELU 82.50 and 80.00" in drawn.alternative
    mine = {label: pd.DataFrame({"resnet+gelu": [value]}) for label, value in (("a", 1), ("b", 2))}
    assert "resnet+gelu 1.00 and 2.00" in probe_pictures.draw_pairs(mine, "points").alternative


def test_without_the_fit_one_line_says_what_to_train() -> None:
    old = load_results("quick", "nowhere", [0, 1, 2])
    assert fit_gaps(old).empty
    assert "`convnext-steps study quick --seeds 3-5`" in readings.read_fit(old)


def test_the_studies_with_mixing_and_without_differ_in_nothing_else() -> None:
    bare, mixed = load_study("cifar10_jpeg_bare"), load_study("cifar10_jpeg_mixed")
    assert list(bare.steps()) == ["resnet", "fewer_activations", "separate_downsampling"]
    same = mixed.change({f"recipe.{name}": 0.0 for name in ("mixup", "cutmix", "random_erasing")})
    assert same.recipe == bare.recipe
    assert (same.data, same.scale, same.only) == (bare.data, bare.scale, bare.only)
    assert (mixed.recipe.mixup, mixed.recipe.cutmix, mixed.recipe.random_erasing) == (0.8, 1, 0.25)


@pytest.mark.parametrize(("number", "comparisons"), [(2, 1), (3, 12), (5, 16), (9, 16)])
def test_what_few_seeds_can_prove_is_what_scipys_permutation_test_can(number, comparisons) -> None:
    test = stats.permutation_test(
        (np.ones(number),), np.sum, permutation_type="samples", n_resamples=10_000
    )
    words = readings.floor(number, comparisons)
    assert f"fall below {test.pvalue:.2g}" in words
    assert f"{comparisons} comparisons need" in words
    assert "are enough for a verdict" in readings.floor(10, 16)


def test_leave_one_out_names_its_largest_effect_and_what_is_not_at_equal_cost() -> None:
    results = load_results("standard_quarter_leave_one_out", "nowhere")
    table = compare(results)
    text = readings.read_gains(table)
    lines = stored_lines("standard_quarter_leave_one_out")

    def accuracy(step: str) -> float:
        return np.mean([line["accuracy"] for line in lines if line["step"] == step])

    removed = {step: accuracy(step) - accuracy(FINISHED) for step in {ln["step"] for ln in lines}}
    best = max(removed, key=removed.get)
    assert f"**Highest:** {roadmap('leave_one_out')[best].title} {removed[best]:+.2f} ±" in text
    assert "fall below 0.25, and 12 comparisons need 9 seeds" in text
    macs = {step.name: 1.0 for step in roadmap("leave_one_out").values()}
    costs = pd.Series({**macs, "without_depthwise": 6.7, "without_gelu": 1.05})
    words = readings.read_costs(table, costs, FINISHED)
    assert "without depthwise conv (6.7 ×)" in words
    assert "GELU" not in words


def test_a_step_is_read_with_its_interval() -> None:
    results = drawn_at_random(5)
    gains = seeds.pairs_of_seeds(results, "gelu")["gain"]
    interval = stats.ttest_1samp(gains, 0).confidence_interval()
    text = readings.read_step(results, "gelu")
    assert f"from {interval.low:+.2f} to {interval.high:+.2f}" in text
    zero = "excludes" if interval.low > 0 or interval.high < 0 else "includes"
    assert f"{zero} zero" in text
    assert readings.read_step(results[results["step"] != "gelu"], "gelu") == readings.NOTHING
    assert "without an interval" in readings.read_step(drawn_at_random(1), "gelu")


def test_a_gain_that_changes_its_sign_with_the_budget_is_named() -> None:
    tables = [load_results(name, "nowhere") for name in ("standard_sixteenth", "standard")]
    budget = budget_gains(tables)
    means = budget.groupby(["step", "images"])["gain"].mean().unstack()
    turned = {step for step, row in means.iterrows() if row.iloc[0] * row.iloc[-1] < 0}
    text = readings.read_trends(budget)
    (line,) = [line for line in text.splitlines() if "change their sign" in line]
    assert {step for step in means.index if f" {step} (" in line} == turned
    sure = {
        step
        for step in turned
        if all(
            stats.ttest_1samp(part["gain"], 0).pvalue < 0.05
            for _, part in budget[budget["step"] == step].groupby("images")
        )
    }
    assert set(line.rpartition(" for ")[2].rstrip(".").split(", ")) == sure
    assert "between -0.65 and 0.65 in 95 % of cases" in readings.read_likeness(budget)


def test_what_chance_alone_reaches_is_simulated_with_the_parents_that_steps_share() -> None:
    steps, paper = roadmap(), paper_gains().dropna()
    rng, reached = np.random.default_rng(1), []
    for _ in range(1000):
        accuracy = dict(zip(steps, rng.normal(size=len(steps)), strict=True))
        ours = [accuracy[name] - accuracy[steps[name].parent] for name in paper.index]
        reached.append(abs(stats.spearmanr(ours, paper).statistic))
    limit = readings.chance_likeness(paper.index)
    assert np.mean(np.array(reached) > limit) == pytest.approx(0.05, abs=0.02)


def test_regularisation_is_read_on_training_and_on_test_images() -> None:
    bare, mixed = with_fit({0: 3.0, 1: 3.0}, "gelu"), with_fit({0: 1.0, 1: 2.0}, "gelu")
    (line,) = [ln for ln in readings.read_regularisation(bare, mixed).splitlines() if "gelu" in ln]
    assert line.startswith("- **gelu:** -1.50 ± ")
    assert "points on the training images, +0.00 ± 0.00 points on the test images" in line


@pytest.mark.parametrize(
    "read",
    [
        readings.read_fit,
        lambda empty: readings.read_gains(compare(empty)),
        lambda empty: readings.read_regularisation(empty, empty),
        lambda empty: readings.read_trends(budget_gains([])),
        lambda empty: readings.read_likeness(budget_gains([])),
    ],
)
def test_without_results_a_reading_says_so(read, tmp_path) -> None:
    empty = load_results(the_study("smoke"), tmp_path)
    assert read(empty) == readings.NOTHING


def test_the_finished_network_is_compared_with_resnet_study_by_study() -> None:
    tables = [load_results(name) for name in ("standard", "cifar10_jpeg_gpu")]
    lines = readings.read_sizes(tables).splitlines()
    for table, line in zip(tables, lines, strict=True):
        ends = [table[table["step"] == step] for step in ("separate_downsampling", "resnet")]
        last, first = (each.set_index("seed")["accuracy"] for each in ends)
        assert f"{(last - first).mean():+z.2f}" in line
    assert "standard:** " in lines[0]
    assert "(10 seeds)" in lines[0]
    assert "(1 seed)" in lines[1]
    assert readings.read_sizes([tables[0].iloc[:0]]) == readings.NOTHING


def test_what_tuning_adds_is_told_from_a_gain_at_one_rate(tmp_path) -> None:
    """Made-up accuracies: a step that gains at any rate, and one that gains by its own rate."""
    pairs = {"inverted": "width", "layer_norm": "fewer_norms"}
    own = {"inverted": 0.004, "width": 0.004, "layer_norm": 0.008, "fewer_norms": 0.004}
    noise = np.random.default_rng(0).integers(0, 20, (10, 4)) / 100
    for seed, (width, inverted, norms, layer_norm) in enumerate(noise):
        accuracy = {"width": 80 + width, "inverted": 82 + inverted}
        accuracy |= {"fewer_norms": 80 + norms, "layer_norm": 80 + norms}
        for run in plan("quick", steps=list(own), seeds=[seed]):
            put(run, tmp_path, round(accuracy[run.step], 2))
        tuned = the_study().change({"recipe.learning_rate": 0.008})
        for run in tuned.plan([seed], ["layer_norm"]):
            put(run, tmp_path, round(81 + layer_norm, 2))
    tables = rates.results_at("quick", own, tmp_path, range(10))
    table = rates.compare_tuned(tables, pairs, own)
    assert list(table["verdict"]) == ["up", "up", "within noise", "within noise", "up", "up"]
    gains = rates.tuned_gains(tables, pairs, own)["each at its own"]
    interval = stats.ttest_1samp(gains["layer_norm"], 0).confidence_interval()
    row = table.loc["layer_norm", "each at its own"]
    assert row["gain"] == pytest.approx(1 + noise[:, 3].mean() - noise[:, 2].mean())
    assert row["margin"] == pytest.approx((interval.high - interval.low) / 2)
    assert row["p"] == pytest.approx(6 * 2 / 2**10)  # Holm: the smallest of six
    change = rates.change_at_own(tables, own)
    assert list(change.index) == ["layer_norm"]  # the others' own rates are the study's
    assert change.loc["layer_norm", "change"] == pytest.approx(row["gain"])
    assert change.loc["layer_norm", "higher"] == 10
    assert "**layer_norm over fewer_norms:** all at 0.004 +0.00 ±" in readings.read_tuning(
        table, pairs
    )
    del own["fewer_norms"]
    assert set(rates.tuned_gains(tables, pairs, own)["all at 0.004"]) == {"inverted"}
    few = rates.compare_tuned(rates.results_at("quick", own, tmp_path, range(3)), pairs, own)
    assert set(few["verdict"]) == {"too few seeds (3 of 7)"}
