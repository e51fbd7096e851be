"""Predict, then measure: multiply-adds by a formula, by fvcore, and as the paper prints them."""

from collections.abc import Mapping

import pandas as pd

from convnext_steps.measure.flops import count_flops
from convnext_steps.models.design import Design
from convnext_steps.models.roadmap import find_step
from convnext_steps.text import number


def multiply_adds(design: Design, resolution: int = 224, num_classes: int = 1000) -> int:
    """The multiply-adds of a design's convolutions and classifier by formula; nothing is built.

    Args:
        design: the design.
        resolution: side of the square image in pixels, a multiple of the network's whole stride.
        num_classes: outputs of the classifier.
    """
    side = resolution // design.stem_stride
    total = _stem(design, side)
    channels = design.width
    for index, depth in enumerate(design.depths):
        wide = design.expansion * design.width * 2**index
        stride = 1 if index == 0 else 2
        if stride == 2 and design.downsampling == "separate":
            total += 4 * channels * wide * (side // 2) ** 2
            channels, stride, side = wide, 1, side // 2
        for _ in range(depth):
            total += block_multiply_adds(design, channels, wide, side, stride)
            channels, stride, side = wide, 1, side // stride
    return total + channels * num_classes


def block_multiply_adds(design: Design, before: int, after: int, side: int, stride: int = 1) -> int:
    """The multiply-adds of one residual block.

    Args:
        design: the design.
        before: input channels.
        after: output channels.
        side: of the input, in pixels.
        stride: of the spatial convolution.
    """
    large, small = side**2, (side // stride) ** 2  # positions before and after the stride
    hidden = after // design.expansion if design.layout == "bottleneck" else 4 * after
    spatial_channels = before if design.layout == "depthwise_first" else hidden
    per_channel = 1 if design.depthwise else spatial_channels
    spatial = design.kernel_size**2 * per_channel * spatial_channels * small
    first = before * hidden * (small if design.layout == "depthwise_first" else large)
    projection = before * after * small if stride > 1 or before != after else 0
    return first + spatial + hidden * after * small + projection


def _stem(design: Design, side: int) -> int:
    """For an RGB image; `side` is that of the stem's output."""
    if design.stem == "patchify":
        return 3 * design.width * design.stem_stride**2 * side**2
    kernel = 7 if design.stem_stride == 4 else 3
    before_pooling = side if design.stem_stride == 1 else 2 * side
    return 3 * design.width * kernel**2 * before_pooling**2


def predict_then_measure(guesses: Mapping[str, float]) -> pd.DataFrame:
    """One row per step: the guess, the formula, fvcore and the paper, in 1e9 multiply-adds.

    At 224x224 pixels, as the paper counts.

    Args:
        guesses: the reader's, by step; 0 where none was made.
    """
    rows = []
    for name, guess in guesses.items():
        step = find_step(name)
        counted = count_flops(step.build()).conv_linear
        rows.append(
            {
                "step": step.title,
                "your guess": number(guess or None),
                "by formula": f"{multiply_adds(step.design) / 1e9:.3f}",
                "fvcore": f"{counted / 1e9:.3f}",
                "paper": f"{step.paper.gflops_printed:.2f}{'*' if step.paper.erratum else ''}",
            }
        )
    return pd.DataFrame(rows).set_index("step")
