"""One image at a time, in a data loader's workers: crops, sizes and RandAugment.

Flips, shifts, erasing and mixing are done to whole batches, in `batch_transforms`. The transforms
take PIL images as well as uint8 tensors (C, H, W).
"""

from collections.abc import Callable
from typing import Any

from torchvision.transforms import InterpolationMode, v2

from convnext_steps.training.config import MAX_MAGNITUDE, TrainingConfig

ONE_BY_ONE = ("resolution", "random_resized_crop", "rand_augment")  # fields that are done here
DEFAULT_RESOLUTION = 224  # for images of many sizes
WHOLE_FROM = 384  # from this resolution on, the official evaluation does not crop


def image_transform(
    config: TrainingConfig, training: bool, size: tuple[int, int] | None = None
) -> Callable[[Any], Any] | None:
    """The transform of one image that a recipe asks for; None if it asks for none.

    Args:
        config: the recipe: its resolution and, for training, `random_resized_crop` and
            `rand_augment`.
        training: whether the images are for training.
        size: (H, W) of all images, if they share one; they keep it if the recipe has no resolution.
    """
    resolution = config.resolution or DEFAULT_RESOLUTION
    wanted = (resolution, resolution) if config.resolution or size is None else size
    if training and config.random_resized_crop:
        bicubic = InterpolationMode.BICUBIC
        steps: list[Any] = [v2.RandomResizedCrop(wanted, interpolation=bicubic)]
    else:
        steps = [] if wanted == size else evaluation_crop(resolution)
    if training and config.rand_augment:
        # the paper's "(9, 0.5)": two operations, each with probability 0.5
        one = v2.RandAugment(1, config.rand_augment, num_magnitude_bins=MAX_MAGNITUDE + 1)
        steps += [v2.RandomApply([one], p=0.5), v2.RandomApply([one], p=0.5)]
    return v2.Compose(steps) if steps else None


def evaluation_crop(resolution: int) -> list[Any]:
    """The centre crop for evaluation, as in the official repository's `datasets.py`.

    Below 384, the short side is resized to 256/224 of the resolution and the centre is cut out;
    from 384 on, the whole image is resized to the square.
    """
    if resolution >= WHOLE_FROM:
        return [v2.Resize((resolution, resolution), interpolation=InterpolationMode.BICUBIC)]
    resize = v2.Resize(short_side(resolution), interpolation=InterpolationMode.BICUBIC)
    return [resize, v2.CenterCrop(resolution)]


def short_side(resolution: int) -> int:
    """The short side that leaves room for crops of a resolution: 256 for 224."""
    return resolution * 256 // 224
