"""The data sets by name: bundled, synthetic, downloaded, or your own."""

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST
from torchvision.datasets.imagenet import ARCHIVE_META

from convnext_steps.errors import DataError
from convnext_steps.files import expanded, fault
from convnext_steps.text import unknown
from convnext_steps.training import downloads
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.downloads import user_cache
from convnext_steps.training.folder import load_folder
from convnext_steps.training.folder_files import read_folder
from convnext_steps.training.images import ImageData, ImageTensors

ARCHIVES = Path(__file__).parent / "fashion_mnist"
SHA256 = {
    "train-images-idx3-ubyte": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}


def fashion_mnist(train: bool) -> ImageTensors:
    """Fashion-MNIST (Xiao et al., 2017; MIT licence), 28x28 padded to 32x32, from the package.

    Raises:
        DataError: an archive is missing or damaged.
    """
    half = "train" if train else "t10k"
    images = _unpacked(f"{half}-images-idx3-ubyte")[16:].view(-1, 1, 28, 28)  # after its header
    labels = _unpacked(f"{half}-labels-idx1-ubyte")[8:].long()
    images = torch.nn.functional.pad(images, (2, 2, 2, 2))
    names = tuple(FashionMNIST.classes)
    return ImageTensors(
        images, labels, mean=(0.2860,), std=(0.3530,), num_classes=10, classes=names
    )


def _unpacked(name: str) -> Tensor:
    archive = ARCHIVES / f"{name}.gz"
    if problem := fault(archive, SHA256[name]):
        remedy = "install convnext_steps again, or restore the file with `git checkout`"
        raise DataError(f"{archive} is {problem}; {remedy}")
    content = bytearray(gzip.decompress(archive.read_bytes()))  # torch wants it writable
    return torch.frombuffer(content, dtype=torch.uint8)


def synthetic(train: bool, count: int = 512) -> ImageTensors:
    """Noisy 32x32 images whose bright quarter is the label, the same on every machine."""
    generator = torch.Generator().manual_seed(0 if train else 1)
    labels = torch.arange(count) % 4
    images = torch.randint(0, 128, (count, 1, 32, 32), generator=generator, dtype=torch.uint8)
    for label in range(4):
        row, column = 16 * (label // 2), 16 * (label % 2)
        images[labels == label, :, row : row + 16, column : column + 16] += 24
    return ImageTensors(images, labels, mean=(0.27,), std=(0.15,), num_classes=4)


@dataclass(frozen=True)
class Source:
    """A named data set: how to read its two halves, and what identifies this version of it.

    Without `read`, it is a folder of one's own, for `load_folder`.
    """

    read: Callable[[bool, Path], ImageData] | None  # training half or not, the folder
    fingerprint: str


CIFAR10_STATISTICS = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR100_STATISTICS = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)

SOURCES = {
    "fashion_mnist": Source(
        lambda train, root: fashion_mnist(train), "sha256 " + " ".join(SHA256.values())
    ),
    "synthetic": Source(lambda train, root: synthetic(train), "version 1"),
    "cifar10": Source(
        partial(downloads.cifar, CIFAR10, *CIFAR10_STATISTICS), f"md5 {CIFAR10.tgz_md5}"
    ),
    "cifar100": Source(
        partial(downloads.cifar, CIFAR100, *CIFAR100_STATISTICS), f"md5 {CIFAR100.tgz_md5}"
    ),
    "imagenette": Source(downloads.imagenette, f"md5 {downloads.IMAGENETTE['320px'][1]}"),
    "imagenette_full": Source(
        partial(downloads.imagenette, size="full"), f"md5 {downloads.IMAGENETTE['full'][1]}"
    ),
    "imagenet": Source(
        downloads.imagenet, " ".join(["md5", *(md5 for _, md5 in ARCHIVE_META.values())])
    ),
    "folder": Source(None, "whatever the folder holds"),
}


def data_root() -> Path:
    """The folder for downloads: $CONVNEXT_STEPS_DATA, or `convnext_steps` in the user's cache."""
    if chosen := os.environ.get("CONVNEXT_STEPS_DATA"):
        return expanded(chosen)
    return user_cache()


def content_of(name: str, root: str | Path | None = None, skip_broken: bool = False) -> str:
    """What tells the content of a data set from any other, wherever it is.

    Of a folder the classes and the content of the image files count, not the files' names or dates.
    The first time every file is read, later only those that are new or have changed.

    Args:
        name: a key of `SOURCES`.
        root: the folder, if the name is "folder"; see `load_data`.
        skip_broken: go on without the images of a folder that cannot be read; they do not count.

    Raises:
        DataError: the name is unknown, or something is wrong with the folder.
    """
    if name == "folder":
        return read_folder(root, skip_broken).content
    return _source(name).fingerprint


def load_data(
    name: str,
    train_images: int | None = None,
    *,
    config: TrainingConfig | None = None,
    root: str | Path | None = None,
    held_out: float = 0.0,
    skip_broken: bool = False,
) -> tuple[ImageData, ImageData]:
    """The training and the test half of a named data set.

    Args:
        name: a key of `SOURCES`.
        train_images: how many training images to take, always the same ones (of a folder, as many
            of each class); None for all.
        config: its `resolution`, `random_resized_crop` and `rand_augment` are applied. By default,
            images that share a size keep it, and published files are cropped to 224x224.
        root: the data set's folder; by default the one with its name in `data_root()`, and for
            "folder" $CONVNEXT_STEPS_DATA itself.
        held_out: the share of each class of the training images that is set aside, always the same
            images, and returned in place of the test images; for choosing between settings.
        skip_broken: go on without the images of a folder that cannot be read.

    Raises:
        DataError: the name is unknown, the data are missing, damaged or too few, or `held_out` is
            out of range.
    """
    source = _source(name)
    if not 0 <= held_out < 1:
        raise DataError(f"held_out is {held_out}; it must be at least 0 and below 1")
    config = config or TrainingConfig()
    if source.read is None:
        train, test = load_folder(root, config, skip_broken)
    else:
        own = expanded(root) if root is not None else data_root() / name
        train, test = (source.read(training, own) for training in (True, False))
    if train_images is not None:
        train = train.first(train_images)
    if held_out:
        train, test = train.split(held_out)
    return train.prepared(config, training=True), test.prepared(config, training=False)


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise DataError(unknown("data set", name, SOURCES))
    return SOURCES[name]
