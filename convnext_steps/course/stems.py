"""What the outputs of a stem cover of an image, measured on the built layers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from convnext_steps.course.pictures import Picture
from convnext_steps.models.design import Design
from convnext_steps.models.network import stem
from convnext_steps.study.figures import STYLES, finish, own_style, subplots

SIDE = 64  # of the images in pixels
EDGES = range(18, 43)  # columns where the bright part begins
OUTPUTS = (6, 7, 8, 9)  # neighbours in the middle of the stem's output, four pixels apart
ROUNDING = 1e-6


@dataclass(frozen=True)
class StemView:
    """What neighbouring outputs of a stem cover."""

    responses: Tensor  # (edges, outputs): coverage, 0 for a dark image and 1 for a bright one
    windows: list[range]  # the columns of pixels that each output sees

    def partial(self) -> int:
        """The most outputs that are neither dark nor fully bright at once."""
        between = (self.responses > ROUNDING) & (self.responses < 1 - ROUNDING)
        return int(between.sum(1).max())


@torch.no_grad()
def stem_view(design: Design) -> StemView:
    """Move a bright part's border over a stem whose filter takes the mean of what it covers.

    With this filter nothing but the geometry is left: window, stride and pooling. A trained filter
    would detect the edge; this one measures how much of the bright part it covers.
    """
    layers = stem(replace(design, width=1), in_channels=1).eval()
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            layer.weight.fill_(1 / layer.weight.numel())
            if layer.bias is not None:
                layer.bias.zero_()
    columns = torch.arange(SIDE)
    edges = (columns >= torch.tensor(EDGES)[:, None]).float()  # (edges, columns), bright at right
    bright = _outputs(layers, torch.ones(1, SIDE))
    lit = _outputs(layers, torch.eye(SIDE))  # one bright column at a time
    seen = [columns[lit[:, i] > 0].tolist() for i in range(len(OUTPUTS))]
    windows = [range(each[0], each[-1] + 1) for each in seen]
    return StemView(_outputs(layers, edges) / bright, windows)


def _outputs(layers: nn.Module, rows: Tensor) -> Tensor:
    """The outputs in the middle, (N, outputs), of images whose rows are all alike, (N, columns)."""
    images = rows[:, None, None].expand(-1, 1, SIDE, SIDE)  # (N, 1, H, W)
    return layers(images)[:, 0, SIDE // 8, list(OUTPUTS)]


@own_style
def draw_stems(designs: Mapping[str, Design]) -> Picture:
    """The coverage of four neighbouring outputs while a border moves by one pixel at a time.

    Args:
        designs: by the name to write above.
    """
    figure, [panels] = subplots(
        1, len(designs), sharey=True, squeeze=False, figsize=(5.2 * len(designs), 3.8)
    )
    words = []
    for axes, (name, design) in zip(panels, designs.items(), strict=True):
        view = stem_view(design)
        _draw_view(axes, view)
        axes.set(title=name, xlabel="column where the bright part begins (pixels)")
        widths = {len(window) for window in view.windows}
        words.append(
            f"{name}: each output sees {widths.pop()} columns, "
            f"at most {view.partial()} are covered in part at once"
        )
    panels[0].set_ylabel("coverage (share of a bright image's)")
    panels[0].set_yticks([0, 0.25, 0.5, 0.75, 1])
    return Picture(
        figure, f"What outputs 4 pixels apart cover of a moving bright part. {'; '.join(words)}."
    )


def _draw_view(axes: Axes, view: StemView) -> None:
    for index, style in zip(range(view.responses.shape[1]), STYLES, strict=False):
        responses = view.responses[:, index].numpy()
        axes.plot(EDGES, responses, markersize=3, **style)
        window, height = view.windows[index], -0.12 - 0.09 * index
        axes.plot(
            [window[0], window[-1] + 1],
            [height] * 2,
            color=style["color"],
            linewidth=5,
            solid_capstyle="butt",
        )
    axes.text(EDGES[0], -0.47, "what each output sees", fontsize=8, va="bottom", style="italic")
    axes.set(xlim=(EDGES[0], EDGES[-1]), ylim=(-0.5, 1.05), xticks=range(20, 44, 4))
    finish(axes)
