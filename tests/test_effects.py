"""The statistics of a factorial: against brute force, and on accuracies whose effects are known."""

import io
import itertools
import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from convnext_steps import load_results, load_study
from convnext_steps.models.decisions import decisions, set_name
from convnext_steps.study import effects as effects_of
from convnext_steps.study import networks, orders
from convnext_steps.study.effect_comparison import compare_effects
from convnext_steps.study.effect_plots import (
    plot_credits,
    plot_effects,
    plot_front,
)
from convnext_steps.study.effect_tables import effect_report
from convnext_steps.study.effects import (
    Analysis,
    analyse,
    credit_over_orders,
    interactions,
    main_effects,
    models,
    sign_depends,
    values,
)
from convnext_steps.study.factorial import Factorial, entries
from convnext_steps.study.results import PROJECT_RESULTS
from convnext_steps.study.space import Space

RULES = {"inverted": "depthwise", "move_up": "inverted", "kernel_7": "depthwise"}
FIVE = Space(
    ("depthwise", "width", "inverted", "move_up", "gelu"),
    frozenset({("inverted", "depthwise"), ("move_up", "inverted")}),
)


def table_of(study, accuracy) -> pd.DataFrame:
    """Results of a factorial whose accuracies are given: one per run, in the order of its plan."""
    planned = entries(study.factorial)
    table = pd.DataFrame(planned, columns=["step", "seed", "part"]).drop(columns="part")
    costs = {"loss": 1.0, "macs": np.arange(len(table)) + 1, "params": 7, "training_seconds": 2.0}
    table = table.assign(study=study.name, accuracy=accuracy, **costs)
    table.attrs["study"] = study
    return table


def all_orders(space: Space, known: np.ndarray) -> Iterator[tuple[tuple[str, ...], list[float]]]:
    """Every order that the rules allow, by trying all, with the values of the sets on its way."""
    value = dict(zip(space.codes(space.sets).tolist(), known, strict=True))
    for order in itertools.permutations(range(len(space.decisions))):
        codes = np.cumsum([0, *(1 << place for place in order)]).tolist()
        if all(code in value for code in codes):
            yield tuple(space.decisions[place] for place in order), [value[code] for code in codes]


def test_the_orders_of_the_paper_are_as_many_as_the_rules_leave() -> None:
    """Of depthwise, inverted, move_up and kernel_7 three of 24 orders are left: 12! / 8."""
    assert orders.number_of_orders(Factorial(require=RULES).space) == math.factorial(12) // 8
    assert math.factorial(12) // 8 == 59_875_200
    assert orders.number_of_orders(Factorial().space) == math.factorial(12) // 2


def test_credits_agree_with_brute_force_on_five_decisions() -> None:
    known = np.random.default_rng(0).normal(size=len(FIVE.sets))
    gained = {
        order: dict(zip(order, np.diff(passed), strict=True))
        for order, passed in all_orders(FIVE, known)
    }
    assert orders.number_of_orders(FIVE) == len(gained) == 120 // 6
    for row in orders.credits(FIVE, known).itertuples():
        gains = np.array([each[row.decision] for each in gained.values()])
        assert row.mean == pytest.approx(gains.mean())
        assert (row.smallest, row.largest) == pytest.approx((gains.min(), gains.max()))
        assert row.negative == pytest.approx((gains < 0).mean())
        for order, credit in ((row.smallest_order, gains.min()), (row.largest_order, gains.max())):
            assert gained[tuple(order.split())][row.decision] == pytest.approx(credit)


def test_the_best_and_the_worst_order_agree_with_brute_force() -> None:
    for seed in range(5):
        known = np.random.default_rng(seed).normal(size=len(FIVE.sets))
        sums = {order: sum(passed) for order, passed in all_orders(FIVE, known)}
        assert orders.best_and_worst(FIVE, known) == (
            max(sums, key=sums.get),
            min(sums, key=sums.get),
        )


