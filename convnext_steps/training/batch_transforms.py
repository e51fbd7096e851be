"""Whole batches: tried on the network, moved to the device, normalised and augmented.

Every image of a batch draws its own parameters here. torchvision's transforms draw once per call:
given a batch, they would move all of its images alike.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from convnext_steps.device import memory_format
from convnext_steps.errors import TrainingError
from convnext_steps.models.layers import evaluating
from convnext_steps.training.checks import check_labels, logits_of, why_not
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.images import ImageData
from convnext_steps.training.items import check_items, image_data
from convnext_steps.training.label_mixing import LabelMixing


def random_shift(images: Tensor, pixels: int) -> Tensor:
    """Move each image by up to `pixels` in both directions, filled with zeros, (N, C, H, W)."""
    if pixels == 0:
        return images
    count, channels, height, width = images.shape
    padded = F.pad(images, (pixels,) * 4)
    top, left = torch.randint(0, 2 * pixels + 1, (2, count, 1), device=images.device)
    rows = top + torch.arange(height, device=images.device)  # (N, H)
    columns = left + torch.arange(width, device=images.device)  # (N, W)
    return padded[
        torch.arange(count, device=images.device)[:, None, None, None],
        torch.arange(channels, device=images.device)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def random_horizontal_flip(images: Tensor, probability: float) -> Tensor:
    """Mirror each image left to right with the given probability, (N, C, H, W)."""
    if probability == 0:
        return images
    flipped = torch.rand(len(images), 1, 1, 1, device=images.device) < probability
    return torch.where(flipped, images.flip(-1), images)


def random_erasing(images: Tensor, probability: float) -> Tensor:
    """Fill one rectangle of each image with noise, with the given probability, (N, C, H, W).

    As in Zhong et al., 2020: 2 to 33 per cent of the area, an aspect ratio of 0.3 to 3.3. The
    images are normalised, so that standard normal noise has their mean and spread.
    """
    if probability == 0:
        return images
    count, _, height, width = images.shape
    draw = torch.rand(5, count, 1, device=images.device)
    area = (0.02 + draw[0] * (1 / 3 - 0.02)) * height * width
    ratio = torch.exp((2 * draw[1] - 1) * math.log(1 / 0.3))
    tall = (area * ratio).sqrt().clamp(1, height).round()
    wide = (area / ratio).sqrt().clamp(1, width).round()
    top = (draw[2] * (height - tall + 1)).floor()
    left = (draw[3] * (width - wide + 1)).floor()
    y = torch.arange(height, device=images.device)  # (H,)
    x = torch.arange(width, device=images.device)  # (W,)
    rows = (y >= top) & (y < top + tall) & (draw[4] < probability)  # (N, H)
    columns = (x >= left) & (x < left + wide)  # (N, W)
    erased = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(erased, torch.randn_like(images), images)


class Preparation:
    """Moves batches to the device, normalises them and, for training, augments them.

    Args:
        model: the network that the batches are for.
        dataset: an `ImageData`, or subsets of one, whose mean and std normalise uint8 images, or
            any other data set, whose uint8 images are scaled to [0, 1].
        config: the recipe.
        device: where the network is.

    Raises:
        TrainingError: the data do not fit the network.
    """

    def __init__(
        self, model: nn.Module, dataset: Dataset[Any], config: TrainingConfig, device: torch.device
    ) -> None:
        self.config, self.device = config, device
        known = image_data(dataset)
        mean, std = (known.mean, known.std) if known else ((0.0,), (1.0,))
        self.mean = torch.tensor(mean, device=device).view(-1, 1, 1)
        self.std = torch.tensor(std, device=device).view(-1, 1, 1)
        self.kinds: dict[str, torch.dtype] = {}  # of the images, by role
        self.classes = self.try_images(model, dataset, "training")
        mixes = config.mixup or config.cutmix
        self.mixing = LabelMixing(config, self.classes, device) if mixes else None

    def try_images(self, model: nn.Module, dataset: Dataset[Any], role: str) -> int:
        """Check a few images and labels, and try the first image; return the network's classes.

        Args:
            model: the network.
            dataset: any.
            role: "training" or "test", for messages.

        Raises:
            TrainingError: the data do not fit the network.
        """
        image, labels = check_items(dataset, role)
        self.kinds[role] = image.dtype
        if len({kind == torch.uint8 for kind in self.kinds.values()}) > 1:
            kinds = [f"{kind}".removeprefix("torch.") for kind in self.kinds.values()]
            raise TrainingError(
                f"the training images are {kinds[0]}, the {role} images {kinds[1]}: of these only "
                "uint8 are scaled and normalised here; make them alike"
            )
        prepared = self._normalized(image[None].clone().to(self.device))
        try:
            with evaluating(model), torch.no_grad(), self.autocast():
                output = model(prepared)
        except Exception as error:
            raise TrainingError(why_not(model, tuple(image.shape), error)) from error
        classes = logits_of(output).shape[1]
        if isinstance(dataset, ImageData) and classes < dataset.num_classes:
            raise TrainingError(
                f"the data have {dataset.num_classes} classes, but the network has {classes}; "
                f"build it with num_classes={dataset.num_classes}"
            )
        check_labels(labels, classes)
        return classes

    def to_device(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch as it is, on the device, its labels checked."""
        if labels.device.type == "cpu":  # else all were checked before training
            check_labels(labels, self.classes)  # before the copy: a GPU would just abort
        soon = self.device.type == "cuda"  # MPS may read a batch that is gone by then
        images = images.to(self.device, non_blocking=soon)
        return images, labels.to(self.device, torch.long, non_blocking=soon)

    def for_training(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch with every augmentation of the recipe; mixed labels are (N, classes)."""
        images, labels = self.to_device(images, labels)
        images = random_shift(images, self.config.random_shift)
        images = random_horizontal_flip(images, self.config.horizontal_flip)
        images = random_erasing(self._normalized(images), self.config.random_erasing)
        if self.mixing is not None:
            images, labels = self.mixing(images, labels)
        return images, labels

    def for_evaluation(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch, normalised and otherwise as it is."""
        images, labels = self.to_device(images, labels)
        return self._normalized(images), labels

    def autocast(self, cache: bool = True) -> torch.autocast:
        """A context in which the network computes with the recipe's precision.

        Args:
            cache: whether weights are cast once for several uses; a CUDA graph must not.
        """
        kind = torch.float16 if self.config.precision == "fp16" else torch.bfloat16
        enabled = self.config.precision != "fp32"
        return torch.autocast(self.device.type, kind, enabled=enabled, cache_enabled=cache)

    def _normalized(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            images = (images.float() / 255 - self.mean) / self.std
        return images.contiguous(memory_format=memory_format(self.device))
