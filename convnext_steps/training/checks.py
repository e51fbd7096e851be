"""Whether data fit a model, checked before PyTorch would fail less clearly."""

from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from convnext_steps.errors import TrainingError
from convnext_steps.models.checks import check_size
from convnext_steps.models.layers import first_convolution
from convnext_steps.training.data import ImageData


def check_fit(model: nn.Module, dataset: Dataset[Any]) -> None:
    """Check the first image of a data set, and its number of classes.

    Raises:
        TrainingError: there are no images, they are too small or have another number of channels
            than the model takes, or there are more classes than the model has outputs.
    """
    if len(dataset) == 0:  # type: ignore[arg-type]
        raise TrainingError("the training set has no images")
    image = dataset[0][0]
    first = first_convolution(model)
    if first is not None and image.shape[0] != first.in_channels:
        raise TrainingError(
            f"the images have {image.shape[0]} channels, but the network takes "
            f"{first.in_channels}; build it with in_channels={image.shape[0]}"
        )
    try:
        height, width = image.shape[-2:]
        check_size(height, width, getattr(model, "smallest_side", 1))
    except ValueError as error:
        raise TrainingError(str(error)) from None
    classes = output_classes(model)
    if isinstance(dataset, ImageData) and 0 < classes < dataset.num_classes:
        raise TrainingError(
            f"the data have {dataset.num_classes} classes, but the network has {classes}; "
            f"build it with num_classes={dataset.num_classes}"
        )


def output_classes(model: nn.Module) -> int:
    """The outputs of the model's last linear layer; 0 if it has none."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return linear[-1].out_features if linear else 0


def check_labels(labels: Tensor, classes: int) -> None:
    """Check that every label is one of the network's classes.

    Raises:
        TrainingError: a label is negative, or not below the number of classes.
    """
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise TrainingError(
            f"a label is {low if low < 0 else high}, but the network has {classes} classes, "
            f"0 to {classes - 1}; build it with a larger num_classes, or correct the labels"
        )