def test_credits_add_up_and_nothing_gets_nothing_and_equals_get_the_same() -> None:
    space = Factorial(require=RULES).space
    places = {name: place for place, name in enumerate(space.decisions)}
    rng = np.random.default_rng(1)
    twins, rows = ["gelu", "layer_norm"], space.sets.copy()
    rows[:, places["width"]] = 0  # does nothing
    rows[:, [places[name] for name in twins]] = 0
    both = space.sets[:, [places[name] for name in twins]].sum(1)
    key = space.codes(rows)
    known = rng.normal(size=2**12)[key] + rng.normal(size=(2**12, 3))[key, both.astype(int)]
    table = orders.credits(space, known).set_index("decision")
    assert table["mean"].sum() == pytest.approx(known[-1] - known[0])
    assert table["paper"].sum() == pytest.approx(known[-1] - known[0])
    assert list(table.loc["width", ["mean", "smallest", "largest"]]) == pytest.approx([0, 0, 0])
    columns = ["mean", "smallest", "largest", "negative", "q05", "q95"]
    assert list(table.loc["gelu", columns]) == pytest.approx(list(table.loc["layer_norm", columns]))
    assert (orders.mean_weights(space) @ known).tolist() == pytest.approx(table["mean"].tolist())


def simulated(seed: int, noise: float = 0.5) -> tuple[Analysis, np.ndarray, pd.DataFrame]:
    """An analysis of accuracies with known coefficients: main effects, and ten interactions."""
    study, rng = load_study("factorial_quick"), np.random.default_rng(seed)
    space = study.factorial.space
    coefficients = np.zeros(1 + 12 + len(space.pairs))
    coefficients[:13] = [85, *np.random.default_rng(5).normal(scale=2, size=12)]
    coefficients[13:23] = np.random.default_rng(6).choice([-2, 2], 10)
    rows = space.rows(each.step for each in entries(study.factorial))
    accuracy = space.terms(rows) @ coefficients + rng.normal(scale=noise, size=len(rows))
    table = table_of(study, accuracy)
    return analyse(table), coefficients, table


def test_known_effects_are_found_within_their_intervals_at_the_stated_rate() -> None:
    inside, pairs_inside, false_found, missed = [], [], [], []
    for seed in range(40):
        analysis, coefficients, _ = simulated(seed)
        space = analysis.space
        truth = []
        for decision in range(12):  # by its definition, from the true values
            without, taken = space.contexts(decision)
            gains = (space.terms(taken) - space.terms(without)) @ coefficients
            truth.append(gains.mean())
        effects = main_effects(analysis)
        inside += list((effects["low"] <= truth) & (truth <= effects["high"]))
        pairs = interactions(analysis)
        names = [tuple(space.decisions[place] for place in pair) for pair in space.pairs]
        order = [names.index(pair) for pair in zip(pairs.decision, pairs.other, strict=True)]
        true = coefficients[13:][order]
        pairs_inside += list((pairs["low"] <= true) & (true <= pairs["high"]))
        false_found.append((pairs["found"] & (true == 0)).sum() / max(pairs["found"].sum(), 1))
        missed.append((~pairs["found"] & (true != 0)).sum())
    assert abs(np.mean(inside) - 0.95) < 0.03
    assert abs(np.mean(pairs_inside) - 0.95) < 0.02
    assert np.mean(false_found) < 0.08
    assert np.mean(missed) < 0.1


def test_models_are_judged_by_pure_error_and_by_what_was_held_out() -> None:
    analysis, *_ = simulated(0)
    table = models(analysis).set_index("model")
    assert list(table["terms"]) == [13, 75]
    assert list(table["runs"]) == [280, 280]
    assert table.loc["additive", "p"] < 1e-6  # it lacks the interactions
    assert table.loc["interactions", "p"] > 0.001
    assert 0.4 < table.loc["interactions", "error"] < 0.75  # of noise 0.5
    assert table.loc["additive", "error"] > 2 * table.loc["interactions", "error"]
    assert 0.35 < table.loc["additive", "pure_sd"] < 0.65
    assert table.loc["interactions", "r2_paper"] > table.loc["additive", "r2_paper"]


def test_a_set_is_worth_what_was_measured_else_what_the_model_says() -> None:
    analysis, _, table = simulated(0)
    known, errors, measured = values(analysis)
    assert measured.sum() == table["step"].nunique() == 304
    linear, own = np.split(errors, [len(analysis.runs)], axis=1)
    assert known == pytest.approx(linear @ analysis.runs["accuracy"])
    assert (own.sum(1) == ~measured).all()
    names = np.array(analysis.space.names(analysis.space.sets))
    means = table.groupby("step")["accuracy"].mean()
    assert known[measured] == pytest.approx(means[names[measured]].to_numpy())
    predicted = analysis.best.predict(analysis.space.terms(analysis.space.sets))
    assert known[~measured] == pytest.approx(predicted[~measured])


