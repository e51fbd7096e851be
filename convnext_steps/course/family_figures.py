"""Figures of the published family: how it scales, and what keeps deep networks trainable."""

from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import nn

from convnext_steps.course.family import published
from convnext_steps.course.pictures import Picture
from convnext_steps.models.convnext import Block, Classifier

# Okabe and Ito's palette, as in study/plots.py; apart in shape and line too.
STYLES = (
    ("#0072B2", "o", "-"),
    ("#E69F00", "s", "--"),
    ("#009E73", "^", ":"),
    ("#CC79A7", "D", "-."),
)
SAMPLES = 4000


def draw_family() -> Picture:
    """The paper's accuracies against the multiply-adds: data, resolution and stages."""
    table = published()
    stages = table["depths"].str.contains("-")
    series = {
        "ImageNet-1K, 224": ("top1_1k_224", 224, stages),
        "ImageNet-22K first, 224": ("top1_22k_224", 224, stages),
        "ImageNet-22K first, 384": ("top1_22k_384", 384, stages),
        "isotropic, ImageNet-1K, 224": ("top1_1k_224", 224, ~stages),
    }
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    words = []
    for (color, marker, line), (name, (accuracy, side, rows)) in zip(
        STYLES, series.items(), strict=True
    ):
        part = table[rows].dropna(subset=accuracy)
        giga = part[f"conv_linear_macs_{side}"] / 1e9
        axes.semilogx(giga, part[accuracy], color=color, marker=marker, linestyle=line, label=name)
        letters = part["model"].str.extract(r"-(\w+)")[0]
        for letter, x, y in zip(letters, giga, part[accuracy], strict=True):
            axes.annotate(letter, (x, y), xytext=(5, -11), textcoords="offset points", fontsize=9)
        values = ", ".join(
            f"{letter} {y}" for letter, y in zip(letters, part[accuracy], strict=True)
        )
        words.append(f"{name}: {values}")
    axes.set(xlabel="multiply-adds of one image (1e9)", ylabel="top-1 accuracy on ImageNet-1K (%)")
    ticks = (4, 8, 16, 32, 64, 128)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    _finish(axes)
    return Picture(figure, f"The paper's top-1 accuracies in per cent. {'; '.join(words)}.")


@torch.no_grad()
def branch_sizes(model: Classifier, side: int = 64) -> list[float]:
    """How much each block changes what it gets: the branch's length over the input's.

    Args:
        model: any model of the family.
        side: of a random image in pixels.
    """
    sizes: list[float] = []

    def measure(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        sizes.append(float((output - inputs[0]).norm() / inputs[0].norm()))

    hooks = [each.register_forward_hook(measure) for each in _blocks(model)]
    model.eval()(torch.randn(4, model.in_channels, side, side))
    for hook in hooks:
        hook.remove()
    return sizes


def draw_branches(models: Mapping[str, Classifier]) -> Picture:
    """How much each block of several models changes what it gets.

    Args:
        models: by the name to write in the legend.
    """
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    words = []
    for (color, marker, line), (name, model) in zip(STYLES, models.items(), strict=False):
        sizes = branch_sizes(model)
        numbers = range(1, len(sizes) + 1)
        axes.semilogy(numbers, sizes, color=color, marker=marker, linestyle=line, label=name)
        words.append(f"{name} from {min(sizes):.1g} to {max(sizes):.1g}")
    axes.set_ylabel("branch, relative to the input")
    _finish_blocks(axes)
    return Picture(
        figure, f"Length of each block's branch over that of its input: {'; '.join(words)}."
    )


def draw_stochastic_depth(models: Mapping[str, Classifier]) -> Picture:
    """How often each block's branch is kept in training: lines as built, marks as drawn at random.

    Args:
        models: by the name to write in the legend.
    """
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    words = []
    for (color, marker, line), (name, model) in zip(STYLES, models.items(), strict=False):
        layers = [block.drop_path for block in _blocks(model)]
        kept = [100 * (1 - layer.p) for layer in layers]
        images = torch.ones(SAMPLES, 1, 1, 1)
        drawn = [100 * float((layer.train()(images) > 0).float().mean()) for layer in layers]
        numbers = range(1, len(layers) + 1)
        axes.plot(numbers, kept, color=color, linestyle=line, label=f"{name}, as built")
        axes.plot(numbers, drawn, color=color, marker=marker, linestyle="", markersize=4)
        words.append(f"{name}: from {kept[0]:.0f} to {kept[-1]:.0f} per cent of {len(kept)} blocks")
    axes.set(ylabel="branches kept in training (%)", ylim=(0, 105))
    _finish_blocks(axes)
    return Picture(figure, f"How often a branch is kept, falling with depth. {'; '.join(words)}.")


def _blocks(model: nn.Module) -> list[Block]:
    return [module for module in model.modules() if isinstance(module, Block)]


def _finish_blocks(axes: Axes) -> None:
    """What the figures with a mark for each block share."""
    axes.set_xlabel("block")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.legend(frameon=False)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
