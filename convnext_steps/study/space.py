"""The sets of decisions that a factorial allows, a space of networks, and a model's terms of it.

A set is a row of zeros and ones, one column per decision in the paper's order; its code is the
number with these bits.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

import numpy as np
import numpy.typing as npt

from convnext_steps.models.decisions import set_name

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Space:
    """All sets of some decisions in which each has what it needs.

    Args:
        decisions: in the paper's order.
        rules: pairs of a decision and the one that it needs before it.

    Raises:
        ValueError: decisions need each other.
    """

    decisions: tuple[str, ...]
    rules: frozenset[tuple[str, str]] = frozenset()

    def __post_init__(self) -> None:
        graph = TopologicalSorter[str]()
        for name, needed in sorted(self.rules):
            graph.add(name, needed)
        try:
            graph.prepare()
        except CycleError as error:
            circle = " and ".join(sorted(set(error.args[1])))
            raise ValueError(f"{circle} need each other") from None

    @cached_property
    def sets(self) -> Floats:
        """(sets, decisions), by code: every allowed set once."""
        size = len(self.decisions)
        rows = np.arange(2**size)[:, None] >> np.arange(size) & 1
        for name, needed in self.rules:
            one, other = self.decisions.index(name), self.decisions.index(needed)
            rows = rows[rows[:, one] <= rows[:, other]]
        return rows.astype(float)

    def codes(self, rows: Floats) -> Integers:
        """The codes of sets, (..., decisions)."""
        return (rows.astype(np.int64) << np.arange(len(self.decisions))).sum(-1)

    def names(self, rows: Floats) -> list[str]:
        """The names of sets, (sets, decisions), as steps have them."""
        return [set_name(np.array(self.decisions)[row > 0].tolist()) for row in rows]

    def rows(self, names: Iterable[str]) -> Floats:
        """The sets with these names, (names, decisions)."""
        chosen = [name.split("+")[1:] for name in names]
        rows = np.array([[one in each for one in self.decisions] for each in chosen], dtype=float)
        return rows.reshape(-1, len(self.decisions))  # of no names too

    @cached_property
    def paper(self) -> Floats:
        """The paper's own chain as far as the rules allow it: none, then one decision more each."""
        chain = np.tri(len(self.decisions) + 1, len(self.decisions), -1)
        return chain[np.isin(self.codes(chain), self.codes(self.sets))]

    def contexts(self, decision: int) -> tuple[Floats, Floats]:
        """The sets that allow both values of a decision: without it, and the same with it."""
        without = self.sets[self.sets[:, decision] == 0]
        taken = without.copy()
        taken[:, decision] = 1
        allowed = np.isin(self.codes(taken), self.codes(self.sets))
        return without[allowed], taken[allowed]

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The decisions whose interaction can be estimated: all four combinations are allowed."""
        size = len(self.decisions)
        both = ((one, other) for one in range(size) for other in range(one + 1, size))
        return tuple(pair for pair in both if len(np.unique(self.sets[:, pair] @ (1, 2))) == 4)

    def terms(self, rows: Floats, interactions: bool = True) -> Floats:
        """The columns of a linear model: 1, each decision, and each pair's product."""
        pairs = np.array(self.pairs if interactions else (), dtype=int).reshape(-1, 2)
        products = rows[:, pairs[:, 0]] * rows[:, pairs[:, 1]]
        return np.hstack([np.ones((len(rows), 1)), rows, products])

    def contrasts(self, interactions: bool = True) -> Floats:
        """What turns coefficients into effects: of each decision, averaged over its contexts."""
        means = []
        for decision in range(len(self.decisions)):
            without, taken = self.contexts(decision)
            gain = self.terms(taken, interactions) - self.terms(without, interactions)
            means.append(gain.mean(0))
        return np.array(means)

    def estimates(self, interactions: bool = True) -> Floats:
        """The contrasts, and below them what picks out each pair's coefficient."""
        contrasts = self.contrasts(interactions)
        return np.vstack([contrasts, np.eye(contrasts.shape[1])[1 + len(self.decisions) :]])
