"""Factorials: which networks there are, which are chosen, and how they become a study's runs."""

import itertools
from collections import Counter

import numpy as np
import pytest

from convnext_steps import Network, count_flops, load_study
from convnext_steps.models.decisions import decisions, find_set
from convnext_steps.study import counts
from convnext_steps.study.factorial import Factorial, design_quality, entries, optimal
from convnext_steps.study.toml import write_study

RULES = {"inverted": "depthwise", "move_up": "inverted", "kernel_7": "depthwise"}
SMALL = {
    "factorial.decisions": ["patchify", "depthwise", "gelu"],
    "factorial.require": {"gelu": "depthwise"},
    "how.notebooks": False,
}


def test_the_rules_leave_as_many_networks_as_counted_by_hand() -> None:
    """Depthwise off leaves one way, on leaves three layouts and two kernels: 7 of 16, times 2^8."""
    assert len(Factorial(require=RULES).space.sets) == 7 * 2**8 == 1792
    assert len(Factorial().space.sets) == 3 * 2**10 == 3072
    assert len(Factorial(require=RULES).space.pairs) == 12 * 11 / 2 - 4 == 62


def test_every_allowed_set_can_be_built_and_no_other_can() -> None:
    names = ("depthwise", "inverted", "move_up")
    allowed = {
        frozenset(name.split("+")[1:])
        for name in Factorial(decisions=names).space.names(Factorial(decisions=names).space.sets)
    }
    for size in range(4):
        for chosen in map(frozenset, itertools.combinations(names, size)):
            try:
                find_set("+".join(["resnet", *chosen]))
            except ValueError:
                assert chosen not in allowed
            else:
                assert chosen in allowed


def test_the_quick_factorial_has_what_it_says_in_a_random_order() -> None:
    study = load_study("factorial_quick")
    planned = entries(study.factorial)
    assert Counter(each.part for each in planned) == {"fit": 256, "repeat": 24, "held out": 48}
    fit, repeat, held_out = (
        {each.step for each in planned if each.part == part}
        for part in ("fit", "repeat", "held out")
    )
    assert repeat < fit
    assert not held_out & fit
    chain = ["+".join(["resnet", *list(decisions())[:size]]) for size in range(13)]
    assert set(chain) <= fit
    places = [place for place, each in enumerate(planned) if each.part == "held out"]
    assert abs(np.mean(places) - len(planned) / 2) < 4 * len(planned) / np.sqrt(12 * 48)
    assert len({run.seed for run in study.plan()}) == len(study.plan()) == 328


def test_a_design_is_the_same_each_time_and_another_with_another_seed() -> None:
    one = Factorial(require=RULES, runs=100)
    first = entries(one)
    entries.cache_clear()
    assert entries(one) == first
    other = entries(Factorial(require=RULES, runs=100, seed=1))
    assert {each.step for each in other} != {each.step for each in first}
    seeds = {each.step: each.seed for each in entries(Factorial(require=RULES))}
    assert all(seeds[each.step] == each.seed for each in first)  # whichever others are trained


def test_the_choice_separates_the_effects_better_than_chance() -> None:
    space, rng = Factorial(require=RULES).space, np.random.default_rng(0)
    terms, fixed = space.terms(space.sets), np.zeros(len(space.sets), bool)
    fixed[:13] = True
    chosen = optimal(terms, fixed, 200, rng)
    assert len(set(chosen)) == 200
    assert set(range(13)) <= set(chosen)
    spread = np.linalg.slogdet(terms[chosen].T @ terms[chosen])[1]
    for _ in range(20):
        rows = np.append(np.arange(13), rng.choice(np.arange(13, 1792), 187, replace=False))
        assert np.linalg.slogdet(terms[rows].T @ terms[rows])[1] < spread - 5


def test_a_full_factorial_is_orthogonal_and_its_variances_are_known() -> None:
    """With 2^k runs an effect is a difference of two means of halves: variance 4/n."""
    quality = design_quality(Factorial(decisions=("patchify", "depthwise", "gelu")))
    assert quality.correlation == pytest.approx(0, abs=1e-9)
    assert quality.effects == pytest.approx((4 / 8, 4 / 8))
    assert quality.interactions == pytest.approx((16 / 8, 16 / 8))
    assert design_quality(Factorial(require=RULES, runs=40)).interactions is None


def test_a_factorial_takes_the_place_of_other_steps(tmp_path) -> None:
    study = load_study("smoke").change(SMALL, "small")
    assert set(study.steps()) == {
        *("resnet", "resnet+patchify", "resnet+depthwise", "resnet+patchify+depthwise"),
        *("resnet+depthwise+gelu", "resnet+patchify+depthwise+gelu"),
    }
    (tmp_path / "mine.toml").write_text('base = "smoke"\n[factorial]\ndecisions = ["gelu"]\n')
    assert set(load_study(tmp_path / "mine.toml").steps()) == {"resnet", "resnet+gelu"}
    fewer = load_study("factorial_quick").change({"factorial.runs": 64})
    assert (fewer.name, len(fewer.plan())) == ("factorial_quick_runs_64", 64 + 24 + 48)


def test_any_set_of_decisions_is_a_step_of_a_factorial_with_a_seed_of_its_own() -> None:
    study = load_study("factorial_quick")
    chosen = study.plan(steps=["resnet"])
    assert {run.step for run in chosen} == {"resnet"}
    missing = sorted(set(load_study("factorial_shallow").steps()) - set(study.steps()))[0]
    (run,) = study.plan(steps=[missing])
    assert (run,) == tuple(study.plan([run.seed], [missing]))  # as papermill asks for it
    with pytest.raises(ValueError, match="draw their own seeds"):
        study.plan([0, 1])


def test_counts_are_those_of_fvcore(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runs = load_study("quick").plan(steps=["resnet", "move_up", "separate_downsampling"])
    networks = [Network(run.design, in_channels=1, num_classes=10) for run in runs]
    assert counts.counts(runs) == [count_flops(each, 32).conv_linear for each in networks]


def test_counts_are_remembered(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runs = load_study("smoke").plan()
    first = [counts.counts([run])[0] for run in runs]
    monkeypatch.setattr(counts, "count_on_meta", lambda *_: pytest.fail("counted again"))
    assert counts.counts(runs) == first
    (tmp_path / "convnext_steps" / "counts.json").write_text("{")
    monkeypatch.setattr(counts, "count_on_meta", lambda *_: 7)
    assert counts.counts(runs) == [7, 7]


@pytest.mark.slow
def test_a_factorial_from_the_command_line(tmp_path, monkeypatch, told) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file, results = tmp_path / "small.toml", tmp_path / "results"
    write_study(load_study("smoke").change(SMALL, "small"), file)
    words = ("study", file, "--results", results)
    assert "draw their own seeds" in told(*words, "--seeds", "0-2", code=2).err
    shown = told(*words, "--dry-run").out
    assert "6 runs, a job array of 0-5; 6 are missing" in shown
    assert "6 of 6 networks in the fit; largest correlation" in shown
    told(*words, "--set", "recipe.max_epochs=0.1", "--index", "1")
