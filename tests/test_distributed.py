"""Several processes train one model, and a killed run is resumed (torchrun, gloo)."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from studies import ended, processes, small, wait_for

from convnext_steps import Trainer, TrainingConfig
from convnext_steps.training.data import synthetic

pytestmark = pytest.mark.slow

ONE_UPDATE = """
import sys
from itertools import islice
import torch
from convnext_steps import Network, Trainer, TrainingConfig, roadmap, scaled
from convnext_steps.training.batches import loader
from convnext_steps.training.data import synthetic
from convnext_steps.training.trainer import seed_everything

torch.set_num_threads(1)
step, micro, output = sys.argv[1], int(sys.argv[2]), sys.argv[3]
seed_everything(0)
design = scaled(roadmap()[step].design, width=1 / 8, depth=1 / 3, stem_stride=2)
config = TrainingConfig(max_epochs=1, batch_size=32, micro_batch_size=micro)
data = synthetic(True, 64), synthetic(False, 41)
trainer = Trainer(Network(design, in_channels=1, num_classes=4), *data, config, progress=False)
batches = iter(loader(trainer.train_dataset, trainer.batches))
trainer.network.train()
trainer.update(islice(batches, trainer.batches.micro_batches))
gradients = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
evaluation = trainer.evaluate()
if trainer.processes.main:
    torch.save({"gradients": gradients, "count": evaluation.count, "loss": evaluation.loss,
                "correct": evaluation.correct, "processes": trainer.processes.count}, output)
"""


def torchrun(count: int, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*command, "--nproc-per-node", str(count), *arguments]


def environment() -> dict[str, str]:
    return dict(os.environ) | {"OMP_NUM_THREADS": "1"}


def one_update(tmp_path: Path, count: int, step: str, micro: int = 0) -> dict:
    script, output = tmp_path / "one_update.py", tmp_path / f"{count}-{micro}.pt"
    script.write_text(ONE_UPDATE)
    arguments = [str(script), step, str(micro), str(output)]
    command = torchrun(count, *arguments) if count > 1 else [sys.executable, *arguments]
    subprocess.run(command, check=True, env=environment(), timeout=200)
    return torch.load(output, weights_only=True)


def test_two_processes_give_the_gradients_and_the_count_of_one(tmp_path) -> None:
    alone = one_update(tmp_path, 1, "separate_downsampling")
    for micro in (0, 4):
        shared = one_update(tmp_path, 2, "separate_downsampling", micro)
        assert shared["processes"] == 2
        assert torch.allclose(shared["gradients"], alone["gradients"], atol=1e-6, rtol=1e-5)
        assert shared["count"] == alone["count"] == 41
        assert shared["correct"] == alone["correct"]
        assert shared["loss"] == pytest.approx(alone["loss"], abs=1e-5)
    assert alone["gradients"].abs().max() > 1e-3


TRAIN = ["-m", "convnext_steps", "train", "separate_downsampling", "--data", "synthetic"]
TRAIN += ["--max-epochs", "2", "--batch-size", "32", "--train-images", "64", "--random-shift"]
TRAIN += ["1", "--ema-decay", "0.9", "--mixup", "0.8", "--drop-path-rate", "0.1", "--resume"]
TRAIN += ["--evaluate-every", "2"]
WEIGHTS = "final.safetensors"


def run(command: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def train_small(folder: Path) -> None:
    torch.set_num_threads(1)
    model = small(drop_path_rate=0.1)
    config = TrainingConfig(max_epochs=10, batch_size=64, random_shift=1, ema_decay=0.9, mixup=0.8)
    data = synthetic(True, 256), synthetic(False, 64)
    Trainer(model, *data, config, folder, progress=False).train(resume=True)


def test_killed_at_ten_random_moments_and_resumed_ends_with_the_same_bits(tmp_path) -> None:
    """A small network: its epochs are short, and so kills come while all kinds of files are new."""
    server = multiprocessing.get_context("forkserver")  # it has imported all that trainings need
    server.set_forkserver_preload([__name__])
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def train(folder: Path, seconds: float) -> int | None:
        """Train for some seconds at most; None if it had to be killed."""
        process = server.Process(target=train_small, args=(folder,))
        process.start()
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
            return None
        return process.exitcode

    assert train(tmp_path / "first", 300) == 0  # whatever is done once in the server
    start = time.monotonic()
    assert train(whole, 300) == 0
    duration = time.monotonic() - start

    generator, kills = random.Random(0), 0
    while kills < 10:
        if train(killed, generator.uniform(0.1, 0.6) * duration) is None:
            kills += 1
        else:  # the end was reached: kill the next one from the beginning on
            assert (killed / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
            for path in killed.iterdir():
                path.unlink()
    assert train(killed, 300) == 0
    assert (killed / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert (killed / "history.jsonl").read_bytes() == (whole / "history.jsonl").read_bytes()


def test_a_killed_rank_is_survived_by_resuming(tmp_path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    ended(run(torchrun(2, *TRAIN, "--output", str(whole))))
    process = run(torchrun(2, *TRAIN, "--output", str(killed)))
    first = killed / "checkpoint-0001.pt"
    wait_for(lambda: first.exists() or process.poll() is not None)
    assert process.poll() is None
    ranks = sorted(child for child, parent, _ in processes() if parent == process.pid)
    os.kill(ranks[1], signal.SIGKILL)
    process.communicate(timeout=200)
    assert process.returncode != 0
    assert not (killed / WEIGHTS).exists()

    ended(run(torchrun(2, *TRAIN, "--output", str(killed))))
    assert (killed / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    last = json.loads((killed / "history.jsonl").read_text().splitlines()[-1])
    assert last["count"] == 512


WARNED = """
import torch
from convnext_steps import Network, Trainer, TrainingConfig, convnext_tiny, roadmap, scaled
from convnext_steps.training.data import synthetic
torch.set_num_threads(1)
data = synthetic(True, 64), synthetic(False, 32)
config = TrainingConfig(max_epochs=1, batch_size=32, micro_batch_size=8)
size = {"width": 1 / 8, "depth": 1 / 3, "stem_stride": 2}
designs = [scaled(step.design, **size) for step in roadmap().values()]
models = [Network(design, in_channels=1, num_classes=4) for design in designs]
for model in [*models, convnext_tiny(in_channels=1, num_classes=4)]:
    Trainer(model, *data, config, progress=False).train()
print("all trained")
"""


def test_two_processes_train_every_network_without_a_warning(tmp_path) -> None:
    """PyTorch warns of gradients whose strides are not their parameter's."""
    program = tmp_path / "program.py"
    program.write_text(WARNED)
    out, _ = ended(run(torchrun(2, str(program))))
    assert out.count("all trained") == 2
    assert "warn" not in out.lower()
