"""What a seed and an epoch change, and what they must not."""

import json
import random
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from studies import plan
from torch import nn
from torch.utils.data import TensorDataset, get_worker_info

from convnext_steps import How, Trainer, TrainingConfig, cli
from convnext_steps.execution.work import do_run
from convnext_steps.models.convnext import ConvNeXt
from convnext_steps.study.results import RESULT, read_result
from convnext_steps.training.data import synthetic
from convnext_steps.training.distributed import Processes

CONFIG = TrainingConfig(max_epochs=2, batch_size=8, evaluate_every=2)
STEP = "separate_downsampling"


class Recorder(nn.Module):
    """A network that keeps the images it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 4)
        self.images: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.images.append(images.clone())
        return self.head(images.mean((1, 2, 3))[:, None])


def seen(dataset, seed: int = 0, rank: int = 0, workers: int = 0, **recipe) -> torch.Tensor:
    """What the network sees in each of two epochs: (epoch, image, C, H, W)."""
    for draw_anew in (torch.seed, random.seed, np.random.seed):
        draw_anew()  # what was drawn before a training must not change it
    network, config = Recorder(), replace(CONFIG, seed=seed, **recipe)
    how = How(data_workers=workers)
    trainer = Trainer(network, dataset, dataset, config, progress=False, how=how)
    trainer.processes = Processes(rank=rank)
    trainer.train()
    return torch.cat(network.images).unflatten(0, (2, -1))


def all_differ(draws) -> bool:
    return not any(torch.equal(one, other) for one, other in combinations(draws, 2))


def test_each_epoch_and_seed_takes_the_same_images_in_another_order() -> None:
    numbered = TensorDataset(torch.arange(50.0).view(50, 1, 1, 1), torch.zeros(50).long())
    orders = seen(numbered).flatten(1)
    assert torch.equal(orders, seen(numbered).flatten(1))
    assert torch.equal(orders, seen(numbered, rank=1).flatten(1))  # processes share one order
    orders = [*orders, *seen(numbered, seed=1).flatten(1), torch.arange(48.0)]
    assert all_differ(orders)
    assert all(len(order.unique()) == 48 for order in orders)  # the incomplete batch is left out


BATCHWISE = [{"random_shift": 2}, {"horizontal_flip": 0.5}, {"random_erasing": 0.5}]
ONE_BY_ONE = [{"rand_augment": 9}, {"random_resized_crop": True}]


@pytest.mark.parametrize("recipe", [*BATCHWISE, *ONE_BY_ONE], ids=lambda recipe: next(iter(recipe)))
def test_each_epoch_seed_and_image_is_augmented_in_another_way(recipe) -> None:
    one = synthetic(True, 16)
    alike = replace(one, images=one.images[:1].repeat(16, 1, 1, 1))  # so that no order shows
    alike = alike.prepared(replace(CONFIG, **recipe), training=True)
    epochs = seen(alike, **recipe)
    assert torch.equal(epochs, seen(alike, **recipe))
    assert all_differ([*epochs, *seen(alike, seed=1, **recipe)])
    if recipe in ONE_BY_ONE:  # drawn by seed, epoch and image, whoever prepares it
        for workers in (1, 2):
            assert torch.equal(epochs, seen(alike, workers=workers, rank=1, **recipe))
    else:  # drawn by process, for a whole batch
        assert all_differ([*epochs, *seen(alike, rank=1, **recipe)])
    assert all(len(images.unique(dim=0)) > 1 for images in epochs)


class AllGenerators:
    """A transform that draws from every generator, and tells which of the workers draws."""

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        worker = get_worker_info()
        draws = [random.random(), np.random.random(), torch.rand(()).item()]
        return torch.tensor([*draws, worker.id if worker else -1]).view(4, 1, 1)


@pytest.mark.parametrize(("workers", "ids"), [(0, {-1}), (2, {0, 1})])
def test_no_draw_is_repeated_in_another_epoch_seed_or_worker(workers, ids) -> None:
    drawn = replace(synthetic(True, 16), transform=AllGenerators(), mean=(0,) * 4, std=(1,) * 4)
    epochs = seen(drawn, workers=workers)
    assert torch.equal(epochs, seen(drawn, workers=workers))
    *draws, used = torch.cat([*epochs, *seen(drawn, seed=1, workers=workers)]).flatten(1).T
    assert all(len(draw.unique()) == 64 for draw in draws)
    assert set(used.tolist()) == ids


UNTRAINED = {"max_epochs": 1 / 16, "learning_rate": 1e-30, "final_learning_rate": 0.0}


def small(pretrained, **options) -> ConvNeXt:
    return ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), **options)


def loss_of_a_run(seed: int, folder) -> float:
    (run,) = plan("smoke", steps=[STEP], seeds=[seed])
    run = replace(run, config=replace(run.config, **UNTRAINED))
    do_run(run, folder)
    return read_result(run.folder(folder) / RESULT)["loss"]


def loss_of_the_command(seed: int, folder) -> float:
    arguments = ["train", "convnext_tiny", "--data", "synthetic"]
    arguments += ["--output", str(folder), "--seed", str(seed)]
    for name, value in UNTRAINED.items():
        arguments += ["--" + name.replace("_", "-"), str(value)]
    assert cli.main(arguments) == 0
    return json.loads((folder / "history.jsonl").read_text().splitlines()[-1])["loss"]


@pytest.mark.parametrize("begin", [loss_of_a_run, loss_of_the_command])
def test_another_seed_begins_with_other_weights(tmp_path, monkeypatch, begin) -> None:
    monkeypatch.setattr("convnext_steps.models.convnext.convnext_tiny", small)
    found = [begin(seed, tmp_path / str(place)) for place, seed in enumerate((0, 1, 0))]
    assert found[0] == found[2] != found[1]


def test_the_runs_of_a_study_differ_in_their_seed_alone() -> None:
    for one, other in zip(plan(seeds=[0]), plan(seeds=[7]), strict=True):
        assert (one.seed, other.seed) == (0, 7)
        assert replace(other, config=one.config) == one
        assert replace(other.config, seed=0) == one.config
        assert other.hash != one.hash
