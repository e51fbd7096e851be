"""A question as one value: which data, at what scale, with what recipe, and which steps."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from convnext_steps.errors import InvalidStudyError
from convnext_steps.fields import build, convert
from convnext_steps.models.decisions import walk
from convnext_steps.models.design import Design, scaled
from convnext_steps.models.roadmap import Step, beyond, find_step, roadmap
from convnext_steps.study.plan import Data, Run
from convnext_steps.text import unknown
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


@dataclass(frozen=True, kw_only=True)
class OwnStep:
    """A decision of one's own: the fields of a parent's design that change."""

    name: str
    parent: str
    change: Mapping[str, Any]
    title: str = ""


SECTIONS: dict[str, type[Any]] = {
    "data": Data,
    "scale": Scale,
    "recipe": TrainingConfig,
    "how": How,
}
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
    how: How = How()
    own_steps: tuple[OwnStep, ...] = ()
    uses: str = ""  # a Python file whose `add_step` adds decisions; never named by a study file

    def steps(self) -> Mapping[str, Step]:
        """The steps to train by name, in their order.

        Raises:
            ValueError: a step does not exist, or cannot be.
        """
        steps = self._all_steps()
        for name in self.only:
            if name not in steps:
                raise ValueError(f"only: {unknown('step', name, steps)}")
        if not self.only:
            return steps
        own = [name for name, step in steps.items() if step.section == "own"]
        return {name: steps[name] for name in dict.fromkeys([*self.only, *own])}

    def _all_steps(self) -> dict[str, Step]:
        steps = dict(self._order() if self.order else roadmap(self.roadmap))
        for own in self.own_steps:
            if own.name in steps:
                raise ValueError(f"step.name: there is a step {own.name!r} already")
            steps[own.name] = self._own_step(own, steps)
        return steps

    def _order(self) -> dict[str, Step]:
        try:
            return walk(self.order, self.roadmap)
        except ValueError as error:
            raise ValueError(f"order: {error}") from None

    def _own_step(self, own: OwnStep, steps: Mapping[str, Step]) -> Step:
        if own.parent in steps:
            parent = steps[own.parent]
        elif "+" in own.parent:
            parent = find_step(own.parent, self.roadmap)
        else:
            raise ValueError(f"step.parent: {unknown('step', own.parent, steps)}")
        kinds = {each.name: each.type for each in fields(Design)}
        for name in own.change:
            if name not in kinds:
                raise ValueError(f"step.change: {unknown('field', name, kinds)}")
        change = {k: convert(v, kinds[k], f"step.change.{k}") for k, v in own.change.items()}
        title = own.title or own.name
        try:
            return beyond(own.name, parent, title, "own", type(parent.design), change)
        except ValueError as error:
            raise ValueError(f"step.change: {error}") from None

    def plan(self, seeds: Iterable[int] = (0,), steps: Sequence[str] | None = None) -> list[Run]:
        """The runs of the study, seed by seed, in the order of its steps.

        Args:
            seeds: whole numbers from 0 on.
            steps: names; by default all of the study's.

        Raises:
            ValueError: a step does not exist.
        """
        known = self.steps()
        chosen = [self.find(name) for name in steps] if steps else list(known.values())
        runs = []
        for seed in seeds:
            modern = replace(self.recipe, seed=seed)
            recipes = {"roadmap": modern, "resnet_original": original_recipe(modern)}
            for step in chosen:
                design = scaled(step.design, **asdict(self.scale))
                recipe = recipes[step.recipe]
                parts = design, recipe, self.data, self.how, self.uses
                runs.append(Run(self.name, step.name, *parts))
        return runs

    def find(self, name: str) -> Step:
        """One of the roadmap's steps or of the study's own, or any set of decisions.

        Raises:
            ValueError: it does not exist; the message has the nearest name.
        """
        steps = self._all_steps()
        if name in steps:
            return steps[name]
        if "+" in name:
            return find_step(name, self.roadmap)
        raise ValueError(unknown("step", name, steps))

    def change(self, changes: Mapping[str, Any], name: str | None = None) -> "Study":
        """Another study that differs in these values, with a name of its own.

        Args:
            changes: by `section.field`, such as `recipe.max_epochs`, or a field of the study.
            name: of the new study; by default this one's, and what differs.

        Raises:
            InvalidStudyError: there is no such field, or a value is of the wrong type or out of
                range.
        """
        try:
            return self._changed(changes, name)
        except ValueError as error:
            raise InvalidStudyError(str(error)) from None

    def _changed(self, changes: Mapping[str, Any], name: str | None) -> "Study":
        words, tables, plain = [self.name], dict[str, dict[str, Any]](), dict[str, Any]()
        for key, value in changes.items():
            section, _, short = key.partition(".")
            if key not in keys():
                raise ValueError(unknown("key", key, keys()))
            if short:
                tables.setdefault(section, {})[short] = value
                before = getattr(getattr(self, section), short)
            else:
                plain[key] = convert(value, PLAIN[key], key)
                before = getattr(self, key)
            if value != before and not {key, section} & UNNAMED:
                words.append(f"{short or key}_{_word(value)}")
        for section, values in tables.items():
            before = vars(getattr(self, section))
            plain[section] = build(SECTIONS[section], before | values, section)
        study = checked(replace(self, name=name or "_".join(words), **plain))
        say_what_stays(study, tables.get("recipe", ()))
        return study


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
    if not re.fullmatch(r"[\w.+-]+", study.name) or study.name.startswith("."):
        raise ValueError(f"name is {study.name!r}; it must be of letters, digits, _, -, + and .")
    if study.recipe.seed:
        raise ValueError("recipe.seed: seeds are given when a study is run, with --seeds")
    data = study.data
    if data.source not in SOURCES:
        raise ValueError(f"data.source: {unknown('data set', data.source, SOURCES)}")
    if data.root:
        root = Path(data.root).expanduser().resolve()
        if not root.is_dir():
            raise ValueError(f"data.root: there is no folder {root}")
        study = replace(study, data=replace(data, root=str(root)))
    study.steps()
    return study


def say_what_stays(study: Study, changed: Iterable[str]) -> None:
    """Log which changes of the recipe do not reach `resnet_original`, whose recipe is derived."""
    unreached = [name for name in changed if name in ORIGINAL or name == "learning_rate"]
    if unreached and "resnet_original" in study.steps():
        LOG.warning("resnet_original keeps its own %s", ", ".join(unreached))


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "-".join(map(_word, value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.+-]+", "-", text)
