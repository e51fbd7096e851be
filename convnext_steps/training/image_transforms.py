"""What happens to one image at a time, in a loader's workers: crops, sizes and RandAugment.

Flips, shifts, erasing and mixing happen to whole batches, in `augment`. The transforms take PIL
images, and uint8 tensors (C, H, W) alike.
"""

from collections.abc import Callable
from typing import Any

from torchvision.transforms import InterpolationMode, v2

from convnext_steps.training.config import TrainingConfig

DEFAULT_RESOLUTION = 224  # of images that come in many sizes
WHOLE_FROM = 384  # the resolution from which on the official evaluation crops nothing
MAGNITUDES = 11  # from 0 to 10: the authors' scale (timm's), where torchvision's ends at 30


def image_transform(
    config: TrainingConfig, training: bool, size: tuple[int, int] | None = None
) -> Callable[[Any], Any] | None:
    """A recipe's transform of one image, if it has any.

    Args:
        config: its resolution and, for training, `random_resized_crop` and `rand_augment` count.
        training: whether the images are to train on.
        size: (H, W) of all images where they share one: without a resolution, they keep it.

    Raises:
        ValueError: there is no such magnitude.
    """
    steps = _geometry(config, training, size)
    if config.rand_augment >= MAGNITUDES:
        raise ValueError(f"rand_augment is {config.rand_augment}; it ends at {MAGNITUDES - 1}")
    if training and config.rand_augment:
        # the paper's "(9, 0.5)": two operations, each with probability 0.5
        one = v2.RandAugment(1, config.rand_augment, num_magnitude_bins=MAGNITUDES)
        steps += [v2.RandomApply([one], p=0.5), v2.RandomApply([one], p=0.5)]
    return v2.Compose(steps) if steps else None


def _geometry(config: TrainingConfig, training: bool, size: tuple[int, int] | None) -> list[Any]:
    resolution = config.resolution or DEFAULT_RESOLUTION
    wanted = (resolution, resolution) if config.resolution or size is None else size
    if training and config.random_resized_crop:
        return [v2.RandomResizedCrop(wanted, interpolation=InterpolationMode.BICUBIC)]
    return [] if wanted == size else evaluation_crop(resolution)


def evaluation_crop(resolution: int) -> list[Any]:
    """The centre of an image for evaluation, as in the official repository's `datasets.py`.

    Below 384 the short side becomes 256/224 of the resolution and the centre is cut out; from 384
    on the whole image is squeezed into the square.
    """
    if resolution >= WHOLE_FROM:
        return [v2.Resize((resolution, resolution), interpolation=InterpolationMode.BICUBIC)]
    short_side = resolution * 256 // 224
    resize = v2.Resize(short_side, interpolation=InterpolationMode.BICUBIC)
    return [resize, v2.CenterCrop(resolution)]
