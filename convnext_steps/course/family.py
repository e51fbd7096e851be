"""The published family: its numbers, its counts, how it scales, and what keeps it trainable."""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import nn

from convnext_steps.course.pictures import Picture
from convnext_steps.course.predict import multiply_adds
from convnext_steps.files import PACKAGE
from convnext_steps.measure.flops import count_on_meta
from convnext_steps.models import convnext
from convnext_steps.models.convnext import Block, Classifier
from convnext_steps.models.design import Design
from convnext_steps.models.paper import published_roadmap
from convnext_steps.models.roadmap import find_step
from convnext_steps.study.figures import STYLES, finish, own_style, subplots
from convnext_steps.text import number
from convnext_steps.training.images import ImageTensors


def published() -> pd.DataFrame:
    """Tables 1 and 2 with exact counts of the authors' models, one row per builder."""
    return pd.read_csv(PACKAGE / "models" / "paper" / "family.csv", index_col="builder")


def members() -> dict[str, Design]:
    """The five models with stages as designs: the roadmap's last, other depths and widths."""
    designs = {}
    for row in published().itertuples():
        depths = tuple(int(depth) for depth in str(row.depths).split("-"))
        if len(depths) == 4:
            width = int(row.dims.split("-")[0])
            designs[str(row.model)] = replace(
                find_step("separate_downsampling").design, depths=depths, width=width
            )
    return designs


def predict_then_measure(resolution: int = 224, guesses: Mapping[str, float] = {}) -> pd.DataFrame:
    """One row per model: guess, formula and counts in 1e9 multiply-adds, and parameters in 1e6.

    Args:
        resolution: 224, or 384 where the paper has it.
        guesses: the reader's, by builder; 0 where none was made.
    """
    designs, rows = members(), []
    for builder, paper in published().dropna(subset=f"conv_linear_macs_{resolution}").iterrows():
        build, guess = getattr(convnext, str(builder)), guesses.get(str(builder))
        with torch.device("meta"):
            parameters = sum(parameter.numel() for parameter in build().parameters())
        design = designs.get(paper["model"])
        formula = multiply_adds(design, resolution) / 1e9 if design else None
        rows.append(
            {
                "model": paper["model"],
                "your guess": number(guess or None),
                "by formula": number(formula, ".3f"),
                "counted": f"{count_on_meta(build, 3, resolution) / 1e9:.3f}",
                "authors' model": f"{paper[f'conv_linear_macs_{resolution}'] / 1e9:.3f}",
                "parameters": f"{parameters / 1e6:.2f}",
                "authors' parameters": f"{paper['params_1000_classes'] / 1e6:.2f}",
            }
        )
    return pd.DataFrame(rows).set_index("model")


def beside_swin() -> pd.DataFrame:
    """ConvNeXt-T and -B beside the Swin Transformers of their size, as the paper has them.

    One row per model: top-1 on ImageNet-1K at 224 pixels, in per cent, and 1e9 multiply-adds.
    """
    rows = {}
    for regime in ("tiny", "base"):
        swin, ours = published_roadmap(regime)["swin"], published().loc[f"convnext_{regime}"]
        rows[swin.title.removesuffix(" (reference)")] = swin.top1_mean, swin.gflops_printed
        rows[ours["model"]] = ours["top1_1k_224"], round(ours["conv_linear_macs_224"] / 1e9, 2)
    columns = ["top-1 accuracy %", "G multiply-adds"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def halves(data: ImageTensors) -> list[ImageTensors]:
    """The images of the first half of the classes and those of the second, as two data sets."""
    middle, parts = data.num_classes // 2, []
    for begin, end in ((0, middle), (middle, data.num_classes)):
        chosen = (begin <= data.labels) & (data.labels < end)
        images, labels = data.images[chosen], data.labels[chosen] - begin
        parts.append(replace(data, images=images, labels=labels, num_classes=end - begin))
    return parts


SAMPLES = 4000


@own_style
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
    figure, axes = subplots(figsize=(9, 4.5))
    words = []
    for style, (name, (accuracy, side, rows)) in zip(STYLES, series.items(), strict=False):
        part = table[rows].dropna(subset=accuracy)
        giga = part[f"conv_linear_macs_{side}"] / 1e9
        axes.semilogx(giga, part[accuracy], label=name, **style)
        letters = part["model"].str.extract(r"-(\w+)")[0]
        for letter, x, y in zip(letters, giga, part[accuracy], strict=True):
            axes.annotate(letter, (x, y), xytext=(5, -11), textcoords="offset points", fontsize=9)
        values = ", ".join(
            f"{letter} {y}" for letter, y in zip(letters, part[accuracy], strict=True)
        )
        words.append(f"{name}: {values}")
    axes.set(xlabel="multiply-adds per image (1e9)", ylabel="top-1 accuracy on ImageNet-1K (%)")
    ticks = (4, 8, 16, 32, 64, 128)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    finish(axes, "both", legend=True)
    return Picture(figure, f"The paper's top-1 accuracies in per cent. {'; '.join(words)}.")


@torch.no_grad()
def branch_sizes(model: Classifier) -> list[float]:
    """How much each block of a model changes random images: the branch's length over the input's.

    Args:
        model: any model of the family.
    """
    sizes: list[float] = []

    def measure(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        sizes.append(float((output - inputs[0]).norm() / inputs[0].norm()))

    hooks = [each.register_forward_hook(measure) for each in _blocks(model)]
    model.eval()(torch.randn(4, model.in_channels, 64, 64))
    for hook in hooks:
        hook.remove()
    return sizes


@own_style
def draw_branches(models: Mapping[str, Classifier]) -> Picture:
    """How much each block of several models changes its input.

    Args:
        models: by the name to write in the legend.
    """
    figure, axes = subplots(figsize=(8, 3.6))
    words = []
    for style, (name, model) in zip(STYLES, models.items(), strict=False):
        sizes = branch_sizes(model)
        numbers = range(1, len(sizes) + 1)
        axes.semilogy(numbers, sizes, label=name, **style)
        words.append(f"{name} from {min(sizes):.1g} to {max(sizes):.1g}")
    axes.set_ylabel("branch, relative to the input")
    _finish_blocks(axes)
    return Picture(
        figure, f"Length of each block's branch over that of its input: {'; '.join(words)}."
    )


@own_style
def draw_stochastic_depth(models: Mapping[str, Classifier]) -> Picture:
    """How often each block's branch is kept in training: lines as built, marks as drawn at random.

    Args:
        models: by the name to write in the legend.
    """
    figure, axes = subplots(figsize=(8, 3.6))
    words = []
    for style, (name, model) in zip(STYLES, models.items(), strict=False):
        layers = [block.drop_path for block in _blocks(model)]
        kept = [100 * (1 - layer.p) for layer in layers]
        images = torch.ones(SAMPLES, 1, 1, 1)
        drawn = [100 * float((layer.train()(images) > 0).float().mean()) for layer in layers]
        numbers = range(1, len(layers) + 1)
        axes.plot(numbers, kept, **(style | {"marker": ""}), label=f"{name}, as built")
        axes.plot(numbers, drawn, **(style | {"linestyle": ""}), markersize=4)
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
    finish(axes, "both", legend=True)