@pytest.mark.parametrize("own", [0.0, 1.0])
def test_the_bootstrap_holds_credits_at_the_stated_rate(own, monkeypatch) -> None:
    """Also where each network differs from the model by something of its own."""
    monkeypatch.setattr(effects_of, "DRAWS", 400)
    inside, paper_inside = [], []
    for seed in range(20):
        _, coefficients, table = simulated(seed)
        space, rng = load_study("factorial_quick").factorial.space, np.random.default_rng(seed)
        lacks = rng.normal(scale=own, size=len(space.sets))
        lacking = dict(zip(space.names(space.sets), lacks, strict=True))
        table["accuracy"] += table["step"].map(lacking)
        known = space.terms(space.sets) @ coefficients + lacks
        true, papers = orders.mean_weights(space) @ known, orders.paper_credits(space, known)
        # without the first, some of the paper's networks are predicted
        credit = credit_over_orders(analyse(table.iloc[100:]))
        inside += list((credit["mean_low"] <= true) & (true <= credit["mean_high"]))
        paper_inside += list((credit["paper_low"] <= papers) & (papers <= credit["paper_high"]))
        assert credit["mean"].sum() == pytest.approx(credit["paper"].sum())
    assert abs(np.mean(inside) - 0.95) < 0.05
    assert np.mean(paper_inside) > 0.9


def test_where_decisions_add_up_none_is_said_to_depend_on_the_order() -> None:
    study, depend = load_study("factorial_quick"), 0
    space = study.factorial.space
    rows = space.rows(each.step for each in entries(study.factorial))
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(size=len(rows))
        for effects in (np.zeros(12), np.linspace(-3, 3, 12)):
            depend += sign_depends(analyse(table_of(study, 85 + rows @ effects + noise))).sum()
    assert depend <= 2
    gelu, norms = (space.decisions.index(name) for name in ("gelu", "fewer_norms"))
    crossed = 85 + 3 * (rows[:, gelu] - 0.5) * (rows[:, norms] - 0.5) + 0.3 * noise
    found = sign_depends(analyse(table_of(study, crossed)))
    assert list(np.flatnonzero(found)) == sorted((gelu, norms))


def test_the_front_is_what_no_cheaper_network_beats() -> None:
    study = load_study("smoke").change({"factorial.decisions": ["gelu", "width"]}, "two")
    table = table_of(study, [50.0, 60.0, 55.0, 60.0])
    found = networks.networks(table).set_index("macs")["front"]
    assert found.to_dict() == {1: True, 2: True, 3: False, 4: True}


def test_effects_from_the_command_line_in_a_folder(tmp_path, monkeypatch, told) -> None:
    study = load_study("factorial_quick")
    _, _, table = simulated(0)
    monkeypatch.setattr("convnext_steps.cli.options.load_results", lambda *_: table)
    words = ("effects", "factorial_quick", "--results", tmp_path)
    shown = told(*words).out
    assert "## Credit over all 59,875,200 orders" in shown
    assert "304 of the 1,792 networks are measured" in shown
    assert "| decision | with | interaction | p | p, corrected |" in shown
    runs = networks.networks(table)
    on = runs[runs["step"] == set_name(decisions())]["front"].all()
    assert f"with every decision is {'on' if on else 'not on'} the front" in shown
    written = {path.name for path in (tmp_path / study.name).iterdir()}
    assert {"effects.md", "effects.csv", "credits.png", "front.svg", "interactions.png"} <= written
    flat = pd.read_csv(tmp_path / study.name / "networks.csv")
    assert list(flat) == [
        *("step", *study.factorial.space.decisions, "part", "seed", "accuracy", "loss", "macs"),
        *("params", "seconds", "paper", "front"),
    ]
    both = flat.merge(table, on=["step", "seed"], suffixes=("", "_given"))
    assert len(both) == len(flat) == len(table)
    assert both["accuracy"].to_numpy() == pytest.approx(both["accuracy_given"].to_numpy())
    table.attrs["study"] = load_study("smoke")
    assert "smoke is not a factorial" in told(*words, code=2).err


def test_what_differs_between_two_factorials_is_found_and_nothing_else() -> None:
    """A decision that gains 1.5 points more, in one of two factorials with noise of their own."""
    found = []
    for seed in range(10):
        one, _, _ = simulated(seed)
        _, _, table = simulated(100 + seed)
        gelu = load_study("factorial_quick").factorial.space.decisions.index("gelu")
        rows = one.space.rows(table["step"])
        other = table_of(table.attrs["study"], table["accuracy"] + 1.5 * rows[:, gelu])
        differences = compare_effects({"one": one, "other": analyse(other)})
        found.append(differences["found"].to_numpy())
        assert differences.loc[differences["found"], "decision"].iloc[0] == "gelu"
        assert list(differences["other"]).count("") == 12
    assert np.mean(found) < 1 / len(found[0]) + 0.01


