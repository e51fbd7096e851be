"""Figures of what single layers do, measured on the layers themselves."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from convnext_steps.course.pictures import Picture
from convnext_steps.study.figures import ORANGE, STYLES, finish, own_style, subplots

IMAGES, CHANNELS, POSITIONS = 4, 6, 5  # of the feature map on which norms are drawn


@torch.no_grad()
def connections(layer: nn.Module, channels: int) -> Tensor:
    """Which input channels reach which output channels, (channels, out) of zeros and ones.

    Args:
        layer: from images with this many channels to images.
        channels: of its input.
    """
    images = torch.zeros(channels + 1, channels, 7, 7)  # one active channel; none in the last
    images[range(channels), range(channels)] = 1
    answers = layer(images)
    changed = (answers[:-1] - answers[-1:]).abs().sum(dim=(2, 3))  # (channels, out)
    return (changed > 1e-6).int()


@own_style
def draw_connections(layers: Mapping[str, nn.Module], channels: int) -> Picture:
    """The connections of several layers side by side: a filled square is a path.

    Args:
        layers: by the name to write above.
        channels: of their input.
    """
    figure, [panels] = subplots(1, len(layers), squeeze=False, figsize=(3.2 * len(layers), 3.6))
    words = []
    for axes, (name, layer) in zip(panels, layers.items(), strict=True):
        matrix = connections(layer, channels)
        axes.pcolormesh(
            matrix.T.numpy(), cmap="Blues", vmin=0, vmax=1.3, edgecolors="white", linewidth=0.7
        )
        axes.set(aspect="equal", xlabel="input channel", title=name, xticks=[], yticks=[])
        axes.invert_yaxis()
        words.append(f"{name}: {int(matrix.sum())} of {matrix.numel()} paths")
    panels[0].set_ylabel("output channel")
    return Picture(figure, f"Which input channels reach which output channels. {'; '.join(words)}.")


@own_style
def draw_activations(layers: Mapping[str, nn.Module]) -> Picture:
    """Activations and their slopes over the input, measured on the layers.

    Args:
        layers: by the name to write in the legend; each acts on single numbers.
    """
    figure, panels = subplots(1, 2, figsize=(9, 3.4))
    words = []
    for style, (name, layer) in zip(STYLES, layers.items(), strict=False):
        x = torch.linspace(-4, 4, 801).requires_grad_()
        y = layer(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        output = y.detach()
        for axes, values in zip(panels, (output, slope), strict=True):
            axes.plot(x.detach(), values, **(style | {"marker": ""}), label=name)
        words.append(f"{name}: from {float(output.min()):.2f} to {float(output.max()):.2f}")
    for axes, title in zip(panels, ("output", "slope"), strict=True):
        axes.set(xlabel="input", ylabel=title)
        finish(axes, "both", legend=True)
    return Picture(figure, f"Output and slope for inputs from -4 to 4. {'; '.join(words)}.")


def shared_with(norm: nn.Module, index: tuple[int, int, int]) -> Tensor:
    """Which numbers of a feature map one output depends on, (images, channels, positions) of bools.

    Args:
        norm: in training mode, over `CHANNELS` channels.
        index: image, channel and position of the output.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(IMAGES, CHANNELS, POSITIONS, 1, generator=generator).requires_grad_()
    output = norm(x)[index[0], index[1], index[2], 0]
    (gradient,) = torch.autograd.grad(output, x)
    return gradient[..., 0] != 0  # (images, channels, positions)


@own_style
def draw_norms(norms: Mapping[str, nn.Module]) -> Picture:
    """Feature maps as cubes; the filled cells are those that one output is normalised over.

    Args:
        norms: over `CHANNELS` channels each, by the name to write above.
    """
    options = {"squeeze": False, "subplot_kw": {"projection": "3d"}}
    figure, [panels] = subplots(1, len(norms), figsize=(4.2 * len(norms), 4.2), **options)
    words = []
    for axes, (name, norm) in zip(panels, norms.items(), strict=True):
        filled = shared_with(norm.train(), (0, 0, POSITIONS - 1)).numpy()
        colors = np.where(filled, ORANGE, "#FFFFFF")
        axes.voxels(
            np.ones_like(filled), facecolors=colors, edgecolor="#555555", linewidth=0.6, shade=False
        )
        axes.set(xlabel="images (N)", ylabel="channels (C)", zlabel="positions (H, W)", title=name)
        axes.set(xticks=[], yticks=[], zticks=[])
        axes.view_init(elev=22, azim=-52)
        axes.set_box_aspect((IMAGES, CHANNELS, POSITIONS), zoom=0.85)
        words.append(f"{name}: {_extent(filled)}")
    return Picture(figure, f"What one number is normalised over. {'; '.join(words)}.")


def _extent(filled: npt.NDArray[np.bool_]) -> str:
    names = ("images", "channels", "positions")
    counts = [int(filled.any(axis=tuple({0, 1, 2} - {axis})).sum()) for axis in range(3)]
    parts = [
        f"all {name}" if count == size else f"{count} of the {size} {name}"
        for name, count, size in zip(names, counts, filled.shape, strict=True)
    ]
    return ", ".join(parts)
