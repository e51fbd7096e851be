"""The published family: its numbers, its counts, and half of its classes to fine-tune on."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from typing import cast

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

import convnext_steps.models.paper
from convnext_steps.course.predict import multiply_adds
from convnext_steps.models import convnext
from convnext_steps.models.design import Design
from convnext_steps.models.roadmap import find_step
from convnext_steps.training.images import ImageTensors


def published() -> pd.DataFrame:
    """Tables 1 and 2 with exact counts of the authors' models, a row a model, by its builder."""
    text = files(convnext_steps.models.paper).joinpath("family.csv")
    with text.open(encoding="utf-8") as file:
        return pd.read_csv(file, index_col="builder")


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


def build(builder: str) -> convnext.Classifier:
    """A model of the family without memory for its weights: to count and to name, not to run."""
    with torch.device("meta"):
        return cast(convnext.Classifier, getattr(convnext, builder)())


def count(model: convnext.Classifier, resolution: int = 224) -> int:
    """The multiply-adds of one image by PyTorch's own counter, which needs no memory either."""
    image = torch.empty(
        1, model.in_channels, resolution, resolution, device=model.head.weight.device
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    return int(counter.get_total_flops()) // 2  # it counts a multiply-add twice


def predict_then_measure(resolution: int = 224, guesses: Mapping[str, float] = {}) -> pd.DataFrame:
    """One row a model: guess, formula and counts in 1e9 multiply-adds, and parameters in 1e6.

    Args:
        resolution: 224, or 384 where the paper has it.
        guesses: the reader's, by builder; 0 where none was made.
    """
    designs, rows = members(), []
    for builder, paper in published().dropna(subset=f"conv_linear_macs_{resolution}").iterrows():
        model, guess = build(str(builder)), guesses.get(str(builder), 0.0)
        design = designs.get(paper["model"])
        formula = multiply_adds(design, resolution) / 1e9 if design else None
        rows.append(
            {
                "model": paper["model"],
                "your guess": f"{guess:.2f}" if guess else "-",
                "by formula": f"{formula:.3f}" if formula else "-",
                "counted": f"{count(model, resolution) / 1e9:.3f}",
                "authors' model": f"{paper[f'conv_linear_macs_{resolution}'] / 1e9:.3f}",
                "parameters": f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}",
                "authors' parameters": f"{paper['params_1000_classes'] / 1e6:.2f}",
            }
        )
    return pd.DataFrame(rows).set_index("model")


def halves(data: ImageTensors) -> tuple[ImageTensors, ImageTensors]:
    """The images of the first half of the classes and those of the second, as two data sets."""
    middle = data.num_classes // 2
    first = data.labels < middle
    return (
        replace(data, images=data.images[first], labels=data.labels[first], num_classes=middle),
        replace(
            data,
            images=data.images[~first],
            labels=data.labels[~first] - middle,
            num_classes=data.num_classes - middle,
        ),
    )
