"""What one GPU gives, in a few minutes: checks, speeds, and the study made for it.

Each part leaves a file when it ends, and is not done again: a machine that is taken away loses
little. `small` tries all of it at a tiny size, on a CPU too.
"""

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from convnext_steps.device import find_device, set_determinism, wait_for_gpu
from convnext_steps.errors import StudyError
from convnext_steps.execution.evidence import environment
from convnext_steps.execution.turns import Turns
from convnext_steps.files import write_json
from convnext_steps.measure.peers import LIBRARIES, published
from convnext_steps.measure.speed import Work, measure_speeds
from convnext_steps.models.convnext import convnext_tiny
from convnext_steps.models.design import scaled
from convnext_steps.models.network import Network
from convnext_steps.models.roadmap import find_step
from convnext_steps.study.pack import pack
from convnext_steps.study.results import RESULT
from convnext_steps.study.toml import load_study
from convnext_steps.training.data import synthetic
from convnext_steps.training.how import How
from convnext_steps.training.trainer import Trainer, seed_everything

STUDIES = ("cifar10_jpeg_gpu", "cifar10_jpeg_gpu_plain")
SMALL = {"smoke_gpu": ["smoke", "--name", "smoke_gpu", "--set", "how.notebooks=false"]}
STEPS = ("resnet", "separate_downsampling")  # whose speed is measured
AT_ONCE = (1, 2, 4, 8, 16)
TESTS = Path(__file__).parents[2] / "tests"
TESTS_AT_ONCE = 4
POLL_SECONDS = 1.0


def gpu_check(folder: Path, minutes: float, small: bool = False) -> None:
    """Run the tests for GPUs, and measure speeds; each part writes a JSON file to a folder.

    Args:
        folder: where the files go; what is there is not done again.
        minutes: when no other part is begun, and the tests are ended.
        small: a tiny size.
    """
    end = time.monotonic() + 60 * minutes
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "tests": lambda: run_tests(end - time.monotonic()),
        "runs_at_once": lambda: runs_at_once(small),
        "deterministic": lambda: deterministic(small),
        "eager": lambda: against_peers(small, compiled=False),
        "compiled": lambda: against_peers(small, compiled=True),
    }
    for name, part in parts.items():
        path = folder / f"gpu_check_{name}.json"
        if path.exists():
            print(f"{name}: is there already, {path}")
        elif time.monotonic() > end:
            print(f"{name}: no time is left")
        else:
            figures = part()
            write_json(path, {"small": small, "figures": figures, "environment": environment()})
            print(f"{name}: {json.dumps(figures)}", flush=True)


def run_tests(seconds: float) -> dict[str, Any]:
    """Run the tests that are marked `gpu`, where the project's checkout is there."""
    if not TESTS.is_dir():
        return {"left out": "the tests are not in a wheel"}
    command = [sys.executable, "-m", "pytest", "-v", "-n", str(TESTS_AT_ONCE), "-m", "gpu"]
    command.append(str(TESTS / "test_gpu.py"))
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        return {"exit code": None, "output": (error.stdout or b"").decode().splitlines()}
    return {"exit code": done.returncode, "output": done.stdout.decode().splitlines()}


def against_peers(small: bool, compiled: bool) -> dict[str, Any]:
    """Images per second in training of ConvNeXt-T at 224, in bf16, beside two public libraries'."""
    set_determinism(find_device(), wanted=False)
    work = Work(224, 128, precision="bf16", device="auto")
    if small:
        work = replace(work, resolution=32, batch_size=2)
    models: dict[str, Any] = {"ours": convnext_tiny()}
    models |= {name: published(name, "convnext_tiny") for name in LIBRARIES}
    if compiled:
        models = {name: torch.compile(model) for name, model in models.items()}
    speeds = measure_speeds(models, work, rounds=2 if small else 20, warmup=3)
    return {"work": asdict(work)} | {name: asdict(speed) for name, speed in speeds.items()}


