"""Which device, which GPU, how many at once: with GPUs that are only pretended."""

import json
import multiprocessing
import os
import random
from collections import Counter
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from studies import plan, small, the_study

from convnext_steps import How, Trainer, TrainingConfig, cli
from convnext_steps.device import find_device, gpus, memory_format, visible
from convnext_steps.errors import TrainingError
from convnext_steps.execution import gpu, local, pool
from convnext_steps.execution.local import LocalBackend
from convnext_steps.execution.pool import AT_ONCE, PoolBackend
from convnext_steps.measure.speed import time_once
from convnext_steps.training.batch_transforms import Preparation
from convnext_steps.training.checks import remedies
from convnext_steps.training.data import synthetic
from convnext_steps.training.distributed import join
from convnext_steps.training.graph import _cpu_random_state

CPU = torch.device("cpu")
CONFIG = TrainingConfig(max_epochs=1, batch_size=8)


@pytest.fixture
def pretend(monkeypatch):
    def so_many(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return so_many


def test_a_word_is_a_device(pretend) -> None:
    pretend(0)
    assert find_device("auto") == find_device("cpu") == torch.device("cpu")
    assert gpus() == gpus("cuda") == 0
    pretend(2)
    assert find_device("auto", 1) == find_device("cuda", 1) == torch.device("cuda", 1)
    assert find_device("cpu") == torch.device("cpu")
    assert (gpus("auto"), gpus("cuda"), gpus("cpu"), gpus("mps")) == (2, 2, 0, 0)


def test_a_device_that_is_not_here_is_one_line(pretend) -> None:
    pretend(0)
    with pytest.raises(TrainingError, match="device is cuda, but process 1 finds no GPU"):
        find_device("cuda")
    pretend(2)
    with pytest.raises(TrainingError, match=r"process 3 finds no GPU .* \(2 here\)"):
        find_device("cuda", 2)
    if not torch.backends.mps.is_available():
        with pytest.raises(TrainingError, match="finds no Apple GPU; use auto"):
            Trainer(*[torch.nn.Identity()] * 3, TrainingConfig(), how=How(device="mps"))
    with pytest.raises(ValueError, match="device is 'gpu'"):
        How(device="gpu")


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("aten::frobnicate is not currently implemented for the MPS device", "use device cpu"),
        ("x_backward does not have a deterministic implementation", "without how.deterministic"),
    ],
)
def test_what_a_device_lacks_is_one_line(message, line) -> None:
    with pytest.raises(TrainingError, match=line) as e, remedies():
        raise RuntimeError(message)
    assert "\n" not in str(e.value)


