"""The roadmap of the paper (Figure 2): every step as its difference from the step before.

Beyond the paper: the finished network without one of its decisions, and steps of your own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, get_args

from convnext_steps.models.design import Design
from convnext_steps.models.network import Network
from convnext_steps.models.paper import Published, published_roadmap
from convnext_steps.text import check_name, unknown

Regime = Literal["tiny", "base", "leave_one_out"]

# What each step changes in its parent's design, in the paper's order. Titles, sections and parents
# are in paper/roadmap.csv; kernel sizes other than 7 are probes beside the chain.
TINY: dict[str, dict[str, Any]] = {
    "resnet_original": {},
    "resnet": {},
    "stage_ratio": {"depths": (3, 3, 9, 3)},
    "patchify": {"stem": "patchify"},
    "depthwise": {"depthwise": True},
    "width": {"width": 96},
    "inverted": {"layout": "inverted"},
    "move_up": {"layout": "depthwise_first"},
    "kernel_5": {"kernel_size": 5},
    "kernel_7": {"kernel_size": 7},
    "kernel_9": {"kernel_size": 9},
    "kernel_11": {"kernel_size": 11},
    "gelu": {"activation": "gelu"},
    "fewer_activations": {"activations_per_block": 1},
    "fewer_norms": {"norms_per_block": 1},
    "layer_norm": {"norm": "layer"},
    "separate_downsampling": {"downsampling": "separate"},
}
BASE = TINY | {
    "resnet_original": {"depths": (3, 24, 36, 3)},
    "resnet": {"depths": (3, 24, 36, 3)},
    "stage_ratio": {"depths": (3, 3, 27, 3), "width": 84},
    "width": {"width": 128},
}
PROBES = ("kernel_5", "kernel_9", "kernel_11")
FINISHED = "separate_downsampling"  # the last step: the network with every decision

OWN_STEPS: dict[str, dict[str, "Step"]] = {}  # by regime; filled by `add_step`


@dataclass(frozen=True)
class Step:
    """One step of the roadmap: its change, the resulting design, and the paper's numbers."""

    name: str
    regime: str
    changes: Mapping[str, Any]  # the fields of the design that differ from the parent's
    design: Design
    paper: Published

    @property
    def title(self) -> str:
        """The step's title in Tables 10 and 11."""
        return self.paper.title

    @property
    def section(self) -> str:
        """The section of the paper that describes the step."""
        return self.paper.section

    @property
    def parent(self) -> str | None:
        """The name of the step that this one changes; None for the two ResNets."""
        return self.paper.parent

    @property
    def probe(self) -> bool:
        """Whether the step stands beside the chain: no later step builds on it."""
        return self.name in PROBES

    @property
    def claim(self) -> str:
        """What the paper reports about the step, in one line."""
        paper = self.paper
        if paper.top1_mean is None:
            return f"{self.title}: not in the paper"
        spread = f" ± {paper.top1_std:.2f}" if paper.top1_std is not None else ""
        text = f"{self.title} (Section {self.section}): {paper.top1_mean:.2f}{spread} % top-1"
        parent = published_roadmap(self.regime).get(self.parent or "")
        if parent and parent.top1_mean is not None and paper.top1_mean is not None:
            text += f", {paper.top1_mean - parent.top1_mean:+.2f} against {parent.title}"
        return f"{text}; {paper.gflops_printed:.2f} GFLOPs, on ImageNet-1K"

    def build(
        self, *, in_channels: int = 3, num_classes: int = 1000, drop_path_rate: float = 0.0
    ) -> Network:
        """Build the step's network; `Network` says what the arguments are."""
        return Network(
            self.design,
            in_channels=in_channels,
            num_classes=num_classes,
            drop_path_rate=drop_path_rate,
        )


