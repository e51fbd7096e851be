"""Built blocks as lists of layers, to draw, describe and compare."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from convnext_steps.models.blocks import ResidualBlock
from convnext_steps.models.design import Design
from convnext_steps.models.network import Network

Kind = Literal["dense", "depthwise", "norm", "activation", "other"]


@dataclass(frozen=True)
class Layer:
    """One layer as it is drawn: what it is, and the channels before and after it."""

    kind: Kind
    label: str
    before: int
    after: int


def layers_of(modules: Iterable[nn.Module], channels: int) -> list[Layer]:
    """The layers of a chain of modules that begins with these channels, without identities.

    Args:
        modules: built layers in their order; chains inside them are unfolded.
        channels: of the chain's input.
    """
    layers: list[Layer] = []
    for module in modules:
        if isinstance(module, nn.Sequential):
            layers += layers_of(module, channels)
        elif not isinstance(module, nn.Identity):
            layers.append(_layer(module, channels))
        channels = layers[-1].after if layers else channels
    return layers


def _layer(module: nn.Module, channels: int) -> Layer:
    if isinstance(module, nn.Conv2d):
        return _convolution(module)
    names: dict[type[nn.Module], tuple[Kind, str]] = {
        nn.BatchNorm2d: ("norm", "BatchNorm"),
        nn.LayerNorm: ("norm", "LayerNorm"),
        nn.ReLU: ("activation", "ReLU"),
        nn.GELU: ("activation", "GELU"),
        nn.MaxPool2d: ("other", "max-pool, stride 2"),
    }
    found = (names[known] for known in names if isinstance(module, known))
    kind, label = next(found, ("other", type(module).__name__))
    return Layer(kind, label, channels, channels)


def _convolution(module: nn.Conv2d) -> Layer:
    before, after, groups = module.in_channels, module.out_channels, module.groups
    side, stride = module.kernel_size[0], module.stride[0]
    ending = f", stride {stride}" if stride > 1 else ""
    if 1 < groups == before:
        return Layer("depthwise", f"{side}×{side} depthwise, {after}{ending}", before, after)
    label = f"{side}×{side}, {before} → {after}{ending}"
    return Layer("dense", label if groups == 1 else f"{label}, {groups} groups", before, after)


@dataclass(frozen=True)
class Block:
    """A residual block as it is drawn, and the layers that come before it."""

    channels: int  # of what comes in
    leading: Sequence[Layer]
    branch: Sequence[Layer]
    shortcut: Sequence[Layer]
    after: Sequence[Layer]  # the addition
    weights: int  # of all convolutions

    def __str__(self) -> str:
        """The drawing in words."""
        parts = [f"{self.channels} channels"]
        parts += [layer.label for layer in (*self.leading, *self.branch)]
        over = " and ".join(layer.label for layer in self.shortcut)
        parts.append(f"added to the shortcut ({over})" if over else "added to the shortcut")
        parts += [layer.label for layer in self.after]
        return "; ".join(parts)


def block_of(design: Design, stage: int = 0, index: int = 1) -> Block:
    """One block of the network that a design builds, at the paper's size.

    Args:
        design: the design.
        stage: 0 to 3.
        index: of the block in its stage; 0 is the one that changes the shape, with what comes
            before it. A stage of one block has only that one.
    """
    with torch.device("meta"):
        built = list(Network(design).stages[stage])  # type: ignore[call-overload]
    first = next(i for i, module in enumerate(built) if isinstance(module, ResidualBlock))
    chosen = min(first + index, len(built) - 1)
    leading = built[:first] if chosen == first else []
    block = built[chosen]
    modules = nn.Sequential(*leading, block).modules()
    convolutions = [module for module in modules if isinstance(module, nn.Conv2d)]
    channels = convolutions[0].in_channels
    before = layers_of(leading, channels)
    inside = before[-1].after if before else channels
    branch = layers_of(block.branch, inside)
    return Block(
        channels,
        before,
        branch,
        layers_of([block.shortcut], inside),
        layers_of([block.activation], branch[-1].after),
        sum(convolution.weight.numel() for convolution in convolutions),
    )