def runs_at_once(small: bool) -> dict[str, Any]:
    """Images per second of all runs together, by how many go on by turns, and without a graph."""
    found: dict[str, Any] = {}
    for step in STEPS:
        (found[f"{step}, eager"],) = images_per_second(step, (1,), How(graph=False), small)
        speeds = images_per_second(step, AT_ONCE, How(), small)
        for count, speed in zip(AT_ONCE, speeds, strict=True):
            found[f"{step}, {count} at once"] = speed
    return found


def images_per_second(step: str, counts: Sequence[int], how: How, small: bool) -> list[float]:
    """The speeds of so many runs of a step together, at the size of the study for GPUs."""
    rounds, size, batches = (3, 8, 4) if small else (15, 128, 128)  # an epoch ends as in a study

    def work(seed: int) -> Iterator[None]:
        recipe = {"seed": seed, "max_epochs": 1000, "batch_size": size}
        return _trainer(step, how, batches * size, **recipe).steps()

    gc.collect()  # the trainings before
    turns = Turns(_fail, on_gpu=find_device(how.device).type == "cuda")
    speeds = []
    for count in counts:
        for seed in range(len(turns.lanes), count):
            turns.add(seed, partial(work, seed))
        for _ in range(3):
            turns.go_on()
        wait_for_gpu()
        start = time.perf_counter()
        for _ in range(rounds):
            turns.go_on()
        wait_for_gpu()
        images = count * rounds * turns.steps * size
        speeds.append(images / (time.perf_counter() - start))
    return speeds


def deterministic(small: bool) -> dict[str, Any]:
    """What repeating the bits costs, and how far two trainings of a seed differ without it."""
    found: dict[str, Any] = {}
    for wanted in (True, False):
        how = How(deterministic=wanted)
        (speed,) = images_per_second(STEPS[1], (1,), how, small)
        one, other = (_losses(how, 2 if small else 20) for _ in range(2))
        apart = max(abs(a - b) for a, b in zip(one, other, strict=True))
        words = "deterministic" if wanted else "not deterministic"
        found[words] = {"images/s": speed, "largest difference of two losses": apart}
    return found


def _losses(how: How, epochs: int) -> list[float]:
    seed_everything(0)
    recipe = {"max_epochs": epochs, "batch_size": 32, "evaluate_every": epochs}
    trainer = _trainer(STEPS[1], how, 64, **recipe)
    trainer.train()
    return [entry["training_loss"] for entry in trainer.history if "training_loss" in entry]


def _trainer(step: str, how: How, images: int, **recipe: Any) -> Trainer:
    """A training of a step, on synthetic images, at the size of the study for GPUs."""
    study = load_study(STUDIES[0])
    design = scaled(find_step(step).design, **asdict(study.scale))
    model = Network(design, in_channels=1, num_classes=4)
    data = synthetic(True, images), synthetic(False, 32)
    return Trainer(model, *data, replace(study.recipe, **recipe), progress=False, how=how)


def _fail(key: int, error: BaseException | None) -> None:
    raise StudyError(f"run {key} ended early: {error}")


def gpu_train(results: Path, minutes: float, small: bool = False) -> None:
    """Train the studies for GPUs one after the other, as far as the time goes.

    After each run, all that are done are packed into one file per study.

    Args:
        results: the results folder.
        minutes: when the runs under way are interrupted; rerun to resume.
        small: a tiny size, on synthetic images.
    """
    end = time.monotonic() + 60 * minutes
    studies = SMALL if small else {name: [name] for name in STUDIES}
    for name, options in studies.items():
        command = [sys.executable, "-m", "convnext_steps", "study", *options]
        process = subprocess.Popen([*command, "--results", str(results)])
        _pack_as_they_come(process, name, results, end)
        if time.monotonic() > end:
            print("the time is over; rerun to resume")
            break
        if process.returncode != 0:
            raise StudyError(f"{name} failed; its messages are above")


def _pack_as_they_come(
    process: "subprocess.Popen[bytes]", name: str, results: Path, end: float
) -> None:
    packed = 0
    while True:
        over = process.poll() is not None
        if not over and time.monotonic() > end:
            process.terminate()
        there = len(list((results / name).glob(f"*/seed-*/{RESULT}")))
        if there > packed:
            pack(results, name)
            packed = there
        if over:
            break
        time.sleep(POLL_SECONDS)
