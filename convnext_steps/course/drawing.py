"""Drawings of blocks, made from the built modules: what is drawn is what is trained."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.patches import Polygon

from convnext_steps.course.blocks import Block, Kind, Layer, block_of
from convnext_steps.course.pictures import Picture
from convnext_steps.models.design import Design
from convnext_steps.study.figures import GREEN, ORANGE, PURPLE, SKY, own_style, subplots

LOOKS: dict[Kind, tuple[str, float]] = {  # colour and height
    "dense": (SKY, 1.0),
    "depthwise": (ORANGE, 1.0),
    "norm": ("#CCCCCC", 0.32),
    "activation": (GREEN, 0.32),
    "other": (PURPLE, 0.5),
}
GAP = 0.2
CENTRE, REACH, TEXT, SHORTCUT = 0.28, 0.19, 0.53, 0.0  # of a panel that is 1 wide


@own_style
def draw_blocks(designs: Mapping[str, Design], stage: int = 0, index: int = 1) -> Picture:
    """The same block of several designs side by side, to one scale.

    A convolution is as wide as its channels, from those that come in to those that go out.

    Args:
        designs: by the name to write above.
        stage: 0 to 3.
        index: of the block in its stage, as in `block_of`.
    """
    blocks = {name: block_of(design, stage, index) for name, design in designs.items()}
    widest = max(
        max(layer.before, layer.after)
        for block in blocks.values()
        for layer in (*block.leading, *block.branch)
    )
    depth = max(_depth(block) for block in blocks.values())
    figure, [panels] = subplots(
        1, len(blocks), squeeze=False, figsize=(3.9 * len(blocks), 0.52 * depth + 0.4)
    )
    for axes, (name, block) in zip(panels, blocks.items(), strict=True):
        _draw(axes, block, widest)
        axes.set(xlim=(-0.05, 1.1), ylim=(depth, -0.5))
        axes.set_title(name, fontsize=11, fontweight="bold")
        axes.axis("off")
    words = [f"{name}: {block}." if name else f"{block}." for name, block in blocks.items()]
    return Picture(figure, " ".join(words))


def _depth(block: Block) -> float:
    layers = (*block.leading, *block.branch, *block.after)
    return sum(LOOKS[layer.kind][1] + GAP for layer in layers) + 1.5


def _draw(axes: Axes, block: Block, widest: int) -> None:
    """Draw one block from top to bottom, and its weights below."""
    scale = REACH / widest
    top, y, reach = -0.1, 0.3, block.channels * scale
    axes.text(TEXT, top, f"{block.channels} channels", va="center", fontsize=9, style="italic")
    axes.plot([CENTRE - reach, CENTRE + reach], [top, top], color="black", lw=2)
    axes.plot([CENTRE, CENTRE], [top, y], color="black", lw=1)
    for layer in block.leading:
        y = _draw_layer(axes, layer, y, scale)
    fork = y - GAP / 2
    for layer in block.branch:
        y = _draw_layer(axes, layer, y, scale)
    plus = y + 0.15
    _draw_shortcut(axes, block, fork, plus)
    y = plus + 0.25 + GAP
    for layer in block.after:
        y = _draw_layer(axes, layer, y, scale)
    axes.annotate(
        "", (CENTRE, y + 0.3), (CENTRE, y - GAP), arrowprops={"arrowstyle": "-|>", "color": "black"}
    )
    axes.text(TEXT, y + 0.15, f"{block.weights:,} weights", va="center", fontsize=9, style="italic")


def _draw_layer(axes: Axes, layer: Layer, y: float, scale: float) -> float:
    """A layer as a shape as wide as its channels; returns where the next one begins."""
    color, height = LOOKS[layer.kind]
    bottom = y + height
    above, below = layer.before * scale, layer.after * scale
    corners = [
        (CENTRE - above, y),
        (CENTRE + above, y),
        (CENTRE + below, bottom),
        (CENTRE - below, bottom),
    ]
    hatch = "|||" if layer.kind == "depthwise" else None
    axes.add_patch(Polygon(corners, facecolor=color, edgecolor="black", hatch=hatch))
    axes.text(TEXT, (y + bottom) / 2, layer.label, va="center", fontsize=9)
    axes.plot([CENTRE, CENTRE], [bottom, bottom + GAP], color="black", lw=1)
    return bottom + GAP


def _draw_shortcut(axes: Axes, block: Block, fork: float, plus: float) -> None:
    """The line around the branch to the addition, with the layers on it."""
    path = [(CENTRE, fork), (SHORTCUT, fork), (SHORTCUT, plus), (CENTRE - 0.035, plus)]
    axes.plot(*zip(*path, strict=True), color="black", lw=1)
    axes.text(CENTRE, plus, "⊕", ha="center", va="center", fontsize=17)
    axes.text(TEXT, plus, "add the shortcut", va="center", fontsize=9)
    if block.shortcut:
        label = ", ".join(layer.label for layer in block.shortcut)
        middle = (fork + plus) / 2
        text = axes.text(SHORTCUT, middle, label, rotation=90, fontsize=8, ha="center", va="center")
        text.set_bbox({"facecolor": PURPLE, "edgecolor": "black", "boxstyle": "square"})
