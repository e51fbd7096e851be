"""The one network of the roadmap: a stem, four stages and a head, built from a `Design`."""

from torch import Tensor, nn

from convnext_steps.models.blocks import ResidualBlock, activation, norm
from convnext_steps.models.checks import check_images, check_options
from convnext_steps.models.convolutions import padded_convolution
from convnext_steps.models.design import Design
from convnext_steps.models.layers import classifier


def drop_path_rates(last: float, blocks: int) -> list[float]:
    """The probability of dropping each block's branch, linear from 0 to the last block's."""
    return [last * i / max(blocks - 1, 1) for i in range(blocks)]


class Stage(nn.Sequential):
    """The layers of a stage in sequence; equal neighbours are printed as one."""

    __repr__ = nn.ModuleList.__repr__


def stem(design: Design, in_channels: int) -> nn.Sequential:
    """The first layers: ResNet's convolution and max-pool, or one patch per position (Section 2.2).

    (N, in_channels, H, W) -> (N, width, H / stem_stride, W / stem_stride)
    """
    if design.stem == "resnet":
        kernel_size = 7 if design.stem_stride == 4 else 3
        stride = max(1, design.stem_stride // 2)  # the max-pool halves once more
        layers = nn.Sequential(
            padded_convolution(in_channels, design.width, kernel_size, stride=stride, bias=False),
            norm(design, design.width),
            activation(design),
        )
        if design.stem_stride > 1:  # without, as in the ResNets for CIFAR (He et al., 2016)
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
        return layers
    patches = nn.Conv2d(in_channels, design.width, design.stem_stride, design.stem_stride)
    if design.downsampling == "separate":
        return nn.Sequential(patches, norm(design, design.width))
    return nn.Sequential(patches)


def stage(
    design: Design, index: int, in_channels: int, out_channels: int, drop_path_rates: list[float]
) -> Stage:
    """A stage's blocks; from the second stage on, the first layer halves the resolution."""
    layers = Stage()
    stride = 1 if index == 0 else 2
    if design.downsampling == "separate" and index > 0:  # Section 2.6, "Separate downsampling"
        layers.append(norm(design, in_channels))
        layers.append(nn.Conv2d(in_channels, out_channels, 2, stride=2))
        in_channels, stride = out_channels, 1
    for rate in drop_path_rates:
        layers.append(ResidualBlock(design, in_channels, out_channels, stride, rate))
        in_channels, stride = out_channels, 1
    return layers


def head(design: Design, channels: int, num_classes: int) -> nn.Sequential:
    """Global average pooling and a linear classifier, (N, channels, H, W) -> (N, num_classes)."""
    layers = nn.Sequential(nn.AdaptiveAvgPool2d(1))
    if design.downsampling == "separate":
        layers.append(norm(design, channels))
    return layers.extend([nn.Flatten(1), classifier(channels, num_classes)])


class Network(nn.Module):
    """Any step of the roadmap, (N, in_channels, H, W) -> (N, num_classes).

    Initialisation is PyTorch's own, as in the authors' code for the steps.

    Args:
        design: the decisions to build.
        in_channels: channels of the images.
        num_classes: outputs of the classifier; 0: none, the features before it.
        drop_path_rate: probability of dropping the last block's branch; grows linearly from 0.

    Raises:
        ValueError: `in_channels`, `num_classes` or `drop_path_rate` is out of range; in `forward`,
            the images are too small for the network.
    """

    def __init__(
        self,
        design: Design,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        check_options(in_channels, num_classes, drop_path_rate)
        self.design = design
        self.smallest_side = design.smallest_side
        rates = drop_path_rates(drop_path_rate, sum(design.depths))
        self.stem = stem(design, in_channels)
        self.stages = nn.Sequential()
        channels = design.width
        for index, depth in enumerate(design.depths):
            out_channels = design.expansion * design.width * 2**index
            stage_rates, rates = rates[:depth], rates[depth:]
            self.stages.append(stage(design, index, channels, out_channels, stage_rates))
            channels = out_channels
        self.head = head(design, channels, num_classes)
        design.revise(self)

    def reset_head(self) -> None:
        """Initialise the classifier anew, as for another task."""
        *_, last = self.head.modules()
        if isinstance(last, nn.Linear):
            last.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Classify a batch of images."""
        check_images(x, self.smallest_side)
        x = self.stem(x)
        x = self.stages(x)
        return self.head(x)
