"""What all figures share: colours, marks, axes, and files.

Okabe and Ito's palette: its colours differ in lightness too, so that they survive print and
colour-blindness; series differ in marker and line style as well.
"""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from convnext_steps.files import write_bytes

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
GREY, SKY, RED = "#999999", "#56B4E9", "#D55E00"
LINES = "#DDDDDD"  # of grids
STYLES: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "marker": "o", "linestyle": "-"},
    {"color": ORANGE, "marker": "s", "linestyle": "--"},
    {"color": GREEN, "marker": "^", "linestyle": ":"},
    {"color": PURPLE, "marker": "D", "linestyle": "-."},
    {"color": RED, "marker": "v", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
)
SVG: Any = {"svg.fonttype": "none", "svg.hashsalt": "convnext_steps"}  # the same bytes each time

own_style = style.context("default")  # a decorator: whatever the reader's matplotlibrc says


def subplots(
    rows: int = 1, columns: int = 1, *, figsize: tuple[float, float], **options: Any
) -> tuple[Figure, Any]:
    """A figure and its axes, laid out so that they do not overlap; not one of pyplot's.

    Args:
        rows: of axes.
        columns: of axes.
        figsize: width and height in inches.
        options: of matplotlib's `Figure.subplots`.
    """
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def finish(axes: Axes, grid: str = "", legend: bool = False) -> None:
    """The finishing touches: no frame but the two axes, and a grid and a legend where wanted.

    Args:
        axes: the axes.
        grid: "x", "y" or "both"; none by default.
        legend: whether to add one.
    """
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(axis=grid, color=LINES, linewidth=0.6)  # type: ignore[arg-type]
        axes.set_axisbelow(True)
    if legend:
        axes.legend(frameon=False)


@own_style
def svg(figure: Figure) -> str:
    """The figure as the text of an SVG file."""
    text = io.StringIO()
    with mpl.rc_context(SVG):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


@own_style
def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as `path`.png and `path`.svg, the same bytes for the same picture."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150, metadata={"Software": None})
    figure.set_layout_engine("none")  # laid out once, for both
    write_bytes(path.with_suffix(".png"), picture.getvalue())
    write_bytes(path.with_suffix(".svg"), svg(figure).encode())
