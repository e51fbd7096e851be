"""Augmentation of a whole batch at once, drawn anew for each of its images.

torchvision's transforms draw one parameter for all that they are given: applied to a batch, every
image would move alike.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from convnext_steps.training.config import TrainingConfig


def random_shift(images: Tensor, pixels: int) -> Tensor:
    """Move each image by up to `pixels` in both directions, filling with zeros, (N, C, H, W)."""
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

    Zhong et al., 2020: an area of 2 to 33 per cent, an aspect ratio of 0.3 to 3.3. The images are
    normalised floats, so the noise has their mean and spread.
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


def label_mixing(
    config: TrainingConfig, classes: int
) -> Callable[..., tuple[Tensor, Tensor]] | None:
    """MixUp, CutMix, or for each batch one of the two at random; None where both are off."""
    from torchvision.transforms import v2

    kinds: list[v2.Transform] = []
    if config.mixup:
        kinds.append(v2.MixUp(alpha=float(config.mixup), num_classes=classes))
    if config.cutmix:
        kinds.append(v2.CutMix(alpha=float(config.cutmix), num_classes=classes))
    return v2.RandomChoice(kinds) if kinds else None
