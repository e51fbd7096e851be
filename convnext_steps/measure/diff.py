"""What changes from one step of the roadmap to another: the decision, and the layers built."""

from dataclasses import asdict, dataclass
from difflib import unified_diff
from typing import Any

import torch

from convnext_steps.models.design import Design
from convnext_steps.models.network import Network
from convnext_steps.models.roadmap import find_step


@dataclass(frozen=True)
class StepDiff:
    """The difference of two designs: `fields` maps a name to (before, after); `modules` is text."""

    fields: dict[str, tuple[Any, Any]]
    modules: str

    def __str__(self) -> str:
        fields = [f"-{name} = {a!r}\n+{name} = {b!r}" for name, (a, b) in self.fields.items()]
        parts = ["\n".join(fields), self.modules]
        return "\n\n".join(part for part in parts if part) or "no difference in the network"


def step_diff(before: str | Design, after: str | Design, regime: str = "tiny") -> StepDiff:
    """Compare two steps: the fields that differ, and a unified diff of stem, third stage and head.

    Args:
        before: a step's name, or any design.
        after: the same.
        regime: where names are looked up.

    Raises:
        ValueError: a step or the regime does not exist.
    """
    a, b = (
        find_step(step, regime).design if isinstance(step, str) else step
        for step in (before, after)
    )
    values_a, values_b = asdict(a), asdict(b)
    fields = {
        name: (values_a[name], values_b[name])
        for name in values_a
        if values_a[name] != values_b[name]
    }
    lines = unified_diff(_print(a), _print(b), _name(before), _name(after), lineterm="")
    return StepDiff(fields, "\n".join(lines))


def _print(design: Design) -> list[str]:
    with torch.device("meta"):
        network = Network(design)
    parts = {"stem": network.stem, "stages[2]": network.stages[2], "head": network.head}
    return "\n".join(f"{name}: {part}" for name, part in parts.items()).split("\n")


def _name(step: str | Design) -> str:
    return step if isinstance(step, str) else "design"