def test_two_effects_differ_by_what_welch_says() -> None:
    (one, _, _), (_, _, table) = simulated(0), simulated(1, noise=1.0)
    other = analyse(table.iloc[:250])
    row = compare_effects({"one": one, "other": other}).iloc[7]
    given = []
    for analysis in (other, one):
        effect, free = main_effects(analysis).iloc[7], analysis.best.df_resid
        margin = (effect["high"] - effect["low"]) / 2
        sd = margin / stats.t.ppf(0.975, free) * np.sqrt(free + 1)
        given += [effect["effect"], sd, free + 1]
    assert other.best.df_resid < one.best.df_resid
    assert row["p"] == pytest.approx(stats.ttest_ind_from_stats(*given, equal_var=False).pvalue)
    assert row["difference"] == pytest.approx(given[0] - given[3])
    assert row["difference"] == pytest.approx(row["effect"] - row["first_effect"])
    few = compare_effects({"one": one, "other": analyse(table.iloc[:60])})
    assert len(few) == 12  # the other has too few runs for interactions
    assert few.loc[0, "first_effect"] == one.models["additive"].params[1]


def test_factorials_beside_each_other_from_the_command_line(tmp_path, monkeypatch, told) -> None:
    tables = {"factorial_quick": simulated(0)[2]}
    shallow = load_study("factorial_shallow")
    space = shallow.factorial.space
    accuracy = 80 + space.rows(shallow.steps()) @ np.arange(12)
    tables["factorial_shallow"] = table_of(
        shallow, accuracy + np.random.default_rng(0).normal(0, 0.1, len(accuracy))
    )
    load = "convnext_steps.cli.options.load_results"
    monkeypatch.setattr(load, lambda study, _: tables[study.name])
    names = ["factorial_quick", "factorial_shallow"]
    shown = told("compare", *names, "--output", tmp_path / "both").out
    assert "| decision | with | study | in factorial_quick | effect | difference |" in shown
    assert "factorial_shallow: 304 of its networks were trained in factorial_quick too" in shown
    written = {path.name for path in (tmp_path / "both").iterdir()}
    assert written == {"comparison.md", "comparison.png", "comparison.svg"}
    tables["factorial_quick"] = tables["factorial_quick"].iloc[:60]
    assert "by additive models (too few runs for others): each" in told("compare", *names).out
    assert "a comparison needs two studies or more" in told("compare", names[0], code=2).err
    error = told("compare", *names, names[0], code=2).err
    assert "2 studies are named factorial_quick: name each once" in error


def test_a_beginning_is_too_few_or_additive_and_a_plain_study_is_no_factorial() -> None:
    _, _, table = simulated(0)
    with pytest.raises(ValueError, match="0 runs are too few to tell 12 effects apart"):
        analyse(table.iloc[:0])
    with pytest.raises(ValueError, match="9 runs are too few to tell 12 effects apart"):
        analyse(table.iloc[:10])
    assert list(analyse(table.iloc[:140]).models) == ["additive"]  # more runs than terms: too few
    analysis = analyse(table.iloc[:60])
    assert list(analysis.models) == ["additive"]
    assert interactions(analysis).empty
    credit = credit_over_orders(analysis)
    for figure in (
        plot_effects({"one": main_effects(analysis)}),
        plot_credits(credit),
        plot_front(analysis),
    ):
        assert figure.axes
    text, _ = effect_report(analysis)
    assert "too few runs for interactions" in text
    decisions = analysis.runs.loc[analysis.runs["paper"], "step"].str.count(r"\+")
    assert {int(label.get_text()) for label in figure.axes[0].texts} == set(decisions)
    assert 0 < decisions.nunique() < 13


@pytest.mark.slow
@pytest.mark.parametrize("study", ["factorial_quick", "factorial_shallow"])
def test_the_published_effects_are_of_the_published_runs(study, tmp_path) -> None:
    """Up to what another CPU or another SciPy rounds otherwise."""
    analysis = analyse(load_results(study, tmp_path))
    for name, table in effect_report(analysis)[1].items():
        published = pd.read_csv(PROJECT_RESULTS / study / f"{name}.csv")
        ours = pd.read_csv(io.StringIO(table.to_csv(index=False)))
        pd.testing.assert_frame_equal(ours, published, rtol=1e-6, atol=1e-6)