def test_a_process_sees_its_share_of_the_gpus_that_its_parent_sees(pretend, monkeypatch) -> None:
    pretend(4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible([0, 3]) == {"CUDA_VISIBLE_DEVICES": "0,3"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5,GPU-7")
    assert visible([0, 3]) == {"CUDA_VISIBLE_DEVICES": "2,GPU-7"}
    assert visible(None) == {}


def test_a_run_has_no_more_processes_than_there_are_gpus(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert How(processes=4).processes_here == 2
    assert How(processes=1).processes_here == 1
    assert How(processes=4, device="cpu").processes_here == 4


def test_images_lie_as_each_device_takes_them() -> None:
    layouts = {name: memory_format(torch.device(name)) for name in ("cpu", "cuda", "mps")}
    assert layouts.pop("mps") == torch.contiguous_format
    assert set(layouts.values()) == {torch.channels_last}


@pytest.mark.parametrize("kind", ["mps", "cuda"])
def test_only_a_gpu_that_keeps_the_batch_is_not_waited_for(kind) -> None:
    data = synthetic(True, 8)
    preparation = Preparation(small(), data, CONFIG, CPU)
    preparation.device = torch.device(kind)
    tensor = MagicMock(device=preparation.device)
    preparation.to_device(tensor, tensor)
    waits = [call.kwargs["non_blocking"] for call in tensor.to.call_args_list]
    assert waits == 2 * [kind == "cuda"]


def test_alone_a_process_works_on_the_gpu_that_it_says(pretend, monkeypatch) -> None:
    pretend(2)
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert join("cuda").device == torch.device("cuda", 0)
    assert chosen == [torch.device("cuda", 0)]


def test_a_process_has_its_gpus_before_it_imports_anything(monkeypatch) -> None:
    seen = []
    start = multiprocessing.get_context("spawn").Process.start
    monkeypatch.setattr(pool, "visible", lambda own: {"CUDA_VISIBLE_DEVICES": str(own)})

    def noted(process) -> None:
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        start(process)

    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", noted)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    pool.Crew([1]).end()
    assert seen == ["[1]"]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_the_time_on_mps_is_that_of_the_work(monkeypatch) -> None:
    waits = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waits.append(1))
    time_once(lambda: None)
    assert len(waits) == 2


def test_a_trainer_is_as_deterministic_as_it_says_whichever_was_built_last(monkeypatch) -> None:
    wanted = []
    monkeypatch.setattr(
        "convnext_steps.training.trainer.set_determinism", lambda _, wish: wanted.append(wish)
    )
    data = synthetic(True, 32)
    first, _ = (
        Trainer(small(), data, data, CONFIG, progress=False, how=How(deterministic=wish))
        for wish in (True, False)
    )
    first.train()
    assert wanted == [True, False, True]


@pytest.mark.parametrize(
    "draw", [random.random, lambda: np.random.rand(1), lambda: torch.rand(1), lambda: None]
)
def test_a_network_that_draws_on_the_cpu_is_noticed(draw) -> None:
    before = _cpu_random_state()
    draw()
    assert (before == _cpu_random_state()) == (draw() is None)


def test_notebooks_are_spread_over_the_gpus(pretend, monkeypatch, tmp_path) -> None:
    pretend(3)
    monkeypatch.setattr(local, "start_notebook", lambda *given: SimpleNamespace(given=given))
    backend = LocalBackend(How())
    assert backend.workers == 3
    attempts = [backend.start(run, tmp_path) for run in plan("smoke", seeds=[0, 1])[:4]]
    assert [attempt.gpus for attempt in attempts] == [[0], [1], [2], [0]]
    attempts[1].ended = attempts[3].ended = "over"
    assert backend.start(plan("smoke")[0], tmp_path).gpus == [1]
    settings = attempts[2].process.given[3]
    assert settings["CUDA_VISIBLE_DEVICES"] == "2"
    assert LocalBackend(How(processes=2)).gpus == [[0, 1], [2]]
    pretend(0)
    assert LocalBackend(How()).gpus == []


class Idle:
    """A process of the pool that only keeps what it is given."""

    def __init__(self, own_gpus) -> None:
        self.gpus, self.open, self.alive = own_gpus, set(), True

    def end(self) -> None:
        self.alive = False

    def begin(self, run, results) -> int:
        self.open.add(run)
        return 0


def test_each_gpu_has_one_process_that_does_several_runs(pretend, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(pool, "Crew", Idle)
    pretend(2)
    study = the_study("smoke").change({"how.notebooks": False}, "smoke_gpu")
    backend = PoolBackend(study)
    assert backend.workers == 2 * AT_ONCE
    used = Counter(
        tuple(backend.start(run, tmp_path).crew.gpus)
        for run in study.plan(range(AT_ONCE), ["resnet", "separate_downsampling"])
    )
    assert used == {(0,): AT_ONCE, (1,): AT_ONCE}
    pretend(0)
    backend = PoolBackend(study)
    crews = {id(backend.start(run, tmp_path).crew) for run in study.plan([0, 1, 2], ["resnet"])}
    assert len(crews) == 3  # on CPUs, a process does one run at a time


def test_parts_of_a_check_that_are_there_are_not_done_again(monkeypatch, tmp_path, capsys) -> None:
    done = []
    monkeypatch.setattr(gpu, "run_tests", lambda seconds: done.append("tests") or {"exit code": 0})
    monkeypatch.setattr(gpu, "runs_at_once", lambda small: done.append("runs") or {"a": 1.0})
    monkeypatch.setattr(gpu, "deterministic", lambda small: done.append("bits") or {})
    monkeypatch.setattr(gpu, "against_peers", lambda small, compiled: 1 / 0)
    command = ["gpu", "check", "--small", "--output", str(tmp_path)]
    with pytest.raises(ZeroDivisionError):
        cli.main(command)
    monkeypatch.setattr(gpu, "against_peers", lambda small, compiled: {"compiled": compiled})
    assert cli.main(command) == 0
    assert done == ["tests", "runs", "bits"]
    assert json.loads((tmp_path / "gpu_check_compiled.json").read_text())["figures"] == {
        "compiled": True
    }
    assert cli.main([*command, "--minutes", "0.0000001", "--output", str(tmp_path / "new")]) == 0
    assert "no time is left" in capsys.readouterr().out
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.slow
def test_the_speed_of_runs_at_once_is_measured_on_a_cpu_too() -> None:
    found = gpu.images_per_second("separate_downsampling", (1, 2), How(device="cpu"), small=True)
    assert len(found) == 2
    assert min(found) > 0


@pytest.mark.slow
def test_two_trainings_of_a_seed_are_compared() -> None:
    found = gpu.deterministic(small=True)
    if not torch.cuda.is_available():  # a CPU repeats its bits anyway
        assert found["not deterministic"]["largest difference of two losses"] == 0
    assert found["deterministic"]["largest difference of two losses"] == 0


@pytest.mark.slow
def test_the_training_for_gpus_is_tried_on_a_cpu(tmp_path) -> None:
    command = ["gpu", "train", "--small", "--results", str(tmp_path), "--minutes", "10"]
    assert cli.main(command) == 0
    for name in gpu.SMALL:
        lines = (tmp_path / name / "runs.jsonl").read_text().splitlines()
        assert len(lines) == len(plan("smoke"))