def roadmap(regime: str = "tiny") -> Mapping[str, Step]:
    """All steps of a regime by name, in the paper's order; those of `add_step` come last.

    Args:
        regime: "tiny" (ResNet-50 to ConvNeXt-T, Table 10), "base" (ResNet-200 to ConvNeXt-B,
            Table 11), or "leave_one_out": ConvNeXt-T, then without each of its decisions in turn.

    Raises:
        ValueError: the regime does not exist.
    """
    if regime not in get_args(Regime):
        raise ValueError(unknown("regime", regime, get_args(Regime)))
    steps = _leave_one_out() if regime == "leave_one_out" else published_steps(regime)
    return MappingProxyType({**steps, **OWN_STEPS.get(regime, {})})


@cache
def published_steps(regime: str) -> Mapping[str, Step]:
    """The steps of the paper alone, by name and in its order."""
    paper = published_roadmap(regime)
    steps: dict[str, Step] = {}
    for name, changes in (TINY if regime == "tiny" else BASE).items():
        parent = paper[name].parent
        design = replace(steps[parent].design if parent else Design(), **changes)
        steps[name] = Step(name, regime, MappingProxyType(changes), design, paper[name])
    return MappingProxyType(steps)


def _leave_one_out() -> dict[str, Step]:
    """The finished network, and for each decision the same network without it.

    Without `inverted`, `move_up` is gone too: both are values of `layout`.
    """
    chain = published_steps("tiny")
    finished = replace(
        chain[FINISHED],
        regime="leave_one_out",
        changes=MappingProxyType({}),
        paper=replace(chain[FINISHED].paper, title="every decision", parent=None),
    )
    steps = {FINISHED: finished}
    for name, step in chain.items():
        if step.parent is None or step.probe:
            continue
        before = {field: getattr(chain[step.parent].design, field) for field in step.changes}
        title = f"without {step.title}"
        steps[f"without_{name}"] = beyond(
            f"without_{name}", finished, title, step.section, Design, before
        )
    return steps


def add_step(
    name: str,
    parent: str,
    title: str,
    design: type[Design] | None = None,
    regime: str = "tiny",
    **changes: Any,
) -> Step:
    """Add a step of your own to a roadmap, until this process ends; a second call replaces it.

    Args:
        name: the step's name, also in results.
        parent: the name of the step that it changes.
        title: the step's title in tables and figures.
        design: for a decision that is a new field, a subclass of the parent's design with that
            field and a `revise` method; by default, the class of the parent's design.
        regime: which roadmap; see `roadmap`.
        **changes: the fields that differ from the parent's.

    Raises:
        ValueError: the name is taken, or there is no such parent, field or value.
    """
    if name in roadmap(regime) and name not in OWN_STEPS.get(regime, {}):
        raise ValueError(f"the roadmap already has a step {name!r}; choose another name")
    before = find_step(parent, regime)
    design = design or type(before.design)
    step = beyond(name, before, title, "own", design, changes)
    OWN_STEPS.setdefault(regime, {})[name] = step
    return step


def beyond(
    name: str,
    parent: Step,
    title: str,
    section: str,
    design: type[Design],
    changes: Mapping[str, Any],
) -> Step:
    """A step that is not in the paper.

    Raises:
        ValueError: there is no such field, it cannot have this value, or the name cannot be a
            folder's.
    """
    check_name(name, "name")
    known = tuple(field.name for field in fields(design))
    for name_of_field in changes:
        if name_of_field not in known:
            raise ValueError(unknown("field", name_of_field, known))
    return Step(
        name,
        parent.regime,
        MappingProxyType(changes),
        design(**{**vars(parent.design), **changes}),
        Published(title, section, parent.name),
    )


def find_step(name: str, regime: str = "tiny", steps: Mapping[str, Step] | None = None) -> Step:
    """One step by name, or any set of decisions.

    Args:
        name: of the step.
        regime: "tiny", "base" or "leave_one_out".
        steps: to choose from; by default the regime's.

    Raises:
        ValueError: the step does not exist; the message suggests the nearest name.
    """
    steps = roadmap(regime) if steps is None else steps
    if name in steps:
        return steps[name]
    if "+" in name:
        from convnext_steps.models.decisions import find_set  # which builds on this module

        return find_set(name, regime)
    raise ValueError(unknown("step", name, steps))
