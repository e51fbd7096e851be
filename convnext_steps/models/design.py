"""A network of the roadmap as one value: one field per decision of the paper."""

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

from torch import nn

from convnext_steps.fields import convert


@dataclass(frozen=True)
class Design:
    """The decisions that separate a ResNet from a ConvNeXt (Section 2); by default, ResNet-50.

    Raises:
        ValueError: a field has a value that no network can be built from.
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
        for field in fields(Design):  # those of a subclass may be of any type
            convert(getattr(self, field.name), field.type, field.name)
        if len(self.depths) != 4 or min(self.depths) < 1:
            raise ValueError(f"depths is {self.depths}; it must be four numbers of at least 1")
        if self.width < 1:
            raise ValueError(f"width is {self.width}; it must be at least 1")
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {self.kernel_size}; it must be odd and positive")

    def revise(self, network: nn.Module) -> None:
        """Change the network just built from this design; the paper's designs change nothing.

        A decision of your own is a field of a subclass, whose `revise` changes the layers.
        """

    @property
    def expansion(self) -> int:
        """How many times wider a stage's output is than its blocks: four for a bottleneck."""
        return 4 if self.layout == "bottleneck" else 1

    @property
    def smallest_side(self) -> int:
        """The smallest side of an image, in pixels, that leaves every feature map at least one."""
        if self.downsampling == "separate":  # three unpadded 2x2 convolutions after the stem
            return self.stem_stride * 8
        return self.stem_stride if self.stem == "patchify" else 1


def scaled(
    design: Design, width: float = 1.0, depth: float = 1.0, stem_stride: Literal[1, 2, 4] = 4
) -> Design:
    """Scale a design for small images without changing any of its decisions.

    Args:
        design: the design to scale.
        width: factor on every width (1/8: 64 -> 96 becomes 8 -> 12).
        depth: factor on every stage's depth, rounded, at least one block.
        stem_stride: 4 as in the paper, 2 or 1 for small images.

    Raises:
        ValueError: a factor is not positive and finite, or the stride is none of 4, 2 and 1.
    """
    if not (0 < width < math.inf and 0 < depth < math.inf):
        raise ValueError(f"width and depth must be positive and finite, not {width} and {depth}")
    depths = tuple(max(1, round(blocks * depth)) for blocks in design.depths)
    return replace(
        design,
        width=max(1, round(design.width * width)),
        depths=depths,
        stem_stride=stem_stride,
    )
