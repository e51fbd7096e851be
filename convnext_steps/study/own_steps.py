"""Decisions of one's own that a study's file adds, without Python."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from convnext_steps.fields import convert
from convnext_steps.models.design import Design
from convnext_steps.models.roadmap import Step, beyond, find_step
from convnext_steps.text import unknown


@dataclass(frozen=True, kw_only=True)
class OwnStep:
    """A decision of one's own: the fields of a parent's design that change.

    Raises:
        ValueError: nothing changes.
    """

    name: str
    parent: str
    change: Mapping[str, Any]
    title: str = ""

    def __post_init__(self) -> None:
        if not self.change:
            raise ValueError("change must be a table such as { kernel_size = 13 }")

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
        if self.parent in steps:
            parent = steps[self.parent]
        elif "+" in self.parent:
            parent = find_step(self.parent, roadmap)
        else:
            raise ValueError(f"step.parent: {unknown('step', self.parent, steps)}")
        kinds = {each.name: each.type for each in fields(Design)}
        for name in self.change:
            if name not in kinds:
                raise ValueError(f"step.change: {unknown('field', name, kinds)}")
        change = {k: convert(v, kinds[k], f"step.change.{k}") for k, v in self.change.items()}
        title = self.title or self.name
        try:
            return beyond(self.name, parent, title, "own", type(parent.design), change)
        except ValueError as error:
            raise ValueError(f"step.change: {error}") from None
