"""Augmentation of a whole batch at once, drawn anew for each of its images.

torchvision's transforms draw one parameter for all that they are given: applied to a batch, every
image would move alike.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


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
