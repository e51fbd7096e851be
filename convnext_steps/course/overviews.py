"""Figures of many networks at once: the family, and the gains of all steps."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from convnext_steps.course.pictures import Picture
from convnext_steps.models.paper import published_family
from convnext_steps.study.plots import SECTION_COLORS

KINDS = (("ConvNeXt", "#0072B2", "o"), ("isotropic", "#E69F00", "s"))


def draw_family() -> Picture:
    """The paper's accuracies of the family against multiply-adds (Tables 1 and 2), ImageNet-1K."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    words = []
    known = [model for model in published_family().values() if model.top1_1k_224 is not None]
    for label, color, marker in KINDS:
        models = [model for model in known if ("iso." in model.name) == (label == "isotropic")]
        macs = [model.macs_224 / 1e9 for model in models]
        tops = [model.top1_1k_224 or 0.0 for model in models]
        axes.plot(macs, tops, color=color, marker=marker, label=label)
        for model, x, y in zip(models, macs, tops, strict=True):
            axes.annotate(model.name, (x, y), xytext=(5, -12), textcoords="offset points")
            words.append(f"{model.name} {y} % at {x:.1f} G")
    axes.set_xscale("log")
    axes.set_xticks([4, 8, 16, 32, 64], ["4", "8", "16", "32", "64"])
    axes.set(xlim=(3.5, 130), ylim=(79.2, 84.6), xlabel="10⁹ multiply-adds at 224×224 (log scale)")
    axes.set_ylabel("top-1 accuracy on ImageNet-1K (%)")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return Picture(figure, f"Accuracy against multiply-adds. {'; '.join(words)}.")


def draw_gains(comparisons: pd.DataFrame) -> Picture:
    """Every step's gain over its parent, ours and the paper's, with 95 % intervals.

    Args:
        comparisons: a table of `study.statistics.compare`.
    """
    rows = np.arange(len(comparisons))
    figure = Figure(figsize=(8, 0.38 * len(rows) + 1), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=0.8)
    sides = (
        ("ours", "difference", "margin", -0.14, SECTION_COLORS["2.6"], "o"),
        ("the paper's", "paper_difference", "paper_margin", 0.14, SECTION_COLORS["2.3"], "s"),
    )
    for label, mean, margin, shift, color, marker in sides:
        errors = comparisons[margin].fillna(0)
        dots = axes.errorbar(comparisons[mean], rows + shift, xerr=errors, fmt=marker, color=color)
        dots.set_label(label)
    axes.set_yticks(rows, comparisons["title"])
    axes.invert_yaxis()
    reach = 1.3 * comparisons[["difference", "paper_difference"]].abs().max().max()
    axes.set(xlim=(-reach, reach), xlabel="gain over the step before (points, 95 % interval)")
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    words = [
        f"{row.title} {row.difference:+z.1f} ({row.paper_difference:+z.1f})"
        for row in comparisons.itertuples()
    ]
    return Picture(figure, f"Gains in points, ours and the paper's: {'; '.join(words)}.")
