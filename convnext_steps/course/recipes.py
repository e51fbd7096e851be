"""Figures of training recipes, made by the code that trains with them."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from convnext_steps.course.pictures import Picture
from convnext_steps.study.figures import STYLES, finish, own_style, subplots
from convnext_steps.training.batch_transforms import Preparation
from convnext_steps.training.config import TrainingConfig
from convnext_steps.training.images import ImageData, ImageTensors
from convnext_steps.training.optimization import schedule_factor

POINTS = 600  # steps of the training that is drawn
IMAGES = 6
AUGMENTATIONS = {
    "as they are": {},
    "shifted, flipped": {"random_shift": 4, "horizontal_flip": 0.5},
    "Random Erasing": {"random_erasing": 1.0},
    "MixUp": {"mixup": 0.8},
    "CutMix": {"cutmix": 1.0},
}


@own_style
def draw_schedules(recipes: Mapping[str, TrainingConfig]) -> Picture:
    """The learning rate of each recipe over its training, as a share of the peak.

    Args:
        recipes: by the name to write in the legend.
    """
    figure, axes = subplots(figsize=(7, 3.4))
    words = []
    for (name, config), style in zip(recipes.items(), STYLES, strict=False):
        factors = [schedule_factor(step, config, POINTS) for step in range(POINTS)]
        done = [100 * step / POINTS for step in range(POINTS)]
        peak = f"{config.optimizer}, peak {config.learning_rate:g}"
        axes.plot(done, factors, **(style | {"marker": ""}), label=f"{name} ({peak})")
        words.append(f"{name}: {config.schedule}, {peak}")
    axes.set(xlabel="training done (%)", ylabel="learning rate (share of its peak)")
    finish(axes, legend=True)
    return Picture(figure, f"Learning rates over the training. {'; '.join(words)}.")


@own_style
def draw_augmentations(data: ImageTensors) -> Picture:
    """The same images under each augmentation, one per row, as a network gets them.

    Args:
        data: grey images.
    """
    images, labels = data[list(range(IMAGES))]
    figure, panels = subplots(
        len(AUGMENTATIONS),
        IMAGES,
        squeeze=False,
        figsize=(1.25 * IMAGES + 1.2, 1.15 * len(AUGMENTATIONS)),
    )
    for row, (name, fields) in zip(panels, AUGMENTATIONS.items(), strict=True):
        shown = augmented(data, images, labels, fields)
        for axes, image in zip(row, shown, strict=True):
            axes.imshow(image[0].numpy(), cmap="gray", vmin=-1, vmax=2)
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return Picture(figure, f"{IMAGES} images, each row under one: {', '.join(AUGMENTATIONS)}.")


def augmented(
    data: ImageData, images: Tensor, labels: Tensor, fields: Mapping[str, float]
) -> Tensor:
    """A batch as the trainer prepares it with just these fields of a recipe, (N, C, H, W)."""
    pixels = images[0].numel()
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(pixels, data.num_classes))
    config = TrainingConfig(label_smoothing=0.0, **fields)  # type: ignore[arg-type]
    preparation = Preparation(classifier, data, config, torch.device("cpu"))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return preparation.for_training(images, labels)[0]
