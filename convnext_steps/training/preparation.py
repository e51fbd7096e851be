"""From the batches of a data set to what a network takes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from convnext_steps.training.augment import (
    label_mixing,
    random_erasing,
    random_horizontal_flip,
    random_shift,
)
from convnext_steps.training.checks import check_labels, output_classes
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.data import ImageData


class Preparation:
    """Moves batches to the device, normalises them and, for training, augments them.

    Args:
        model: the network that the batches are for.
        dataset: whose mean and spread normalise bytes; other data sets are taken as they are.
        config: the recipe.
        device: where the network is.
    """

    def __init__(
        self, model: nn.Module, dataset: Dataset[Any], config: TrainingConfig, device: torch.device
    ) -> None:
        self.config, self.device = config, device
        self.classes = output_classes(model)
        self.mixing = label_mixing(config, self.classes)
        known = isinstance(dataset, ImageData)
        mean, std = (dataset.mean, dataset.std) if known else ((0.0,), (1.0,))  # type: ignore[attr-defined]
        self.mean = torch.tensor(mean, device=device).view(-1, 1, 1)
        self.std = torch.tensor(std, device=device).view(-1, 1, 1)

    def for_training(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch with every augmentation of the recipe; mixed labels are (N, classes)."""
        images, labels = self._to_device(images, labels)
        images = random_shift(images, self.config.random_shift)
        images = random_horizontal_flip(images, self.config.horizontal_flip)
        images = random_erasing(self._normalized(images), self.config.random_erasing)
        if self.mixing is not None:
            images, labels = self.mixing(images, labels)
        return images, labels

    def for_evaluation(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch as it is, normalised."""
        images, labels = self._to_device(images, labels)
        return self._normalized(images), labels

    def autocast(self) -> torch.autocast:
        """The recipe's precision."""
        kind = torch.float16 if self.config.precision == "fp16" else torch.bfloat16
        enabled = self.config.precision != "fp32"
        return torch.autocast(self.device.type, kind, enabled=enabled)

    def _to_device(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.classes:
            check_labels(labels, self.classes)  # before the copy: a GPU would only abort
        images = images.to(self.device, non_blocking=True)
        return images, labels.to(self.device, non_blocking=True)

    def _normalized(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            images = (images.float() / 255 - self.mean) / self.std
        return images.contiguous(memory_format=torch.channels_last)
