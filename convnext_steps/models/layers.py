"""The layers that the roadmap and the published family share."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of each position, (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each position by itself."""
        x = x.permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), a view when channels are last
        x = x.to(self.weight.dtype)  # float32 under autocast, as on GPUs; mixed types are slow
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


def classifier(channels: int, num_classes: int) -> nn.Linear | nn.Identity:
    """The last layer, (N, channels) -> (N, num_classes); with 0 classes, none, as in timm."""
    return nn.Linear(channels, num_classes) if num_classes else nn.Identity()


def first_convolution(model: nn.Module) -> nn.Conv2d | None:
    """The first `nn.Conv2d` of any network; None if it has none."""
    return next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; afterwards every module has its own mode again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
