"""What each step costs in seconds on the reader's own machine, beside its multiply-adds."""

from collections.abc import Iterable, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from convnext_steps.measure.flops import count_flops
from convnext_steps.measure.roofline import LayerPoint
from convnext_steps.measure.speed import Work, measure_speeds
from convnext_steps.study.figures import own_style, subplots
from convnext_steps.study.plan import Run
from convnext_steps.study.plots import SECTION_COLORS
from convnext_steps.training.images import ImageData


def work_of(run: Run, data: ImageData) -> Work:
    """One training step of a run on its data."""
    return Work(
        resolution=data[0][0].shape[-1],
        batch_size=run.config.batch_size,
        precision="bf16" if run.config.precision == "bf16" else "fp32",
        in_channels=data.channels,
        num_classes=data.num_classes,
    )


def measure_costs(runs: Iterable[Run], rounds: int = 5) -> pd.DataFrame:
    """One row per run: multiply-adds of its network, and the time of a training step here and now.

    `milliseconds` is of one batch; `plain_milliseconds` of the same network with PyTorch's own
    layers.
    """
    rows = []
    for run in runs:
        train, _ = run.load_data()
        work = work_of(run, train)
        models = {"fast": run.build(train), "plain": run.build(train)}
        speeds = measure_speeds(models, work, rounds, fast={"fast"})
        count = count_flops(models["plain"], work.resolution, work.in_channels)
        rows.append(
            {
                "step": run.step,
                "macs": count.conv_linear,
                "milliseconds": speeds["fast"].milliseconds,
                "plain_milliseconds": speeds["plain"].milliseconds,
                "share_of_peak": speeds["fast"].share_of_peak,
            }
        )
    return pd.DataFrame(rows)


@own_style
def plot_costs(costs: pd.DataFrame, accuracy: "pd.Series[float]") -> Figure:
    """Accuracy against multiply-adds, and against measured time: two orders of the same steps.

    Args:
        costs: a table of `measure_costs`.
        accuracy: per cent by step; steps without one are left out.
    """
    known = costs[costs["step"].isin(accuracy.dropna().index)]
    figure, axes = subplots(1, 2, sharey=True, figsize=(11, 4.5))
    columns = (
        (known["macs"] / 1e6, "million multiply-adds per image"),
        (known["milliseconds"], "measured milliseconds per training step"),
    )
    for panel, (values, label) in zip(axes, columns, strict=True):
        heights = accuracy[known["step"]]
        panel.plot(values, heights, color="#BBBBBB", linewidth=1, zorder=1)
        panel.scatter(values, heights, color=SECTION_COLORS["2.6"], zorder=2)
        for name, x, y in zip(known["step"], values, heights, strict=True):
            panel.annotate(name, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
        panel.set_xlabel(label)
        panel.set_xlim(0, 1.25 * max(values))  # with room for the names
    axes[0].set_ylabel("test accuracy (%)")
    return figure


@own_style
def plot_roofline(points: Sequence[LayerPoint], peak: float, bandwidth: float) -> Figure:
    """Layers between the two ceilings of a machine (Williams et al., 2009).

    Args:
        points: measured layers.
        peak: operations per second of a matrix product.
        bandwidth: bytes per second of a copy.
    """
    figure, axes = subplots(figsize=(7, 4.5))
    intensity = np.logspace(-1, 3, 100)
    roof = np.minimum(peak, bandwidth * intensity) / 1e9
    axes.loglog(intensity, roof, color="black", label="the machine's two ceilings")
    for point, marker in zip(points, cycle("osD^v"), strict=False):
        axes.loglog(point.intensity, point.rate / 1e9, marker, markersize=9, label=point.name)
    axes.set_xlabel("operations per byte moved")
    axes.set_ylabel("10⁹ operations per second")
    axes.legend()
    return figure
