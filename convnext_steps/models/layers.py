"""The one layer of the roadmap that PyTorch does not have."""

import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of each position of an image, (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each position by itself."""
        x = x.permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), a view when channels are last
        x = x.to(self.weight.dtype)  # float32 under autocast, as on GPUs; mixed, it is slow
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)
