"""The three block layouts of the roadmap, and the residual block that they share."""

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from convnext_steps.models.convolutions import (
    SparseProjection,
    convolution,
    spatial_convolution,
)
from convnext_steps.models.design import Design
from convnext_steps.models.layers import LayerNorm2d


def activation(design: Design) -> nn.Module:
    """The design's activation (Section 2.6, "Replacing ReLU with GELU")."""
    return nn.GELU() if design.activation == "gelu" else nn.ReLU(inplace=True)


def norm(design: Design, channels: int) -> nn.Module:
    """The design's normalisation (Section 2.6, "Substituting BN with LN")."""
    return LayerNorm2d(channels) if design.norm == "layer" else nn.BatchNorm2d(channels)


def branch_convolutions(
    design: Design, in_channels: int, out_channels: int, stride: int
) -> dict[str, nn.Conv2d]:
    """The three convolutions of a block, in the order of its layout (Figure 3 of the paper)."""
    if design.layout == "bottleneck":  # Figure 3 (a)
        hidden = out_channels // design.expansion
        return {
            "reduce": convolution(design, in_channels, hidden),
            "spatial": spatial_convolution(design, hidden, stride),
            "expand": convolution(design, hidden, out_channels),
        }
    hidden = 4 * out_channels
    if design.layout == "inverted":  # Figure 3 (b)
        return {
            "expand": convolution(design, in_channels, hidden),
            "spatial": spatial_convolution(design, hidden, stride),
            "reduce": convolution(design, hidden, out_channels),
        }
    return {  # Figure 3 (c)
        "spatial": spatial_convolution(design, in_channels, stride),
        "expand": convolution(design, in_channels, hidden),
        "reduce": convolution(design, hidden, out_channels),
    }


def branch(design: Design, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """The residual branch: three convolutions with the norms and activations that the design keeps.

    If only one norm is kept, it is the one after the spatial convolution; if only one activation,
    the second, which in the last layout stands between the two 1x1 convolutions.
    """
    layers = nn.Sequential()
    convolutions = branch_convolutions(design, in_channels, out_channels, stride)
    for position, (name, layer) in enumerate(convolutions.items(), start=1):
        layers.add_module(name, layer)
        if design.norms_per_block == 3 or name == "spatial":
            layers.add_module(f"{name}_norm", norm(design, layer.out_channels))
        if position == 2 or (position == 1 and design.activations_per_block == 3):
            layers.add_module(f"{name}_activation", activation(design))
    return layers


def shortcut(design: Design, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The identity, or a projection where the branch changes the shape (He et al., 2015)."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    kind = SparseProjection if stride > 1 and in_channels < 8 else nn.Conv2d
    projection = kind(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(projection, norm(design, out_channels))


class ResidualBlock(nn.Module):
    """shortcut + branch, (N, in, H, W) -> (N, out, H / stride, W / stride)."""

    def __init__(
        self,
        design: Design,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.shortcut = shortcut(design, in_channels, out_channels, stride)
        self.branch = branch(design, in_channels, out_channels, stride)
        if drop_path_rate > 0:
            self.branch.add_module("drop_path", StochasticDepth(drop_path_rate, "row"))
        after_addition = design.activations_per_block == 3
        self.activation = activation(design) if after_addition else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch to the shortcut."""
        return self.activation(self.shortcut(x) + self.branch(x))
