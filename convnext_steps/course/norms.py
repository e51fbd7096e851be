"""What a norm normalises over, drawn as a cube and measured on the layers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from convnext_steps.course.pictures import Picture
from convnext_steps.study.figures import ORANGE, new_figure, own_style

IMAGES, CHANNELS, POSITIONS = 4, 6, 5  # of the drawn feature map


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
    figure = new_figure(4.2 * len(norms), 4.2)
    words = []
    for number, (name, norm) in enumerate(norms.items(), start=1):
        filled = shared_with(norm.train(), (0, 0, POSITIONS - 1)).numpy()
        axes: Any = figure.add_subplot(1, len(norms), number, projection="3d")
        colors = np.where(filled, ORANGE, "#FFFFFF")
        axes.voxels(
            np.ones_like(filled), facecolors=colors, edgecolor="#555555", linewidth=0.6, shade=False
        )
        axes.set(xlabel="images (N)", ylabel="channels (C)", zlabel="positions (H, W)", title=name)
        axes.set(xticks=[], yticks=[], zticks=[])
        axes.view_init(elev=22, azim=-52)
        axes.set_box_aspect((IMAGES, CHANNELS, POSITIONS), zoom=0.85)
        words.append(f"{name}: {_words(filled)}")
    return Picture(figure, f"What one number is normalised over. {'; '.join(words)}.")


def _words(filled: npt.NDArray[np.bool_]) -> str:
    names = ("images", "channels", "positions")
    counts = [int(filled.any(axis=tuple({0, 1, 2} - {axis})).sum()) for axis in range(3)]
    parts = [
        f"all {name}" if count == size else f"{count} of the {size} {name}"
        for name, count, size in zip(names, counts, filled.shape, strict=True)
    ]
    return ", ".join(parts)
