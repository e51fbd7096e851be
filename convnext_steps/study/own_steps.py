"""Decisions of one's own that a study's file adds, without Python."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from convnext_steps.errors import reworded
from convnext_steps.fields import convert
from convnext_steps.models.roadmap import Step, beyond, find_step


@dataclass(frozen=True, kw_only=True)
class OwnStep:
    """A decision of one's own: the fields of a parent's design that change.

    Raises:
        ValueError: nothing changes, or the title has a formula that matplotlib cannot read.
    """

    name: str
    parent: str
    change: Mapping[str, Any]
    title: str = ""

    def __post_init__(self) -> None:
        if not self.change:
            raise ValueError("change must be a table such as { kernel_size = 13 }")
        if self.title.count("$") > 1:
            from matplotlib.mathtext import MathTextParser  # slow to import, and seldom needed

            try:
                MathTextParser("path").parse(self.title)
            except ValueError:
                words = "no figure can show it: leave its dollar signs out"
                raise ValueError(f"title is {self.title!r}; {words}") from None

    def step(self, steps: Mapping[str, Step], roadmap: str) -> Step:
        """The step itself.

        Args:
            steps: those of the study so far.
            roadmap: the study's roadmap.

        Raises:
            ValueError: its name is taken, or there is no such parent, field or value.
        """
        if self.name in steps:
            raise ValueError(f"step.name: there is a step {self.name!r} already")
        with reworded("step.parent: "):
            parent = find_step(self.parent, roadmap, steps)
        design, title = type(parent.design), self.title or self.name
        kinds = get_type_hints(design)
        change = {
            name: convert(value, kinds.get(name, Any), f"step.change.{name}")
            for name, value in self.change.items()
        }
        with reworded("step.change: "):
            return beyond(self.name, parent, title, "own", design, change)
