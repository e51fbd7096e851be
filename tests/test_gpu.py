"""What only a GPU can show; each test is skipped where there is none.

What GPUs and CPUs have in common (turns, resuming, kills, failures) is tested on CPUs.
"""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from studies import plan, results_without_times, small

from convnext_steps import How, Trainer, TrainingConfig
from convnext_steps.execution.turns import Turns
from convnext_steps.execution.work import do_run, run_steps
from convnext_steps.training.data import synthetic

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU here"),
]

CONFIG = TrainingConfig(max_epochs=2, batch_size=32, drop_path_rate=0.0)
EXACT = How(device="cuda", deterministic=True)
STEPS = ("resnet", "separate_downsampling")


def trainer(step: str, how: How, folder: Path | None = None, **recipe) -> Trainer:
    config = replace(CONFIG, **recipe)
    model = small(step, drop_path_rate=config.drop_path_rate)
    data = synthetic(True, 256), synthetic(False, 64)
    return Trainer(model, *data, config, output_dir=folder, progress=False, how=how)


def after(steps: int, run: Trainer) -> list[float]:
    """The training losses of a run's first steps, each of which is logged."""
    work = run.steps()
    for _ in range(steps):
        next(work)
    return [entry["training_loss"] for entry in run.history if "training_loss" in entry]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 3e-2), ("fp16", 1e-2)]
)
def test_a_step_is_the_cpus_within_the_precision(step, precision, tolerance, monkeypatch) -> None:
    """The losses before and after it."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    on_cpu = after(2, trainer(step, How(device="cpu", fast_cpu=False)))
    on_gpu = after(2, trainer(step, replace(EXACT, graph=False), precision=precision))
    assert on_gpu == pytest.approx(on_cpu, rel=tolerance)


MIXED = {"mixup": 0.8, "cutmix": 1.0, "random_erasing": 0.25, "random_shift": 2}


@pytest.mark.parametrize("recipe", [{}, MIXED | {"drop_path_rate": 0.2}, {"precision": "bf16"}])
@pytest.mark.parametrize("step", STEPS)
def test_ten_steps_of_a_graph_are_the_plain_ones(step, recipe) -> None:
    plain = trainer(step, replace(EXACT, graph=False), **recipe)
    graph = trainer(step, EXACT, **recipe)
    assert graph.update.graph
    losses = after(10, plain), after(10, graph)
    near = 1e-2 if "precision" in recipe else 1e-5
    assert losses[0] == pytest.approx(losses[1], rel=near)
    for ours, theirs in zip(graph.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=10 * near, atol=near)


def test_the_original_recipe_is_recorded_too() -> None:
    recipe = {"optimizer": "sgd", "schedule": "thirds", "learning_rate": 0.1}
    losses = [
        after(10, trainer("resnet", replace(EXACT, graph=graph), **recipe))
        for graph in (False, True)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_ten_compiled_steps_are_the_plain_ones() -> None:
    plain = after(10, trainer("gelu", replace(EXACT, graph=False)))
    compiled = after(10, trainer("gelu", replace(EXACT, compile=True)))
    assert compiled[:2] == pytest.approx(plain[:2], rel=1e-3)
    assert compiled == pytest.approx(plain, rel=1e-2)  # fused layers round differently


@pytest.mark.parametrize("graph", [True, False])
def test_a_run_of_a_seed_repeats_its_bits_also_resumed(tmp_path, graph) -> None:
    how = replace(EXACT, graph=graph)
    recipe = MIXED | {"drop_path_rate": 0.2, "ema_decay": 0.9}
    for name in ("one", "two"):
        trainer("gelu", how, tmp_path / name, **recipe).train()
    stopped = trainer("gelu", how, tmp_path / "resumed", **recipe).steps()
    for _ in range(12):  # in the second epoch
        next(stopped)
    stopped.close()
    trainer("gelu", how, tmp_path / "resumed", **recipe).train(resume=True)
    for name in ("final.safetensors", "final_ema.safetensors", "history.jsonl"):
        one = (tmp_path / "one" / name).read_bytes()
        assert one == (tmp_path / "two" / name).read_bytes()
        assert one == (tmp_path / "resumed" / name).read_bytes()


def test_runs_at_once_compute_what_each_computes_alone(tmp_path) -> None:
    runs = [
        replace(run, how=EXACT, config=replace(run.config, mixup=0.4, drop_path_rate=0.2))
        for run in plan("smoke", seeds=[0, 1])
    ]
    for run in runs:
        do_run(run, tmp_path / "alone")
    turns = Turns(lambda key, error: None, on_gpu=True)
    for key, run in enumerate(runs):
        turns.add(key, lambda run=run: run_steps(run, tmp_path / "together"))
    while turns.busy:
        turns.go_on()
    alone, together = (results_without_times(tmp_path / name) for name in ("alone", "together"))
    assert len(alone) == len(runs)
    assert together == alone


def test_a_run_without_enough_memory_is_tried_again_alone() -> None:
    """Two pieces of work, each of which takes most of the memory."""
    torch.cuda.empty_cache()
    most = int(0.6 * torch.cuda.mem_get_info()[0])
    begun, ended = [], []
    turns = Turns(lambda *end: ended.append(end), on_gpu=True)

    def greedy(key):
        begun.append(key)
        held = [torch.empty(most, dtype=torch.uint8, device="cuda")]
        for _ in range(2 * turns.steps):
            yield
        held.clear()

    for key in range(2):
        turns.add(key, partial(greedy, key))
    while turns.busy:
        turns.go_on()
    assert begun == [0, 1, 1]
    assert ended == [(0, None), (1, None)]


PROGRAM = """
import os, sys
import torch
import torch.distributed as dist
from convnext_steps import How, Network, Trainer, TrainingConfig, roadmap, scaled
from convnext_steps.training.data import synthetic
dist.init_process_group(sys.argv[1])
design = scaled(roadmap()[sys.argv[2]].design, width=1 / 8, depth=1 / 3, stem_stride=2)
torch.manual_seed(0)
model = Network(design, in_channels=1, num_classes=4)
data = synthetic(True, 128), synthetic(False, 64)
if sys.argv[1] == "gloo":  # both on the one card
    os.environ["LOCAL_RANK"] = "0"
trainer = Trainer(model, *data, TrainingConfig(max_epochs=1, batch_size=32), progress=False)
assert trainer.processes.count == 2
evaluation = trainer.train()
values = torch.cat([value.flatten() for value in trainer.model.parameters()])
both = [torch.empty_like(values) for _ in range(2)]
dist.all_gather(both, values)
assert torch.equal(*both)
print("trained", evaluation.loss)
"""


@pytest.mark.parametrize("step", STEPS)  # with BatchNorm, which is synchronised, and LayerNorm
def test_two_processes_train_as_one(tmp_path, step) -> None:
    backend = "nccl" if torch.cuda.device_count() > 1 else "gloo"
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(program), backend, step]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("trained") == 2
    assert "Grad strides" not in done.stderr
