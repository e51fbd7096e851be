"""Several runs by turns in one process: each computes what it computes alone."""

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from studies import plan, results_without_times

from convnext_steps import How, load_weights
from convnext_steps.execution.backends import Outcome
from convnext_steps.execution.lock import HeldError
from convnext_steps.execution.pool import Crew, PoolAttempt
from convnext_steps.execution.runfolder import WEIGHTS
from convnext_steps.execution.turns import Turns
from convnext_steps.execution.work import do_run, run_steps
from convnext_steps.study.results import RESULT, read_result


def to_the_end(turns: Turns, limit: int = 10_000) -> None:
    for _ in range(limit):
        if not turns.busy:
            return
        turns.go_on()
    raise AssertionError("the turns do not end")


def test_runs_by_turns_compute_what_each_computes_alone(tmp_path) -> None:
    runs = plan("smoke", seeds=[0, 1])
    runs = [
        replace(run, config=replace(run.config, max_epochs=0.5, mixup=0.4, drop_path_rate=0.2))
        for run in runs
    ]
    for run in runs:
        do_run(run, tmp_path / "alone")
    ended = []
    turns = Turns(lambda *end: ended.append(end))
    for key, run in enumerate(runs):
        turns.add(key, lambda run=run: run_steps(run, tmp_path / "together"))
        turns.go_on()  # they do not begin together
    to_the_end(turns)
    assert sorted(ended) == [(key, None) for key in range(len(runs))]
    alone, together = (results_without_times(tmp_path / name) for name in ("alone", "together"))
    assert len(alone) == len(runs)
    assert together == alone


def draws(count: int, error: Exception | None = None):
    """A piece of work that draws random numbers, and the numbers of each attempt."""
    seen: list[list[float]] = []

    def steps():
        random.seed(count), np.random.seed(count), torch.manual_seed(count)
        seen.append([])
        for _ in range(count):
            seen[-1] += [random.random(), np.random.rand(), torch.rand(()).item()]
            yield
        if error is not None:
            raise error

    return steps, seen


def test_random_numbers_are_those_of_one_piece_of_work_alone() -> None:
    works = [draws(count) for count in (3, 7, 5)]
    turns = Turns(lambda key, error: None)
    for key, (steps, _) in enumerate(works):
        turns.add(key, steps)
    to_the_end(turns)
    together = [seen for _, seen in works]
    for steps, seen in works:
        list(steps())
        assert seen[0] == seen[1]
    assert len({numbers[0][0] for numbers in together}) == 3


def test_what_fails_beside_others_is_tried_again_alone() -> None:
    order = []

    def named(name, steps):
        def begin():
            for step in steps():
                order.append(name)
                yield step

        return begin

    failing, seen = draws(2, RuntimeError("out of memory"))
    ended = []
    turns = Turns(lambda *end: ended.append(end))
    turns.add(0, named("a", failing))
    turns.add(1, named("b", draws(6)[0]))
    turns.add(2, named("c", draws(3)[0]))
    for _ in range(4):
        turns.go_on()
    turns.add(3, named("d", draws(2)[0]))  # has to wait until the failed one has been alone
    to_the_end(turns)
    assert [(key, str(error)) for key, error in ended if error] == [(0, "out of memory")]
    assert [key for key, _ in ended] == [2, 1, 0, 3]
    assert len(seen) == 2
    assert [name for name, _ in itertools.groupby(order)][-2:] == ["a", "d"]


def test_what_fails_alone_or_is_anothers_is_told_at_once() -> None:
    ended = []
    turns = Turns(lambda *end: ended.append(end))
    turns.add(0, draws(1, RuntimeError("why"))[0])
    to_the_end(turns)
    turns.add(1, draws(1, HeldError("another's"))[0])
    turns.add(2, draws(3)[0])
    to_the_end(turns)
    assert [(key, type(error)) for key, error in ended] == [
        (0, RuntimeError),
        (1, HeldError),
        (2, type(None)),
    ]


@pytest.mark.slow
def test_a_process_that_dies_fails_all_of_its_runs(tmp_path) -> None:
    crew = Crew(None)
    attempts = [PoolAttempt(crew, crew.begin(run, tmp_path)) for run in plan("smoke")]
    assert [attempt.outcome() for attempt in attempts] == [None, None]
    crew.process.kill()
    crew.process.join()
    assert [attempt.outcome() for attempt in attempts] == [
        Outcome("failed", "its process died")
    ] * 2
    assert not crew.alive


def test_the_trained_weights_are_kept_where_that_is_asked_for(tmp_path) -> None:
    (run,) = plan("smoke", steps=["resnet"])
    run = replace(run, how=How(keep_weights=True))
    do_run(run, tmp_path)
    folder = run.folder(tmp_path)
    result = read_result(folder / RESULT)
    train, test = run.load_data()
    model = run.build(train).eval()
    load_weights(model, folder / WEIGHTS)
    mean, std = torch.tensor(test.mean), torch.tensor(test.std)
    with torch.no_grad():
        logits = model((test.images.float() / 255 - mean) / std)
    assert int((logits.argmax(1) == test.labels).sum()) == result["correct"]
    assert sorted(path.suffix for path in folder.iterdir()) == [
        ".json",
        ".jsonl",
        ".lock",
        ".safetensors",
    ]
