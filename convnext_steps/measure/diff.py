"""What changes from one step of the roadmap to another: the decisions and the layers."""

from dataclasses import dataclass, fields
from difflib import unified_diff
from typing import Any

import torch

from convnext_steps.models.design import Design
from convnext_steps.models.network import Network
from convnext_steps.models.roadmap import Step, find_step


@dataclass(frozen=True)
class StepDiff:
    """The difference of two designs: `fields` maps a name to (before, after); `modules` is text."""

    fields: dict[str, tuple[Any, Any]]
    modules: str

    def __str__(self) -> str:
        fields = [f"-{name} = {a!r}\n+{name} = {b!r}" for name, (a, b) in self.fields.items()]
        parts = ["\n".join(fields), self.modules]
        return "\n\n".join(part for part in parts if part) or "no difference in the network"


def step_diff(
    before: str | Step | Design, after: str | Step | Design, regime: str = "tiny"
) -> StepDiff:
    """Compare two steps: the fields that differ, and a unified diff of stem, third stage and head.

    Args:
        before: a step, its name, or any design; a field that it lacks counts as the default.
        after: the same.
        regime: where names are looked up.

    Raises:
        ValueError: a step or the regime does not exist.
    """
    (old_name, a), (new_name, b) = _named(before, regime), _named(after, regime)
    defaults = {field.name: field.default for design in (a, b) for field in fields(design)}
    values = {
        name: (getattr(a, name, default), getattr(b, name, default))
        for name, default in defaults.items()
    }
    changed = {name: (old, new) for name, (old, new) in values.items() if old != new}
    lines = unified_diff(_print(a), _print(b), old_name, new_name, lineterm="")
    return StepDiff(changed, "\n".join(lines))


def _named(step: str | Step | Design, regime: str) -> tuple[str, Design]:
    if isinstance(step, str):
        step = find_step(step, regime)
    return (step.name, step.design) if isinstance(step, Step) else ("design", step)


def _print(design: Design) -> list[str]:
    with torch.device("meta"):
        network = Network(design)
    parts = {"stem": network.stem, "stages[2]": network.stages[2], "head": network.head}
    return "\n".join(f"{name}: {part}" for name, part in parts.items()).split("\n")
