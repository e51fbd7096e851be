"""A question as one value: which data, at what scale, with what recipe, and which steps."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from convnext_steps.fields import build, convert
from convnext_steps.models.decisions import walk
from convnext_steps.models.design import Design, scaled
from convnext_steps.models.roadmap import Step, beyond, find_step, roadmap
from convnext_steps.study.plan import Run
from convnext_steps.text import unknown
from convnext_steps.training.config import TrainingConfig, original_recipe, require
from convnext_steps.training.data import SOURCES
from convnext_steps.training.how import How


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which images: a named data set, or a folder of one's own."""

    source: str = "fashion_mnist"
    root: str = ""  # where a folder, or a downloaded data set, is; never in a hash or a name
    images: int = 0  # to train on; 0: all
    held_out: float = 0.0  # share of the training images, to choose between settings on
    skip_broken: bool = False  # go on without images that cannot be read

    def __post_init__(self) -> None:
        require(self, "images", self.images >= 0, "must be 0 or more")
        require(self, "held_out", 0 <= self.held_out < 1, "must be at least 0 and below 1")


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
    data: Data = Data()
    scale: Scale = Scale()
    recipe: TrainingConfig = field(default_factory=TrainingConfig)
    how: How = How()
    own_steps: tuple[OwnStep, ...] = ()

    def steps(self) -> Mapping[str, Step]:
        """The study's steps by name, in their order.

        Raises:
            ValueError: a step does not exist, or cannot be.
        """
        steps = dict(self._order() if self.order else roadmap(self.roadmap))
        for own in self.own_steps:
            if own.name in steps:
                raise ValueError(f"step.name: there is a step {own.name!r} already")
            steps[own.name] = self._own_step(own, steps)
        if self.only:
            missing = [name for name in self.only if name not in steps]
            if missing:
                raise ValueError(f"only: {unknown('step', missing[0], steps)}")
            return {name: steps[name] for name in self.only}
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
            recipe = replace(self.recipe, seed=seed)
            recipes = {"roadmap": recipe, "resnet_original": original_recipe(recipe)}
            for step in chosen:
                design = scaled(step.design, **asdict(self.scale))
                runs.append(
                    Run(
                        self.name,
                        "tiny",
                        step.name,
                        design,
                        recipes[step.recipe],
                        self.data.source,
                        self.data.images or None,
                        self.how,
                    )
                )
        return runs

    def find(self, name: str) -> Step:
        """One of the study's steps, or any set of decisions.

        Raises:
            ValueError: it does not exist; the message has the nearest name.
        """
        steps = self.steps()
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
            ValueError: there is no such field, or a value is of another type or out of range.
        """
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
            plain[section] = build(
                SECTIONS[section], vars(getattr(self, section)) | values, section
            )
        return checked(replace(self, name=name or "_".join(words), **plain))


PLAIN = {
    each.name: each.type
    for each in fields(Study)
    if each.name not in (*SECTIONS, "name", "own_steps")
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
    if data.root and not Path(data.root).is_dir():
        raise ValueError(f"data.root: there is no folder {data.root}")
    study.steps()
    return study


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "-".join(map(_word, value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.+-]+", "-", text)
