"""What limits a layer on this machine: its arithmetic or its memory."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from convnext_steps.measure.flops import count_flops
from convnext_steps.measure.speed import time_once
from convnext_steps.models.layers import LayerNorm2d


@dataclass(frozen=True)
class LayerPoint:
    """One layer's forward pass on the roofline."""

    name: str
    operations: int  # a multiply-add counts as two
    bytes: int  # of the input, the output and the weights, each moved once
    seconds: float

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.operations / self.bytes

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds


def layers(channels: int) -> dict[str, nn.Module]:
    """The layers of a ConvNeXt block, and a ResNet's dense 3x3 convolution, by name."""
    return {
        "dense 3x3": nn.Conv2d(channels, channels, 3, padding=1),
        "1x1 to 4x channels": nn.Conv2d(channels, 4 * channels, 1),
        "depthwise 7x7": nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
        "depthwise 3x3": nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
        "LayerNorm": LayerNorm2d(channels),
    }


@torch.inference_mode()
def measure_layers(
    channels: int = 96, side: int = 56, batch_size: int = 8, rounds: int = 10
) -> list[LayerPoint]:
    """Time each of `layers` on a batch of feature maps, in float32, channels last.

    Args:
        channels: channels of the feature maps; 96 at 56x56 is the first stage of ConvNeXt-T.
        side: height and width of the feature maps.
        batch_size: images in the batch.
        rounds: timings of each layer; the best counts.
    """
    x = torch.randn(batch_size, channels, side, side).contiguous(memory_format=torch.channels_last)
    points = []
    for name, layer in layers(channels).items():
        layer.to(memory_format=torch.channels_last)
        count = count_flops(layer, side, channels)
        operations = (2 * count.conv_linear + count.norm) * batch_size
        moved = 4 * (x.numel() + layer(x).numel() + count.params)
        once = partial(layer, x)
        seconds = min(time_once(once) for _ in range(rounds + 1))  # the first prepares the weights
        points.append(LayerPoint(name, operations, moved, seconds))
    return points


def memory_rate(megabytes: int = 256) -> float:
    """The memory bandwidth of a copy on this machine: bytes read and written per second."""
    source = torch.zeros(megabytes * 2**18)  # four bytes each; larger than any cache
    target = torch.empty_like(source)
    seconds = min(time_once(partial(target.copy_, source)) for _ in range(5))
    return 2 * 4 * source.numel() / seconds
