"""The convolutions of the roadmap's networks: their padding, groups and biases."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from convnext_steps.models.design import Design


def padded_convolution(
    in_channels: int, out_channels: int, kernel_size: int, **options: Any
) -> nn.Conv2d:
    """A convolution that only its stride makes smaller, for odd kernel sizes.

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride), rounded up. The options
    are those of `nn.Conv2d`.
    """
    padding = kernel_size // 2
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, **options)


def convolution(design: Design, in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 1x1 convolution, without bias as long as BatchNorm would cancel it."""
    return nn.Conv2d(in_channels, out_channels, 1, bias=design.norm == "layer")


def spatial_convolution(design: Design, channels: int, stride: int) -> nn.Conv2d:
    """The convolution of a block that mixes positions, depthwise or not (Section 2.3)."""
    return padded_convolution(
        channels,
        channels,
        design.kernel_size,
        stride=stride,
        groups=channels if design.depthwise else 1,
        bias=design.norm == "layer",
    )


class SparseProjection(nn.Conv2d):
    """A 1x1 convolution with a stride, computed as one without on the pixels that it takes.

    On a CPU, the weight's gradient of PyTorch's own (2.14, channels-last) writes beside its memory
    where there are fewer than 8 input channels, which ends the process sooner or later.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H / stride, W / stride)."""
        rows, columns = self.stride
        return F.conv2d(x[:, :, ::rows, ::columns], self.weight)
