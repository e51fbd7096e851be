"""Labelled images in memory or in files, as uint8: training normalises them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.transforms.v2.functional import center_crop, pil_to_tensor

from convnext_steps.errors import DataError
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.decoding import read_image
from convnext_steps.training.image_transforms import WHOLE_FROM, image_transform, short_side

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageData(Dataset[tuple[Tensor, Tensor | int]], ABC):
    """Pairs of an image, uint8 (C, H, W), and a label, and how to normalise the images."""

    mean: tuple[float, ...]  # of each channel of the training images, in [0, 1]
    std: tuple[float, ...]
    num_classes: int
    classes: tuple[str, ...] = ()  # their names in the labels' order, where they are known
    transform: Callable[[Any], Any] | None = None  # of one image at a time

    @property
    def channels(self) -> int:
        """How many channels every image has."""
        return len(self.mean)

    @abstractmethod
    def __len__(self) -> int:
        """How many images there are."""

    @abstractmethod
    def first(self, count: int) -> Self:
        """The given number of images, always the same ones.

        Raises:
            DataError: there are fewer, or the number is below 1.
        """

    @abstractmethod
    def prepared(self, config: TrainingConfig, training: bool) -> Self:
        """The same images, cropped, resized and augmented as the recipe says."""

    def split(self, share: float) -> tuple[Self, Self]:
        """All images but a share of each class, and that share: a fixed random choice.

        A class of at least two images has one or more in both parts.

        Raises:
            DataError: no class has two images.
        """
        labels = self._labels()
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))
        aside = torch.zeros(len(self), dtype=torch.bool)
        for label in labels.unique():
            own = order[labels[order] == label]
            aside[own[: min(max(1, round(share * len(own))), len(own) - 1)]] = True
        if not aside.any():
            raise DataError(f"cannot hold out any of {len(self)} images: no class has two")
        return self._take((~aside).nonzero()[:, 0]), self._take(aside.nonzero()[:, 0])

    @abstractmethod
    def _labels(self) -> Tensor:
        """The labels of all images, (N,)."""

    @abstractmethod
    def _take(self, indices: Tensor) -> Self:
        """The images of these indices."""

    def _check_count(self, count: int) -> None:
        if not 1 <= count <= len(self):
            raise DataError(
                f"cannot take {count} images from a data set of {len(self)}; without a number, in "
                "a study data.images = 0, all are taken"
            )


@dataclass(frozen=True, eq=False)
class ImageTensors(ImageData):
    """Images, uint8 (N, C, H, W), with labels (N,), all in memory.

    An index may be a list: a data loader then fetches a whole batch at once.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | list[int]) -> tuple[Tensor, Tensor]:
        images = self.images[index]
        if self.transform is not None and images.ndim == 3:
            images = self.transform(images)
        elif self.transform is not None:  # one by one: torchvision draws once per call
            images = torch.stack([self.transform(image) for image in images])
        return images, self.labels[index]

    def first(self, count: int) -> Self:
        """The first `count` images."""
        self._check_count(count)
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def _labels(self) -> Tensor:
        return self.labels

    def _take(self, indices: Tensor) -> Self:
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def prepared(self, config: TrainingConfig, training: bool) -> Self:
        """The same images, unchanged unless the recipe crops, resizes or augments them."""
        images, side = self.images, config.resolution
        drawn = training and config.random_resized_crop
        if 0 < side < WHOLE_FROM and min(images.shape[2:]) == short_side(side) and not drawn:
            images = center_crop(images, [side])  # the evaluation's crop, of all at once
        height, width = images.shape[2:]
        transform = image_transform(config, training, (height, width))
        return replace(self, images=images, transform=transform)


@dataclass(frozen=True, eq=False)
class ImageFiles(ImageData):
    """Any torchvision data set of PIL images and labels, or a list of paths and labels.

    The images become RGB, or grey where mean and std are of one channel.
    """

    files: Dataset[tuple[Image.Image, int]] | Sequence[tuple[Path, int]]
    mean: tuple[float, ...] = field(default=IMAGENET_MEAN, kw_only=True)
    std: tuple[float, ...] = field(default=IMAGENET_STD, kw_only=True)
    size: tuple[int, int] | None = field(default=None, kw_only=True)  # (H, W), if all share it
    in_turn: bool = field(default=False, kw_only=True)  # one image of each class after another

    def __len__(self) -> int:
        return len(self.files)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.files[index]
        if isinstance(image, Path):
            image = read_image(image)
        mode = "L" if self.channels == 1 else "RGB"
        if image.mode != mode:
            image = image.convert(mode)
        if self.transform is not None:
            image = self.transform(image)
        return pil_to_tensor(image), label

    def first(self, count: int) -> Self:
        """The first images; in a fixed random order where files are sorted by class."""
        self._check_count(count)
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))
        return self._take(torch.arange(count) if self.in_turn else order[:count])

    def _labels(self) -> Tensor:
        return torch.tensor(_labels_of(self.files))

    def _take(self, indices: Tensor) -> Self:
        return replace(self, files=Subset(self.files, indices.tolist()))  # type: ignore[arg-type]

    def prepared(self, config: TrainingConfig, training: bool) -> Self:
        """The same images, all of one size: the recipe's resolution, their own, or 224."""
        return replace(self, transform=image_transform(config, training, self.size))


def _labels_of(files: Any) -> list[int]:
    """The labels of a torchvision data set, without reading its images where it lists them."""
    if isinstance(files, Subset):
        known = _labels_of(files.dataset)
        return [known[index] for index in files.indices]
    samples = getattr(files, "samples", None) or getattr(files, "_samples", None)  # Imagenette's
    return [label for _, label in samples or files]
