"""Any set of the paper's twelve decisions as a network, in whichever order they are taken.

A set has one name, whatever the order: `resnet`, and its decisions in the paper's order
(`resnet+depthwise+gelu`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from convnext_steps.models.design import Design
from convnext_steps.models.paper import Published
from convnext_steps.models.roadmap import BASE, PROBES, TINY, Step, published_steps
from convnext_steps.text import unknown

START = "resnet"  # without any decision
REQUIRED = {"move_up": "inverted"}  # there is nothing to move up before


def decisions(regime: str = "tiny") -> Mapping[str, Mapping[str, Any]]:
    """The twelve decisions in the paper's order, and the fields of the design that each sets."""
    if regime == "leave_one_out":
        raise ValueError("sets of decisions need the roadmap tiny or base, not leave_one_out")
    table = BASE if regime == "base" else TINY
    left_out = ("resnet_original", START, *PROBES)
    return {name: changes for name, changes in table.items() if name not in left_out}


def set_name(chosen: Collection[str]) -> str:
    """The one name of a set of decisions."""
    return "+".join([START, *(name for name in decisions() if name in chosen)])


def set_design(chosen: Collection[str], regime: str = "tiny") -> Design:
    """The design with just these decisions.

    Raises:
        ValueError: a decision does not exist, or lacks the one that it builds on.
    """
    known = decisions(regime)
    for name in chosen:
        if name not in known:
            raise ValueError(unknown("decision", name, known))
        if name in REQUIRED and REQUIRED[name] not in chosen:
            raise ValueError(f"{name} needs {REQUIRED[name]} before it")
    changes: dict[str, Any] = dict(TINY[START] if regime == "tiny" else BASE[START])
    for name, fields in known.items():
        if name in chosen:
            changes |= fields
    return Design(**changes)


def find_set(name: str, regime: str = "tiny", parent: str | None = None) -> Step:
    """The step that a set's name stands for, with the paper's numbers where it is the paper's.

    Args:
        name: `resnet+` and its decisions, in any order.
        regime: "tiny" or "base".
        parent: what the step is compared with; by default the set without its last decision.

    Raises:
        ValueError: a decision does not exist, is twice in the name, or lacks the one before it.
    """
    start, *chosen = name.split("+")
    if start != START or len(set(chosen)) < len(chosen):
        raise ValueError(f"{name} is not a set of decisions; write {START}+depthwise+gelu")
    design = set_design(chosen, regime)
    ordered = [decision for decision in decisions() if decision in chosen]
    if parent is None and ordered:
        parent = set_name(ordered[:-1])
    return _step(ordered, design, regime, parent, ordered[-1] if ordered else None)


def walk(order: Sequence[str], regime: str = "tiny") -> dict[str, Step]:
    """The steps from ResNet on, one decision after the other, in an order of one's own.

    Raises:
        ValueError: a decision does not exist, is twice in the order, or comes before the one that
            it builds on.
    """
    if len(set(order)) < len(order):
        twice = next(name for name in order if order.count(name) > 1)
        raise ValueError(f"{twice} is twice in the order")
    parent, chosen = None, list[str]()
    steps = {START: _step([], set_design([], regime), regime, None, None)}
    for decision in order:
        parent, chosen = set_name(chosen), [*chosen, decision]
        design = set_design(chosen, regime)
        steps[set_name(chosen)] = _step(chosen, design, regime, parent, decision)
    return steps


def _step(
    chosen: Iterable[str], design: Design, regime: str, parent: str | None, last: str | None
) -> Step:
    """A set as a step that takes the decision `last` after `parent`."""
    published = published_steps(regime)
    same = [
        step
        for step in published.values()
        if step.design == design and step.name != "resnet_original"
    ]
    known = published[last or START].paper
    paper = Published(title=known.title, section=known.section, parent=parent)
    if same:
        paper = replace(same[0].paper, title=known.title, section=known.section, parent=parent)
    changes = decisions(regime)[last] if last else {}
    return Step(set_name(set(chosen)), regime, MappingProxyType(dict(changes)), design, paper)
