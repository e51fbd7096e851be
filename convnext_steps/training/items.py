"""The items of any data set: checked, drawn by seed, and copied to a GPU."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
)

from convnext_steps.errors import TrainingError
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.image_transforms import ONE_BY_ONE, image_transform
from convnext_steps.training.images import ImageData, ImageFiles, ImageTensors
from convnext_steps.training.seeds import own_random_numbers, seed_cpu

LOG = logging.getLogger("convnext_steps")
SAMPLES = 8  # items that are looked at before training


class SeededItems(Dataset[Any]):
    """A data set whose items draw their random numbers by a seed and their own index.

    A random transform then gives the same, in whichever process and order the items are read.
    """

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        items = []
        with own_random_numbers():
            for index in indices:
                seed_cpu(self.seed, index)
                items.append(self.dataset[index])
        return items


def takes_batches(dataset: Dataset[Any]) -> bool:
    """Whether an index may be a whole batch: the data are in memory and drawn from as they are."""
    if isinstance(dataset, ImageTensors):
        return dataset.transform is None
    return type(dataset) is TensorDataset


SHARE = 0.25  # of a GPU's free memory that one data set may take


def to_device(dataset: Dataset[Any], device: torch.device) -> Dataset[Any]:
    """The data set on a GPU, if it is in memory and fits."""
    if device.type == "cpu" or not takes_batches(dataset):
        return dataset
    size = sum(tensor.nbytes for tensor in _tensors(dataset))
    if device.type == "cuda" and size > SHARE * torch.cuda.mem_get_info(device)[0]:
        return dataset
    images, labels = (tensor.to(device) for tensor in _tensors(dataset))
    if isinstance(dataset, ImageTensors):
        return replace(dataset, images=images, labels=labels)
    return TensorDataset(images, labels)


def _tensors(dataset: Any) -> tuple[Tensor, ...]:
    """The images and the labels of data in memory."""
    if isinstance(dataset, ImageTensors):
        return dataset.images, dataset.labels
    tensors: tuple[Tensor, ...] = dataset.tensors
    return tensors


def on_device(dataset: Any) -> bool:
    """Whether a data set's images are on a GPU."""
    return takes_batches(dataset) and bool(_tensors(dataset)[1].device.type != "cpu")


def collate(items: list[Any]) -> Any:
    """A batch of items.

    Raises:
        TrainingError: one is no pair of image and label, or they differ in size or type.
    """
    for problem in filter(None, map(_problem, items)):
        raise TrainingError(f"an item {problem}")
    pairs = [(torch.as_tensor(image), int(label)) for image, label in items]
    kinds = {str(image.dtype).removeprefix("torch.") for image, _ in pairs}
    if len(kinds) > 1:
        raise TrainingError(
            f"the images of a batch are {' and '.join(sorted(kinds))}; make them alike"
        )
    shapes = {tuple(image.shape) for image, _ in pairs}
    if len(shapes) > 1:
        one, other = sorted(shapes)[:2]
        raise TrainingError(
            f"the images of a batch have different sizes, such as {one} and {other}; "
            "resize them all alike"
        )
    return default_collate(pairs)


