"""MixUp and CutMix of whole batches, with numbers drawn on the device.

torchvision's draw theirs as Python numbers, on the CPU, and wait for the device.
"""

import torch
from torch import Tensor
from torch.distributions import Beta

from convnext_steps.training.config import TrainingConfig


class LabelMixing:
    """Mixes each image with the one before it; with MixUp and CutMix on, each batch gets one.

    MixUp (Zhang et al., 2018) adds them up with a weight from Beta(alpha, alpha); CutMix (Yun et
    al., 2019) takes a rectangle of one minus that share of the area from the other image.

    Args:
        config: the recipe, with the alphas; at least one of them is above 0.
        classes: how many there are.
        device: where the batches are.
    """

    def __init__(self, config: TrainingConfig, classes: int, device: torch.device) -> None:
        self.classes = torch.arange(classes, device=device)
        self.mixup, self.cutmix = (
            _beta(float(alpha), device) if alpha else None
            for alpha in (config.mixup, config.cutmix)
        )

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mixed images, (N, C, H, W), and the shares of the classes in each, (N, classes)."""
        keep = self._keep(images)
        mixed = images * keep + images.roll(1, 0) * (1 - keep)
        one_hot = (labels[:, None] == self.classes).to(keep.dtype)
        share = keep.mean()
        return mixed, one_hot * share + one_hot.roll(1, 0) * (1 - share)

    def _keep(self, images: Tensor) -> Tensor:
        """How much of each image stays at each position, (H, W), in [0, 1]."""
        height, width = images.shape[2:]
        if self.mixup is None:
            return self._outside_a_box(height, width)
        even = self.mixup.sample().expand(height, width)
        if self.cutmix is None:
            return even
        chosen = torch.rand(1, device=images.device) < 0.5
        return torch.where(chosen, even, self._outside_a_box(height, width))

    def _outside_a_box(self, height: int, width: int) -> Tensor:
        """1 outside a rectangle, 0 inside: it is cut off where it crosses the image's edge."""
        assert self.cutmix is not None
        share = self.cutmix.sample()
        device = share.device
        half = 0.5 * (1 - share).sqrt()  # of the sides
        y, x = (torch.arange(size, device=device) for size in (height, width))
        top = torch.randint(height, (1,), device=device) - (half * height).int()
        left = torch.randint(width, (1,), device=device) - (half * width).int()
        tall, wide = (2 * (half * size).int() for size in (height, width))
        rows, columns = (y >= top) & (y < top + tall), (x >= left) & (x < left + wide)
        return 1 - (rows[:, None] & columns).to(share.dtype)


def _beta(alpha: float, device: torch.device) -> Beta:
    alphas = torch.full((1,), alpha, device=device)
    return Beta(alphas, alphas, validate_args=False)  # which would wait for the device
