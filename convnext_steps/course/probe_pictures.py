"""The figures beyond the paper, drawn from tables of `probes`, with alternative text."""

from collections.abc import Mapping

import pandas as pd

from convnext_steps.course.pictures import Picture
from convnext_steps.models.roadmap import roadmap
from convnext_steps.study.figures import STYLES, finish, own_style, subplots
from convnext_steps.study.probes import paper_gains
from convnext_steps.study.statistics import accuracies

COLUMNS = 5
SEEDS = {"linestyle": "", "markersize": 3, "alpha": 0.6}  # small marks


@own_style
def draw_budget(budget: pd.DataFrame) -> Picture:
    """The gain of each step over its parent against the images seen, for each depth.

    Small marks are seeds, lines join their means; the dotted line is the paper's gain.

    Args:
        budget: a table of `budget_gains`.
    """
    paper = paper_gains()
    rows = -(-len(paper) // COLUMNS)
    size = (13, 2.3 * rows + 0.8)
    figure, panels = subplots(rows, COLUMNS, sharex=True, sharey=True, figsize=size)
    depths = sorted(budget["depth"].unique(), reverse=True)
    for axes, (step, gain) in zip(panels.flat, paper.items(), strict=False):
        for depth, style in zip(depths, STYLES, strict=False):
            ours = budget[(budget["step"] == step) & (budget["depth"] == depth)]
            axes.plot(ours["images"], ours["gain"], **(style | SEEDS))
            means = ours.groupby("images")["gain"].mean()
            axes.plot(means.index, means, label=f"{depth} blocks", **style)
        axes.axhline(0, color="black", linewidth=0.6)
        axes.axhline(gain, color="black", linestyle=":", label="the paper's gain")
        axes.set_title(roadmap()[str(step)].title, fontsize=9)
        finish(axes)
    if not budget.empty:
        ticks = sorted(budget["images"].unique())
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{images:,}" for images in ticks])
        axes.minorticks_off()
    figure.supxlabel("images seen in training")
    figure.supylabel("gain over the parent (points)")
    legend = axes.get_legend_handles_labels()
    figure.legend(*legend, loc="outside upper center", ncols=3, frameon=False)
    return Picture(figure, _budget_in_words(budget))


def _budget_in_words(budget: pd.DataFrame) -> str:
    parts = ["Gains in points over the images seen."]
    for depth, part in budget.groupby("depth"):
        means = part.pivot_table(index="step", columns="images", values="gain", sort=False)
        least, most = means.columns.min(), means.columns.max()
        gains = "; ".join(
            f"{roadmap()[str(step)].title} {row[least]:+z.2f} to {row[most]:+z.2f}"
            for step, row in means.iterrows()
        )
        parts.append(f"With {depth} blocks, from {least:,} images to {most:,}: {gains}.")
    return " ".join(parts)


@own_style
def draw_pairs(series: Mapping[str, pd.DataFrame], quantity: str) -> Picture:
    """Two series of the same steps side by side: small marks are seeds, large ones means.

    Args:
        series: by label, one row per seed and one column per step.
        quantity: what is shown, with its unit.
    """
    (one, first), (other, second) = series.items()
    names, known = list(first.columns), roadmap()
    titles = [known[name].title if name in known else name for name in names]
    figure, axes = subplots(figsize=(9, 0.4 * len(names) + 1.4))
    for offset, style, (label, table) in zip((-0.15, 0.15), STYLES, series.items(), strict=False):
        rows = [row + offset for row in range(len(names))]
        for _, values in table[names].iterrows():
            axes.plot(values, rows, **(style | SEEDS))
        mean = style | {"linestyle": "", "markersize": 8}
        axes.plot(table[names].mean(), rows, label=label, **mean)
    axes.set_yticks(range(len(names)), titles)
    axes.invert_yaxis()
    axes.set_xlabel(quantity)
    low, high = axes.get_xlim()
    if low < 0 < high:
        axes.axvline(0, color="black", linewidth=0.6)
    finish(axes, "x")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    means = "; ".join(
        f"{title} {first[name].mean():.2f} and {second[name].mean():.2f}"
        for title, name in zip(titles, names, strict=True)
    )
    return Picture(figure, f"{quantity}, {one} and {other}: {means}.")


def draw_fit(results: pd.DataFrame) -> Picture:
    """The accuracy of each step on training images, without augmentation, and on test images.

    Args:
        results: a table of `load_results`; those without the former are left out.
    """
    known = results.dropna(subset=["fit_accuracy"])
    series = {
        "the first 2,000 training images": accuracies(known, "fit_accuracy"),
        "test images": accuracies(known),
    }
    found = {name: table.dropna(axis="columns", how="all") for name, table in series.items()}
    return draw_pairs(found, "accuracy (%)")
