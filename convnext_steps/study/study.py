"""A question as one value: which data, at what scale, with what recipe, and which steps."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import Any, Literal

from convnext_steps.errors import InvalidStudyError, reworded
from convnext_steps.fields import build, convert
from convnext_steps.files import expanded
from convnext_steps.models.decisions import find_set, walk
from convnext_steps.models.design import scaled
from convnext_steps.models.roadmap import Step, find_step, roadmap
from convnext_steps.study.factorial import Factorial, entries, own_seed
from convnext_steps.study.own_steps import OwnStep
from convnext_steps.study.plan import Data, Run
from convnext_steps.text import check_name, unknown
from convnext_steps.training.config import ORIGINAL, TrainingConfig, original_recipe, require
from convnext_steps.training.data import SOURCES
from convnext_steps.training.how import How

LOG = logging.getLogger("convnext_steps")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How the designs are made smaller, without changing a decision: see `scaled`."""

    width: float = 1.0
    depth: float = 1.0
    stem_stride: Literal[1, 2, 4] = 4

    def __post_init__(self) -> None:
        for name in ("width", "depth"):
            require(self, name, getattr(self, name) > 0, "must be above 0")


SECTIONS: dict[str, type[Any]] = {
    "data": Data,
    "scale": Scale,
    "recipe": TrainingConfig,
    "factorial": Factorial,
    "how": How,
}
OWN_SEEDS = "a factorial's networks draw their own seeds, from factorial.seed; leave --seeds out"
UNNAMED = {"how", "data.root", "description"}  # what is in no hash is in no name


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that a study asks; equal studies plan the same runs.

    Raises:
        ValueError: a step does not exist, or cannot be.
    """

    name: str
    description: str = ""
    roadmap: Literal["tiny", "base", "leave_one_out"] = "tiny"
    order: tuple[str, ...] = ()  # decisions, taken one after the other from ResNet on
    only: tuple[str, ...] = ()  # steps to train; all by default
    data: Data = field(default_factory=Data)
    scale: Scale = Scale()
    recipe: TrainingConfig = field(default_factory=TrainingConfig)
    factorial: Factorial | None = None  # its networks are the steps
    how: How = How()
    own_steps: tuple[OwnStep, ...] = ()
    uses: str = ""  # a Python file whose `add_step` adds decisions; never named by a study file

    def steps(self) -> Mapping[str, Step]:
        """The steps to train by name, in their order.

        Raises:
            ValueError: a step does not exist, or cannot be.
        """
        steps = self.all_steps()
        for name in self.only:
            if name not in steps:
                raise ValueError(f"only: {unknown('step', name, steps)}")
        if not self.only:
            return steps
        own = [name for name, step in steps.items() if step.section == "own"]
        return {name: steps[name] for name in dict.fromkeys([*self.only, *own])}

    def all_steps(self) -> dict[str, Step]:
        """The steps that `only` chooses from, by name, in their order."""
        if self.factorial:
            return dict(_networks(self.factorial, self.roadmap))
        steps = dict(roadmap(self.roadmap))
        if self.order:
            with reworded("order: "):
                steps = walk(self.order, self.roadmap)
        for own in self.own_steps:
            steps[own.name] = own.step(steps, self.roadmap)
        return steps

    def plan(
        self, seeds: Iterable[int] | None = None, steps: Sequence[str] | None = None
    ) -> list[Run]:
        """The runs of the study, seed by seed, in the order of its steps.

        Args:
            seeds: whole numbers from 0 on; by default 0, and what each network of a factorial drew.
            steps: names; by default all of the study's.

        Raises:
            ValueError: a step does not exist, or a factorial is given seeds for all its networks.
        """
        if self.factorial and seeds is not None and not steps:
            raise ValueError(OWN_SEEDS)
        chosen = [self.find(name) for name in steps] if steps else list(self.steps().values())
        if self.factorial and seeds is None:
            return self._drawn(self.factorial, {step.name: step for step in chosen})
        return [
            self._run(step, seed) for seed in ((0,) if seeds is None else seeds) for step in chosen
        ]

    def _drawn(self, factorial: Factorial, steps: Mapping[str, Step]) -> list[Run]:
        """The runs of a factorial with these steps, each with the seed that it drew."""
        seeds = [(each.step, each.seed) for each in entries(factorial) if each.step in steps]
        others = set(steps) - {name for name, _ in seeds}
        seeds += [(name, own_seed(factorial, name)) for name in steps if name in others]
        return [self._run(steps[name], seed) for name, seed in seeds]

    def _run(self, step: Step, seed: int) -> Run:
        recipe = replace(self.recipe, seed=seed)
        if step.name == "resnet_original":
            recipe = original_recipe(recipe)
        design = scaled(step.design, **asdict(self.scale))
        return Run(self.name, step.name, design, recipe, self.data, self.how, self.uses)

    def find(self, name: str) -> Step:
        """One of the roadmap's steps or of the study's own, or any set of decisions.

        Raises:
            ValueError: it does not exist; the message has the nearest name.
        """
        return find_step(name, self.roadmap, self.all_steps())

    def change(self, changes: Mapping[str, Any], name: str | None = None) -> "Study":
        """Another study that differs in these values, with a name of its own.

        Args:
            changes: by `section.field`, such as `recipe.max_epochs`, or a field of the study.
            name: of the new study; by default this one's, and what differs.

        Raises:
            InvalidStudyError: there is no such field, or a value is of the wrong type or out of
                range.
        """
        with reworded(kind=InvalidStudyError):
            return self._changed(changes, name)

    def _changed(self, changes: Mapping[str, Any], name: str | None) -> "Study":
        words, tables, plain = [self.name], dict[str, dict[str, Any]](), dict[str, Any]()
        for key, value in changes.items():
            section, _, short = key.partition(".")
            if key not in keys():
                raise ValueError(unknown("key", key, keys()))
            if short:
                tables.setdefault(section, {})[short] = value
            else:
                plain[key] = convert(value, PLAIN[key], key)
        for section, values in tables.items():
            whole = vars(getattr(self, section) or SECTIONS[section]()) | values
            plain[section] = build(SECTIONS[section], whole, section)
        for key, value in changes.items():
            section, _, short = key.partition(".")
            before, after = getattr(self, section), plain[section]
            if short:
                before, after = getattr(before, short, None), getattr(after, short)
            if before != after and not {key, section} & UNNAMED:
                words.append(f"{short or key}_{word(value)}")
        if "factorial" in tables and not self.factorial:
            plain = INSTEAD | plain
        study = checked(replace(self, name=name or "_".join(words), **plain))
        say_what_stays(study, tables.get("recipe", ()), self.recipe)
        return study


INSTEAD: dict[str, Any] = {"order": (), "only": (), "own_steps": ()}  # of a factorial
PLAIN = {
    each.name: each.type
    for each in fields(Study)
    if each.name not in (*SECTIONS, "name", "own_steps", "uses")
}


def keys() -> tuple[str, ...]:
    """Everything that can be changed in a study."""
    tables = [
        f"{section}.{each.name}" for section, kind in SECTIONS.items() for each in fields(kind)
    ]
    return (*PLAIN, *tables)


def checked(study: Study) -> Study:
    """The study itself, once it is known that its name can be a folder's and its steps exist.

    Raises:
        ValueError: it is not.
    """
    check_name(study.name, "name")
    if study.recipe.seed:
        raise ValueError("recipe.seed: seeds are given when a study is run, with --seeds")
    data = study.data
    if data.source not in SOURCES:
        raise ValueError(f"data.source: {unknown('data set', data.source, SOURCES)}")
    if data.root:
        root = expanded(data.root).resolve()
        if not root.is_dir():
            raise ValueError(f"data.root: there is no folder {root}")
        study = replace(study, data=replace(data, root=str(root)))
    if study.factorial and any(getattr(study, key) for key in INSTEAD):
        raise ValueError(
            "factorial: its networks are the steps; leave out order, only and [[step]]"
        )
    study.steps()
    return study


@cache
def _networks(factorial: Factorial, roadmap: str) -> Mapping[str, Step]:
    return {each.step: find_set(each.step, roadmap) for each in entries(factorial)}


def say_what_stays(study: Study, given: Iterable[str], before: TrainingConfig) -> None:
    """Log which changes of the recipe do not reach `resnet_original`, whose recipe is derived."""
    changed = [name for name in given if getattr(study.recipe, name) != getattr(before, name)]
    unreached = [name for name in changed if name in ORIGINAL or name == "learning_rate"]
    if unreached and "resnet_original" in study.steps():
        LOG.warning("resnet_original keeps its own %s", ", ".join(unreached))


def word(value: Any) -> str:
    """A value as a part of a study's name."""
    if isinstance(value, list | tuple):
        return "-".join(map(word, value))
    text = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.+-]+", "-", text)
