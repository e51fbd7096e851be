"""Any set of the paper's twelve decisions as a network, in whichever order they are taken.

A set has one name, whatever the order: `resnet`, and its decisions in the paper's order
(`resnet+depthwise+gelu`).
"""

from collections.abc import Collection, Mapping, Sequence
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


def find_set(name: str, regime: str = "tiny") -> Step:
    """The step that a set's name stands for, with the paper's numbers where it is the paper's.

    Its parent is the set without its last decision in the paper's order.

    Args:
        name: `resnet+` and its decisions, in any order.
        regime: "tiny" or "base".

    Raises:
        ValueError: a decision does not exist, is twice in the name, or lacks the one before it.
    """
    start, *chosen = name.split("+")
    if start != START or len(set(chosen)) < len(chosen):
        raise ValueError(f"{name} is not a set of decisions; write {START}+depthwise+gelu")
    set_design(chosen, regime)  # which names a decision that does not exist
    return _step([decision for decision in decisions() if decision in chosen], regime)


def walk(order: Sequence[str], regime: str = "tiny") -> dict[str, Step]:
    """The steps from ResNet on, one decision after the other, in an order of one's own.

    Raises:
        ValueError: a decision does not exist, is twice in the order, or comes before the one that
            it builds on.
    """
    if len(set(order)) < len(order):
        twice = next(name for name in order if order.count(name) > 1)
        raise ValueError(f"{twice} is twice in the order")
    sets = [order[:count] for count in range(len(order) + 1)]
    return {set_name(chosen): _step(chosen, regime) for chosen in sets}


def _step(chosen: Sequence[str], regime: str) -> Step:
    """The step that takes the last of these decisions after the others."""
    design, published = set_design(chosen, regime), published_steps(regime)
    last = chosen[-1] if chosen else START
    parent = set_name(chosen[:-1]) if chosen else None
    same = [
        step
        for step in published.values()
        if step.design == design and step.name != "resnet_original"
    ]
    known = published[last].paper
    numbers = same[0].paper if same else Published("", "", None)
    paper = replace(numbers, title=known.title, section=known.section, parent=parent)
    changes = decisions(regime).get(last, {})
    return Step(set_name(chosen), regime, MappingProxyType(dict(changes)), design, paper)
