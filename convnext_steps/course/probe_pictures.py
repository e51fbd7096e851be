"""The figures beyond the paper, with texts that stand for them."""

from collections.abc import Mapping

import pandas as pd

from convnext_steps.course.pictures import Picture
from convnext_steps.models.roadmap import roadmap
from convnext_steps.study.probe_plots import plot_budget, plot_pairs


def draw_budget(budget: pd.DataFrame) -> Picture:
    """The gain of each step over its parent against the images seen, for each depth.

    Args:
        budget: a table of `budget_gains`.
    """
    parts = []
    for depth, part in budget.groupby("depth"):
        means = part.pivot_table(index="step", columns="images", values="gain", sort=False)
        least, most = means.columns.min(), means.columns.max()
        gains = "; ".join(
            f"{roadmap()[str(step)].title} {row[least]:+z.2f} to {row[most]:+z.2f}"
            for step, row in means.iterrows()
        )
        parts.append(f"With {depth} blocks, from {least:,} images to {most:,}: {gains}.")
    return Picture(plot_budget(budget), " ".join(["Gains in points over the images seen.", *parts]))


def draw_pairs(series: Mapping[str, pd.DataFrame], quantity: str) -> Picture:
    """Two series of the same steps beside each other.

    Args:
        series: by label, a row a seed and a column a step.
        quantity: what is shown, with its unit.
    """
    (one, first), (other, second) = series.items()
    means = "; ".join(
        f"{roadmap()[step].title} {first[step].mean():.2f} and {second[step].mean():.2f}"
        for step in first.columns
    )
    return Picture(plot_pairs(series, quantity), f"{quantity}, {one} and {other}: {means}.")
