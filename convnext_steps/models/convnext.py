"""The published ConvNeXt family: where the roadmap ends, under the official names.

Parameters have the names, the order and the initial values of the authors' code, so that their
files load as they are. `pretrained` is a path or the name of torchvision's weights (see
`convnext_steps.models.weights`). Numbers in the docstrings are for 1000 classes at 224x224;
GFLOPs are the paper's: 1e9 multiply-adds of the convolutions and linear layers.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn
from torchvision.models import (
    ConvNeXt_Base_Weights,
    ConvNeXt_Large_Weights,
    ConvNeXt_Small_Weights,
    ConvNeXt_Tiny_Weights,
)
from torchvision.ops import StochasticDepth

from convnext_steps.models.checks import check_images, check_options
from convnext_steps.models.convolutions import padded_convolution
from convnext_steps.models.layers import LayerNorm2d, classifier
from convnext_steps.models.network import drop_path_rates
from convnext_steps.models.weights import load_pretrained


class Options(TypedDict, total=False):
    """The arguments that every builder passes on to its model, with their defaults."""

    in_channels: int  # 3
    num_classes: int  # 1000; 0: no classifier
    drop_path_rate: float  # 0; probability for the last block, growing linearly from 0
    layer_scale_init_value: float  # 1e-6; isotropic: 0, no LayerScale
    head_init_scale: float  # 1; factor on the head's initial weights; fine-tuning: 0.001


class Block(nn.Module):
    """The residual block: depthwise 7x7, LayerNorm, linear, GELU, linear (Figure 4)."""

    def __init__(self, dim: int, drop_path: float, layer_scale_init_value: float) -> None:
        super().__init__()
        if layer_scale_init_value < 0:
            raise ValueError(
                f"layer_scale_init_value must be 0 or more, not {layer_scale_init_value}"
            )
        self.dwconv = padded_convolution(dim, dim, 7, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * dim, dim)
        scale = torch.full((dim,), float(layer_scale_init_value))
        self.gamma = nn.Parameter(scale) if layer_scale_init_value > 0 else None
        self.drop_path = StochasticDepth(drop_path, mode="row")

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch to x, (N, C, H, W) -> (N, C, H, W)."""
        branch: Tensor = self.dwconv(x).permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
        branch = self.pwconv2(self.act(self.pwconv1(self.norm(branch))))
        branch = branch.permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)
        branch = self.drop_path(branch)
        if self.gamma is None:
            return x + branch
        return (self.gamma[:, None, None] * branch).add_(x)  # into the product's memory


