"""A network of the roadmap as one value: one field per decision of the paper."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from convnext_steps.models.checks import check_choices


@dataclass(frozen=True)
class Design:
    """The decisions that separate a ResNet from a ConvNeXt (Section 2); the defaults are ResNet-50.

    Raises:
        ValueError: a field holds a value that no network can be built from.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)  # blocks of each of the four stages
    width: int = 64  # channels inside the blocks of the first stage; each later stage doubles them
    stem: Literal["resnet", "patchify"] = "resnet"
    stem_stride: Literal[1, 2, 4] = 4
    depthwise: bool = False  # the spatial convolution has one group per channel
    layout: Literal["bottleneck", "inverted", "depthwise_first"] = "bottleneck"
    kernel_size: int = 3
    activation: Literal["relu", "gelu"] = "relu"
    activations_per_block: Literal[1, 3] = 3
    norm: Literal["batch", "layer"] = "batch"
    norms_per_block: Literal[1, 3] = 3
    downsampling: Literal["in_block", "separate"] = "in_block"

    def __post_init__(self) -> None:
        check_choices(self)
        if len(self.depths) != 4 or min(self.depths) < 1:
            raise ValueError(f"depths is {self.depths}; it needs four numbers of at least 1")
        if self.width < 1:
            raise ValueError(f"width is {self.width}; it needs to be at least 1")
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {self.kernel_size}; it needs to be odd and positive")

    def revise(self, network: nn.Module) -> None:
        """Change the network just built from this design; one's own design may, the paper's don't.

        A decision beyond the paper is a field of a subclass, and here the layers that it changes.
        """

    @property
    def expansion(self) -> int:
        """How many times wider a stage's output is than `width`: four after a bottleneck."""
        return 4 if self.layout == "bottleneck" else 1

    @property
    def smallest_side(self) -> int:
        """The smallest image side, in pixels, that leaves every feature map at least one pixel."""
        if self.downsampling == "separate":  # three unpadded 2x2 convolutions after the stem
            return self.stem_stride * 8
        return self.stem_stride if self.stem == "patchify" else 1


def scaled(
    design: Design, width: float = 1.0, depth: float = 1.0, stem_stride: Literal[1, 2, 4] = 4
) -> Design:
    """Narrow, shorten and refine a design for small images without changing any of its decisions.

    Args:
        design: the design to scale.
        width: factor of every width (1/8: 64 -> 96 becomes 8 -> 12).
        depth: factor of every stage's depth, rounded, never below one block.
        stem_stride: 4 as in the paper, or 2 or 1 for small images.

    Raises:
        ValueError: a factor is not positive, or the stride is neither 2 nor 4.
    """
    if not (0 < width < math.inf and 0 < depth < math.inf):
        raise ValueError(f"width and depth need to be positive, not {width} and {depth}")
    depths = tuple(max(1, round(blocks * depth)) for blocks in design.depths)
    return replace(
        design,
        width=max(1, round(design.width * width)),
        depths=depths,
        stem_stride=stem_stride,
    )