def check_items(dataset: Dataset[Any], role: str) -> tuple[Tensor, Tensor]:
    """Check a few items of a data set; return the first image and the labels that are known.

    Args:
        dataset: any.
        role: "training" or "test", for messages.

    Raises:
        TrainingError: it has no length or no images, an item is not a pair of image and label, or
            the images have different sizes.
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise TrainingError(
            f"the {role} set is a {type(dataset).__name__}, which has no item by index; "
            "give a data set with __len__ and __getitem__"
        )
    if not hasattr(dataset, "__len__"):
        raise TrainingError(f"the {role} set, a {type(dataset).__name__}, has no __len__")
    size = len(dataset)
    if size == 0:
        raise TrainingError(f"the {role} set has no images")
    places = np.linspace(0, size - 1, SAMPLES).astype(int).tolist()
    images, labels = [], []
    for place in sorted(set(places if not takes_batches(dataset) else places[:1])):
        item = SeededItems(dataset, 0)[place]
        if problem := _problem(item):
            raise TrainingError(f"item {place} of the {role} set {problem}")
        images.append(torch.as_tensor(item[0]))
        labels.append(int(item[1]))
        if images[-1].shape != images[0].shape:
            raise TrainingError(
                f"item {place} of the {role} set is an image of {tuple(images[-1].shape)}, "
                f"item 0 of {tuple(images[0].shape)}; resize them all alike"
            )
    return images[0], _tensors(dataset)[1] if takes_batches(dataset) else torch.tensor(labels)


def _problem(item: Any) -> str:
    """What is wrong with an item; nothing ("") if it is a pair of image and label."""
    pair = "; it must be (image, label)"
    if isinstance(item, Mapping):
        return f"is a dictionary with {', '.join(map(str, item))}{pair}"
    if not isinstance(item, tuple | list):
        return f"is of type {type(item).__name__}{pair}"
    if len(item) != 2:
        return f"has {len(item)} parts{pair}"
    image, label = item
    if not isinstance(image, Tensor | np.ndarray):
        hint = "torchvision.transforms.v2.functional.pil_to_tensor makes one of a PIL image"
        return f"has an image of type {type(image).__name__}; it must be a tensor ({hint})"
    if isinstance(image, np.ndarray) and min(image.strides, default=0) < 0:
        return "has an image that NumPy has flipped in place only; copy it (np.ascontiguousarray)"
    if image.ndim != 3:
        return f"has an image of shape {tuple(image.shape)}; it must be (C, H, W)"
    value = np.asarray(label.tolist() if isinstance(label, Tensor) else label)
    if value.ndim or value.dtype.kind not in "iub":
        kind = f"of shape {value.shape}" if value.ndim else f"{value.item()!r}"
        return f"has a label {kind}; it must be one whole number, 0 or above"
    return ""


def image_data(dataset: Any) -> ImageData | None:
    """The data set of ours in subsets and concatenations of it, whose mean and std are known.

    None if there is none.

    Raises:
        TrainingError: several are put together whose images are normalised differently.
    """
    if isinstance(dataset, ImageData):
        return dataset
    parts = getattr(dataset, "datasets", [getattr(dataset, "dataset", None)])
    found = [image_data(part) for part in parts if part is not None]
    known = [part for part in found if part is not None]
    if not known:
        return None
    if len(known) < len(found) or len({(part.mean, part.std) for part in known}) > 1:
        raise TrainingError(
            "the data sets that are put together have different means and stds of their images; "
            "give them the same (dataclasses.replace), or normalise the images yourself"
        )
    return known[0]


def say_unapplied(dataset: Dataset[Any], config: TrainingConfig) -> None:
    """Say which fields of a recipe do nothing, because `load_data` would have applied them."""
    size = SeededItems(dataset, 0)[0][0].shape[1:]
    transformed = getattr(image_data(dataset), "transform", None) is not None
    if not transformed and image_transform(config, training=True, size=tuple(size)):
        fields = [name for name in ONE_BY_ONE if getattr(config, name)]
        LOG.warning(
            "the training images stay as they are, without the recipe's %s; load_data(name, "
            "config=...) applies them, or give the data set a transform of its own",
            " and ".join(fields),
        )


def class_names(dataset: Any) -> tuple[str, ...]:
    """The names of the classes, in the order of the labels, as far as a data set knows them.

    Of subsets and concatenations they are those of what is in them; another kind of data set around
    one may have labels of its own.
    """
    while True:
        if isinstance(dataset, Subset):
            dataset = dataset.dataset
        elif isinstance(dataset, ConcatDataset):
            dataset = dataset.datasets[0]
        elif isinstance(dataset, ImageFiles) and not dataset.classes:
            dataset = dataset.files
        else:
            break
    names = getattr(dataset, "classes", ())
    if isinstance(names, dict):
        if all(isinstance(label, Integral) for label in names.values()):
            names = {label: name for name, label in names.items()}
        whole = all(isinstance(label, Integral) for label in names)
        names = [names[label] for label in sorted(names)] if whole else list(names)
    if not isinstance(names, list | tuple):
        return ()
    return tuple(", ".join(map(str, n)) if isinstance(n, list | tuple) else str(n) for n in names)


def common_classes(train: Dataset[Any], test: Dataset[Any]) -> tuple[str, ...]:
    """The names of the classes of a training set, which its test set shares or does not know.

    Raises:
        TrainingError: the test set has others.
    """
    names = class_names(train)
    if names and class_names(test) not in ((), names):
        raise TrainingError("the test set's classes differ from the training set's")
    return names
