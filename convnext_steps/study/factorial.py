"""A factorial experiment: which networks of a space are trained, with which seeds, in which order.

Unlike a walk that takes one decision after the other, every run measures every decision.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, NamedTuple

import numpy as np

from convnext_steps.errors import reworded
from convnext_steps.models.decisions import REQUIRED, decisions
from convnext_steps.study.space import Bools, Floats, Integers, Space
from convnext_steps.text import unknown
from convnext_steps.training.config import require as check

PUBLISHED = "factorial_quick"  # the factorial that is shown unless another is named
RIDGE = 1e-3  # keeps designs with fewer runs than terms comparable (DuMouchel and Jones, 1994)


@dataclass(frozen=True, kw_only=True)
class Factorial:
    """Which networks to train; the paper's own are always among those of the fit.

    Raises:
        ValueError: a decision does not exist or lacks the one that it needs, or there are not as
            many networks.
    """

    decisions: tuple[str, ...] = ()  # all twelve by default
    require: Mapping[str, str] = field(default_factory=dict, hash=False)  # what each needs before
    runs: Literal["all"] | int = "all"  # different networks in the fit
    repeats: int = 0  # more runs: networks of the fit with another seed
    held_out: int = 0  # more networks, never in the fit
    seed: int = 0  # of the choice of networks, and of their trainings

    def __post_init__(self) -> None:
        for key, names in {
            "decisions": self.decisions,
            "require": (*self.require, *self.require.values()),
        }.items():
            for name in names:
                if name not in decisions():
                    raise ValueError(f"{key}: {unknown('decision', name, decisions())}")
        for name in self.decisions:
            if self.decisions.count(name) > 1:
                raise ValueError(f"decisions: {name} is twice in the list")
        for name in ("repeats", "held_out", "seed"):
            check(self, name, getattr(self, name) >= 0, "must be 0 or more")
        space = self.space
        total, paper = len(space.sets), len(space.paper)
        check(self, "held_out", self.held_out <= total - paper, f"must be at most {total - paper}")
        if self.runs == "all":
            check(self, "held_out", self.held_out == 0, 'must be 0 where runs = "all"')
        else:
            least = max(paper, 2 + len(space.decisions) - self.repeats)
            check(self, "runs", self.runs >= least, f"must be at least {least}, to tell effects")
            most = total - self.held_out
            check(self, "runs", self.runs <= most, f"must be at most {most}: there are no more")
        fitted = total if self.runs == "all" else self.runs
        check(self, "repeats", self.repeats <= fitted, f"must be at most {fitted}, the runs")

    @property
    def space(self) -> Space:
        """The decisions and the rules about them.

        Raises:
            ValueError: a decision needs one that is not among them, or they need each other.
        """
        chosen = tuple(name for name in decisions() if name in (self.decisions or decisions()))
        rules = {*REQUIRED.items(), *self.require.items()}
        rules = {(name, needed) for name, needed in rules if name in chosen}
        for name, needed in sorted(rules):
            if needed not in chosen:
                raise ValueError(f"decisions: {name} needs {needed}, which is not among them")
        with reworded("require: "):
            return _space(chosen, frozenset(rules))


_space = cache(Space)  # so that what a space knows of itself is found once


class Entry(NamedTuple):
    """One run of a factorial."""

    step: str
    seed: int
    part: Literal["fit", "repeat", "held out"]


@cache
def entries(factorial: Factorial) -> tuple[Entry, ...]:
    """The runs of a factorial in a random order, so that any beginning is a fair sample."""
    space, rng = factorial.space, np.random.default_rng(factorial.seed)
    paper = np.isin(space.codes(space.sets), space.codes(space.paper))
    held_out = rng.choice(np.flatnonzero(~paper), factorial.held_out, replace=False)
    rest = np.setdiff1d(np.arange(len(space.sets)), held_out)
    fit = rest
    if factorial.runs != "all":
        fit = rest[optimal(space.terms(space.sets[rest]), paper[rest], factorial.runs, rng)]
    repeats = rng.choice(fit, factorial.repeats, replace=False)
    found = []
    parts: tuple[tuple[Literal["fit", "repeat", "held out"], Integers], ...]
    parts = ("fit", fit), ("repeat", repeats), ("held out", held_out)
    for part, chosen in parts:
        for name in space.names(space.sets[chosen]):
            found.append(Entry(name, own_seed(factorial, name, int(part == "repeat")), part))
    return tuple(found[place] for place in rng.permutation(len(found)))


def own_seed(factorial: Factorial, step: str, repeat: int = 0) -> int:
    """The training seed that a network draws: the same whichever others are trained."""
    text = f"{factorial.seed} {step} {repeat}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:3])


def optimal(terms: Floats, fixed: Bools, number: int, rng: np.random.Generator) -> Integers:
    """A D-optimal choice of candidates by Fedorov's exchange (1972), from a random start.

    Args:
        terms: of the model, one row per candidate.
        fixed: the candidates that are always chosen.
        number: how many to choose.
        rng: of the start.
    """
    free = rng.permutation(np.flatnonzero(~fixed))
    chosen = fixed.copy()
    chosen[free[: number - fixed.sum()]] = True
    while True:
        inside, outside = np.flatnonzero(chosen & ~fixed), np.flatnonzero(~chosen)
        information = terms[chosen].T @ terms[chosen] + RIDGE * np.eye(terms.shape[1])
        spread = terms @ np.linalg.inv(information)
        leverage = (spread * terms).sum(1)
        growth = (1 - leverage[inside, None]) * (1 + leverage[outside])
        growth += (spread[inside] @ terms[outside].T) ** 2
        if not growth.size or growth.max() < 1 + 1e-6:
            return np.flatnonzero(chosen)
        out, into = np.unravel_index(growth.argmax(), growth.shape)
        chosen[inside[out]], chosen[outside[into]] = False, True


@dataclass(frozen=True)
class Quality:
    """How well a design separates the effects, before anything is trained."""

    networks: int  # in the fit
    of: int  # that the rules allow
    correlation: float  # the largest between two estimates
    effects: tuple[float, float]  # the smallest and the largest variance, in units of sigma^2
    interactions: tuple[float, float] | None  # likewise; None where the runs cannot tell them

    def __str__(self) -> str:
        text = (
            f"{self.networks:,} of {self.of:,} networks in the fit; largest correlation of two "
            f"estimates {self.correlation:.2f}; variance of a decision's effect "
            f"{self.effects[0]:.3f} to {self.effects[1]:.3f} sigma²"
        )
        if self.interactions is None:
            return f"{text}; too few runs for interactions"
        return f"{text}, of an interaction {self.interactions[0]:.3f} to {self.interactions[1]:.3f}"


def design_quality(factorial: Factorial) -> Quality:
    """The quality of a factorial's fit, with interactions where its runs can tell them apart."""
    space = factorial.space
    steps = [entry.step for entry in entries(factorial) if entry.part != "held out"]
    rows = space.rows(steps)
    terms = space.terms(rows)
    estimable = bool(np.linalg.matrix_rank(terms) == terms.shape[1])
    terms = space.terms(rows, estimable)
    wanted = space.estimates(estimable)
    covariance = wanted @ np.linalg.inv(terms.T @ terms) @ wanted.T
    variances = covariance.diagonal()
    correlations = covariance / np.sqrt(np.outer(variances, variances)) - np.eye(len(variances))
    effects, rest = np.split(variances, [len(space.decisions)])
    return Quality(
        len(set(steps)),
        len(space.sets),
        float(np.abs(correlations).max()),
        (float(effects.min()), float(effects.max())),
        (float(rest.min()), float(rest.max())) if rest.size else None,
    )
