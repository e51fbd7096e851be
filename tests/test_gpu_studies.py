"""The studies for GPUs, which are too long to run in a test: whether all that they name fits."""

import pytest
import torch
from studies import plan

from convnext_steps import Network
from convnext_steps.training.batches import TrainingBatches
from convnext_steps.training.config import RECIPES
from convnext_steps.training.distributed import Processes
from convnext_steps.training.downloads import IMAGENET_IMAGES, IMAGENETTE_IMAGES

SIZES = {  # training images, classes, and the side of images that come in one size
    "cifar10": (50_000, 10, 32),
    "imagenette": (IMAGENETTE_IMAGES["train"], 10, None),
    "imagenet": (IMAGENET_IMAGES["train"], 1000, None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_every_step_can_be_built_and_trained_on_the_data(name) -> None:
    images, classes, side = SIZES[name]
    for run in plan(name):
        side = run.config.resolution or side
        assert run.design.smallest_side <= side
        with torch.device("meta"):
            network = Network(
                run.design, num_classes=classes, drop_path_rate=run.config.drop_path_rate
            )
            assert network(torch.empty(2, 3, side, side)).shape == (2, classes)
        for count in {1, 2, run.how.processes}:
            TrainingBatches(images, run.config, Processes(0, count))  # refuses what does not divide


def test_imagenet_is_the_papers_own_study() -> None:
    original, step, *_ = plan("imagenet")
    assert step.config == RECIPES["roadmap"]
    assert original.config == RECIPES["resnet_original"]
    assert (step.design.width, step.design.stem_stride, step.how.processes) == (64, 4, 8)
