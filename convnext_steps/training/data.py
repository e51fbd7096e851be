"""The data sets of the study, whole in memory as bytes."""

import gzip
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import FashionMNIST

ARCHIVES = Path(__file__).parent / "fashion_mnist"
SHA256 = {
    "train-images-idx3-ubyte": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}


class DataError(ValueError):
    """A data set is missing, damaged or unknown; the message says what to do."""


@dataclass(frozen=True, eq=False)
class ImageTensors(Dataset[tuple[Tensor, Tensor]]):
    """Images (N, C, H, W) as uint8 with labels (N,), and how to normalise them.

    Indexing takes one index or a list of them, so that a loader fetches whole batches at once.
    """

    images: Tensor
    labels: Tensor
    mean: float  # of the pixels of the training images, in [0, 1]
    std: float
    num_classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | list[int]) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]

    def first(self, count: int) -> "ImageTensors":
        """The first `count` images.

        Raises:
            DataError: there are fewer.
        """
        if not 1 <= count <= len(self):
            raise DataError(f"cannot take {count} images from a data set of {len(self)}")
        return ImageTensors(
            self.images[:count], self.labels[:count], self.mean, self.std, self.num_classes
        )


def fashion_mnist(train: bool, archives: Path = ARCHIVES) -> ImageTensors:
    """Fashion-MNIST (Xiao et al., 2017; MIT licence), 28x28 padded to 32x32, from the package.

    Raises:
        DataError: an archive is missing or damaged.
    """
    with tempfile.TemporaryDirectory() as root:
        raw = Path(root, "FashionMNIST", "raw")
        raw.mkdir(parents=True)
        for name, checksum in SHA256.items():
            _unpack(archives / f"{name}.gz", checksum, raw / name)
        dataset = FashionMNIST(root, train=train)
    images = torch.nn.functional.pad(dataset.data[:, None], (2, 2, 2, 2))  # (N, 1, 32, 32)
    return ImageTensors(images, dataset.targets, mean=0.2860, std=0.3530, num_classes=10)


def _unpack(archive: Path, checksum: str, target: Path) -> None:
    remedy = "install convnext_steps again, or restore the file with `git checkout`"
    if not archive.is_file():
        raise DataError(f"{archive} is missing; {remedy}")
    if hashlib.sha256(archive.read_bytes()).hexdigest() != checksum:
        raise DataError(f"{archive} is damaged (its SHA-256 sum is another); {remedy}")
    with gzip.open(archive) as source, target.open("wb") as destination:
        shutil.copyfileobj(source, destination)


def synthetic(train: bool, count: int = 512, classes: int = 4) -> ImageTensors:
    """Noisy 32x32 images whose bright quarter is the label, the same on every machine."""
    generator = torch.Generator().manual_seed(0 if train else 1)
    labels = torch.arange(count) % classes
    images = torch.randint(0, 128, (count, 1, 32, 32), generator=generator, dtype=torch.uint8)
    for label in range(classes):
        row, column = 16 * (label // 2), 16 * (label % 2)
        images[labels == label, :, row : row + 16, column : column + 16] += 24
    return ImageTensors(images, labels, mean=0.27, std=0.15, num_classes=classes)


@dataclass(frozen=True)
class Source:
    """A named data set: how its two halves are read, and what tells this version from others."""

    load: Callable[[bool], ImageTensors]
    fingerprint: str


SOURCES = {
    "fashion_mnist": Source(fashion_mnist, "sha256 " + " ".join(SHA256.values())),
    "synthetic": Source(synthetic, "version 1"),
}


def load_data(name: str, train_images: int | None = None) -> tuple[ImageTensors, ImageTensors]:
    """The training and the test half of a named data set.

    Args:
        name: a key of `SOURCES`.
        train_images: train on the first so many images only.

    Raises:
        DataError: the name is unknown, or the data are missing, damaged or too few.
    """
    if name not in SOURCES:
        raise DataError(f"unknown data set {name!r}; choose from {', '.join(SOURCES)}")
    train, test = SOURCES[name].load(True), SOURCES[name].load(False)
    return (train.first(train_images) if train_images else train), test
