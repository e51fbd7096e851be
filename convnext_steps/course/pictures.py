"""Figures with alternative text."""

import base64
import html
from dataclasses import dataclass

from matplotlib.figure import Figure

from convnext_steps.study.figures import svg


@dataclass(frozen=True)
class Picture:
    """A figure, and what it shows in words, for those who cannot see it."""

    figure: Figure
    alternative: str

    def svg(self) -> str:
        """The figure as one SVG element that can be put in a page."""
        label = f'<svg role="img" aria-label="{html.escape(self.alternative)}"'
        element = svg(self.figure).partition("<svg")[2]  # without what makes it a file
        return label + element

    def _repr_html_(self) -> str:
        """An image with its alternative text, as notebooks, slides and the site show it."""
        source = base64.b64encode(self.svg().encode()).decode()
        alternative = html.escape(self.alternative)
        style = "max-width: 100%; background: white"
        return f'<img alt="{alternative}" style="{style}" src="data:image/svg+xml;base64,{source}">'
