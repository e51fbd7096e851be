"""The training of a run by several processes, which torchrun starts (gloo)."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from studies import plan, processes, wait_for

from convnext_steps import How, count_flops
from convnext_steps.execution.train_run import TRAINED, Trained, training_steps
from convnext_steps.execution.work import result_from
from convnext_steps.study.plan import Run
from convnext_steps.training.stepwise import finish
from convnext_steps.training.trainer import seed_everything

pytestmark = pytest.mark.slow


def train(run: Run, output) -> Trained:
    seed_everything(run.seed)
    images, test = run.load_data()
    return finish(training_steps(run, run.build(images), images, test, output))


def test_two_processes_train_a_run_as_one_does(tmp_path, capsys) -> None:
    """Without augmentation, which each process draws for itself."""
    (run,) = plan("smoke", steps=["separate_downsampling"])
    run = replace(run, config=replace(run.config, random_shift=0))
    one = train(run, tmp_path / "one")
    two = train(replace(run, how=How(processes=2)), tmp_path / "two")
    assert "32/32" in capsys.readouterr().out
    assert two.steps == one.steps == 32
    assert two.evaluation.count == one.evaluation.count == 512
    assert two.evaluation.correct == one.evaluation.correct
    assert two.evaluation.loss == pytest.approx(one.evaluation.loss, abs=1e-6)
    for ours, theirs in zip(two.history, one.history, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)

    count = count_flops(run.build(run.load_data()[0]), resolution=32)
    result = result_from(replace(run, how=How(processes=2)), count, two)
    assert (result["hash"], result["environment"]["processes"]) == (run.hash, 2)
    again = train(replace(run, how=How(processes=2)), tmp_path / "two")
    assert (again.evaluation, again.history) == (two.evaluation, two.history)
    assert not (tmp_path / "two" / TRAINED).exists()


PROGRAM = """
import sys
from dataclasses import replace
from convnext_steps import How, load_study
from pathlib import Path
from convnext_steps.execution.train_run import training_steps
(run,) = load_study("smoke").plan(steps=["separate_downsampling"])
images, test = run.load_data()
run = replace(run, how=How(processes=2))
for _ in training_steps(run, run.build(images), images, test, Path(sys.argv[1])):
    pass
"""


def test_the_processes_end_with_the_one_that_started_them(tmp_path) -> None:
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)])
    wait_for((tmp_path / "history.jsonl").exists)

    def ours() -> list[int]:
        return [pid for pid, _, command in processes() if str(tmp_path) in command]

    assert len(ours()) == 4  # the program, torchrun, and two that train
    os.kill(program.pid, signal.SIGKILL)
    program.wait()
    wait_for(lambda: not ours(), 60)