class Classifier(nn.Module):
    """What both kinds of ConvNeXt share: feature maps are pooled, normalised and classified."""

    norm: nn.LayerNorm
    head: nn.Linear | nn.Identity

    def __init__(
        self, in_channels: int, num_classes: int, head_init_scale: float, smallest_side: int
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.head_init_scale = head_init_scale
        self.smallest_side = smallest_side

    def _add_head(self, dim: int) -> None:
        """Add the head and draw all weights, in the authors' order."""
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = classifier(dim, self.num_classes)
        self.apply(_init_weights)
        self._scale_head()

    def reset_head(self) -> None:
        """Initialise the head's weights anew, as for another task."""
        _init_weights(self.head)
        self._scale_head()

    def _scale_head(self) -> None:
        if isinstance(self.head, nn.Linear):
            with torch.no_grad():
                self.head.weight.mul_(self.head_init_scale)  # the bias is zero

    def _last_map(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward_features(self, x: Tensor) -> Tensor:
        """The features that the head classifies, (N, C, H, W) -> (N, dim)."""
        features: Tensor = self.norm(self._last_map(x).mean([-2, -1]))  # (N, dim, H, W) -> (N, dim)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """The logits, (N, C, H, W) -> (N, num_classes)."""
        logits: Tensor = self.head(self.forward_features(x))
        return logits


class ConvNeXt(Classifier):
    """A patch stem, then stages of blocks with LayerNorm and a 2x2 convolution between them.

    (N, in_channels, H, W) -> (N, num_classes); the defaults are ConvNeXt-T's.

    Args:
        depths: blocks per stage.
        dims: channels per stage.
        in_channels: channels of the images.
        num_classes: outputs of the classifier; 0: none, the normalised features.
        drop_path_rate: probability of dropping the last block's branch; grows linearly from 0.
        layer_scale_init_value: the initial LayerScale; 0: none.
        head_init_scale: factor on the head's initial weights.

    Raises:
        ValueError: an argument is out of range; in `forward`, the images are too small or have
            another number of channels.
    """

    def __init__(
        self,
        depths: Sequence[int] = (3, 3, 9, 3),
        dims: Sequence[int] = (96, 192, 384, 768),
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        head_init_scale: float = 1.0,
    ) -> None:
        if len(depths) != len(dims):
            raise ValueError(f"depths {tuple(depths)} and dims {tuple(dims)} differ in length")
        check_options(in_channels, num_classes, drop_path_rate)
        super().__init__(in_channels, num_classes, head_init_scale, 4 * 2 ** (len(dims) - 1))
        stem = nn.Sequential(nn.Conv2d(in_channels, dims[0], 4, stride=4), LayerNorm2d(dims[0]))
        self.downsample_layers = nn.ModuleList([stem])
        for before, after in pairwise(dims):
            halve = nn.Conv2d(before, after, 2, stride=2)
            self.downsample_layers.append(nn.Sequential(LayerNorm2d(before), halve))

        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.stages = nn.ModuleList(
            nn.Sequential(*[Block(dim, next(rates), layer_scale_init_value) for _ in range(depth)])
            for depth, dim in zip(depths, dims, strict=True)
        )
        self._add_head(dims[-1])

    def forward_pyramid(self, x: Tensor) -> list[Tensor]:
        """All stages' feature maps, (N, dims[i], H / stride, W / stride), strides 4, 8, 16, 32."""
        check_images(x, self.smallest_side, self.in_channels)
        maps = []
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
            maps.append(x)
        return maps

    def _last_map(self, x: Tensor) -> Tensor:
        return self.forward_pyramid(x)[-1]


class ConvNeXtIsotropic(Classifier):
    """One resolution throughout, as in a ViT: 16x16 patches, then blocks (Section 3.3).

    (N, in_channels, H, W) -> (N, num_classes); the defaults are ConvNeXt-S (iso.)'s. `depth` blocks
    have `dim` channels; the other arguments and the errors are those of `ConvNeXt`.
    """

    def __init__(
        self,
        depth: int = 18,
        dim: int = 384,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 0.0,
        head_init_scale: float = 1.0,
    ) -> None:
        check_options(in_channels, num_classes, drop_path_rate)
        super().__init__(in_channels, num_classes, head_init_scale, smallest_side=16)
        self.stem = nn.Conv2d(in_channels, dim, 16, stride=16)
        rates = drop_path_rates(drop_path_rate, depth)
        self.blocks = nn.Sequential(*[Block(dim, rate, layer_scale_init_value) for rate in rates])
        self._add_head(dim)

    def _last_map(self, x: Tensor) -> Tensor:
        check_images(x, self.smallest_side, self.in_channels)
        maps: Tensor = self.blocks(self.stem(x))
        return maps


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)  # the paper's text prints 0.2
        if module.bias is not None:
            nn.init.zeros_(module.bias)


Pretrained = str | Path | None


def convnext_tiny(pretrained: Pretrained = None, **options: Unpack[Options]) -> ConvNeXt:
    """ConvNeXt-T (Table 1): 28.6 M parameters, 4.46 GFLOPs, top-1 82.1; from ImageNet-22K 82.9.

    At 384 from ImageNet-22K 84.1; with torchvision's weights and recipe 82.5.
    """
    model = ConvNeXt((3, 3, 9, 3), (96, 192, 384, 768), **options)
    return load_pretrained(model, pretrained, ConvNeXt_Tiny_Weights)


def convnext_small(pretrained: Pretrained = None, **options: Unpack[Options]) -> ConvNeXt:
    """ConvNeXt-S (Table 1): 50.2 M parameters, 8.68 GFLOPs, top-1 83.1; from ImageNet-22K 84.6.

    At 384 from ImageNet-22K 85.8; with torchvision's weights and recipe 83.6.
    """
    model = ConvNeXt((3, 3, 27, 3), (96, 192, 384, 768), **options)
    return load_pretrained(model, pretrained, ConvNeXt_Small_Weights)


def convnext_base(pretrained: Pretrained = None, **options: Unpack[Options]) -> ConvNeXt:
    """ConvNeXt-B (Table 1): 88.6 M parameters, 15.35 GFLOPs, top-1 83.8; from ImageNet-22K 85.8.

    At 384: 85.1, from ImageNet-22K 86.8; with torchvision's weights and recipe 84.1.
    """
    model = ConvNeXt((3, 3, 27, 3), (128, 256, 512, 1024), **options)
    return load_pretrained(model, pretrained, ConvNeXt_Base_Weights)


def convnext_large(pretrained: Pretrained = None, **options: Unpack[Options]) -> ConvNeXt:
    """ConvNeXt-L (Table 1): 197.8 M parameters, 34.36 GFLOPs, top-1 84.3; from ImageNet-22K 86.6.

    At 384: 85.5, from ImageNet-22K 87.5; with torchvision's weights and recipe 84.4.
    """
    model = ConvNeXt((3, 3, 27, 3), (192, 384, 768, 1536), **options)
    return load_pretrained(model, pretrained, ConvNeXt_Large_Weights)


def convnext_xlarge(pretrained: Pretrained = None, **options: Unpack[Options]) -> ConvNeXt:
    """ConvNeXt-XL (Table 1): 350.2 M parameters, 60.92 GFLOPs, top-1 from ImageNet-22K 87.0.

    At 384 from ImageNet-22K 87.8; never trained on ImageNet-1K alone.
    """
    model = ConvNeXt((3, 3, 27, 3), (256, 512, 1024, 2048), **options)
    return load_pretrained(model, pretrained)


def convnext_isotropic_small(
    pretrained: Pretrained = None, **options: Unpack[Options]
) -> ConvNeXtIsotropic:
    """ConvNeXt-S (iso.) (Table 2): 22.3 M parameters, 4.29 GFLOPs, top-1 79.7.

    The authors' README prints 78.7.
    """
    return load_pretrained(ConvNeXtIsotropic(18, 384, **options), pretrained)


def convnext_isotropic_base(
    pretrained: Pretrained = None, **options: Unpack[Options]
) -> ConvNeXtIsotropic:
    """ConvNeXt-B (iso.) (Table 2): 87.1 M parameters, 16.90 GFLOPs, top-1 82.0."""
    return load_pretrained(ConvNeXtIsotropic(18, 768, **options), pretrained)


def convnext_isotropic_large(
    pretrained: Pretrained = None, **options: Unpack[Options]
) -> ConvNeXtIsotropic:
    """ConvNeXt-L (iso.) (Table 2): 305.9 M parameters, 59.70 GFLOPs, top-1 82.6.

    The paper trained it with layer_scale_init_value=1e-6 (Table 5), the smaller two without.
    """
    return load_pretrained(ConvNeXtIsotropic(36, 1024, **options), pretrained)
