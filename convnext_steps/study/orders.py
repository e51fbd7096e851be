"""What each decision would be credited with in every allowed order, exactly and without a list.

In an order, a decision is credited with the change that it makes where it is taken, which depends
only on the decisions before it. So orders are counted on the ways through the sets, by dynamic
programming, and the mean credit over all orders is the Shapley value under precedence constraints
(Faigle and Kern, 1992).
"""

from functools import cache

import numpy as np
import pandas as pd

from convnext_steps.study.space import Floats, Integers, Space


@cache
def places(space: Space) -> tuple[tuple[Integers, Integers, Floats], ...]:
    """For each decision, the sets before it, those after it, and the share of all orders.

    Sets are places in the space's list.
    """
    codes = space.codes(space.sets)
    ways = _ways(space, codes.tolist())
    everything = codes.max()
    rest = _ways(space, codes.tolist(), up=False)
    found = []
    for decision in range(len(space.decisions)):
        before, after = (space.codes(rows) for rows in space.contexts(decision))
        pairs = zip(before.tolist(), after.tolist(), strict=True)
        share = np.array([ways[one] * rest[other] / ways[everything] for one, other in pairs])
        found.append((np.searchsorted(codes, before), np.searchsorted(codes, after), share))
    return tuple(found)


def number_of_orders(space: Space) -> int:
    """In how many orders the decisions can be taken."""
    codes = space.codes(space.sets).tolist()
    return _ways(space, codes)[max(codes)]


def _ways(space: Space, codes: list[int], up: bool = True) -> dict[int, int]:
    """From no decision up to each set, a smaller code before a larger one; or down from all."""
    first, *others = sorted(codes, reverse=not up)
    bits, ways = range(len(space.decisions)), {first: 1}
    for code in others:
        before = (code ^ 1 << bit for bit in bits if (code >> bit & 1) == up)
        ways[code] = sum(ways.get(one, 0) for one in before)
    return ways


def mean_weights(space: Space) -> Floats:
    """(decisions, sets): what turns the values of all sets into mean credits."""
    weights = np.zeros((len(space.decisions), len(space.sets)))
    for row, (before, after, share) in zip(weights, places(space), strict=True):
        np.add.at(row, after, share)
        np.add.at(row, before, -share)
    return weights


def credits(space: Space, values: Floats) -> pd.DataFrame:
    """One row per decision: what it is credited with over all allowed orders.

    Columns: decision, mean, smallest and largest with an order that gives each, q05 and q95 (of the
    orders), negative (share of the orders), paper (in the paper's own order; NaN where the rules
    forbid it), and below (share of the orders that give less than the paper's).

    Args:
        space: the sets.
        values: of each set, in the order of `space.sets`; an order's credits add up to the
            difference of the last and the first.
    """
    rows = []
    paper = paper_credits(space, values)
    for decision, (before, after, share) in enumerate(places(space)):
        gains = values[after] - values[before]
        low, high = int(gains.argmin()), int(gains.argmax())
        q05, q95 = _quantiles(gains, share)
        rows.append(
            {
                "decision": space.decisions[decision],
                "mean": float(gains @ share),
                "smallest": gains[low],
                "largest": gains[high],
                "q05": q05,
                "q95": q95,
                "negative": share[gains < 0].sum(),
                "paper": paper[decision],
                "below": share[gains < paper[decision] - 1e-9].sum(),
                "smallest_order": _order(space, space.sets[before[low]], decision),
                "largest_order": _order(space, space.sets[before[high]], decision),
            }
        )
    return pd.DataFrame(rows)


def best_and_worst(space: Space, values: Floats) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The orders with the highest and the lowest mean value of the sets on their way.

    Every order begins and ends at the same sets; the best is the one that gains early.

    Args:
        space: the sets.
        values: of each set, in the order of `space.sets`.
    """
    best, worst = (_highest(space, sign * values) for sign in (1, -1))
    return best, worst


def _highest(space: Space, values: Floats) -> tuple[str, ...]:
    """The order with the largest sum of values, set by set: a smaller code before a larger one."""
    value = dict(zip(space.codes(space.sets).tolist(), values, strict=True))
    bits, sums, last = range(len(space.decisions)), {0: value[0]}, dict[int, int]()
    for code in sorted(value)[1:]:
        before = {bit: code & ~(1 << bit) for bit in bits if code >> bit & 1}
        ways = {bit: sums[rest] for bit, rest in before.items() if rest in sums}
        last[code] = max(ways, key=lambda bit: ways[bit])
        sums[code] = ways[last[code]] + value[code]
    code, taken = max(value), list[str]()
    while code:
        taken.append(space.decisions[last[code]])
        code &= ~(1 << last[code])
    return tuple(reversed(taken))


def paper_credits(space: Space, values: Floats) -> Floats:
    """(decisions, ...): each decision's credit in the paper's order; NaN where it is forbidden.

    Args:
        space: the sets.
        values: (sets, ...), in the order of `space.sets`.
    """
    if len(space.paper) <= len(space.decisions):
        return np.full((len(space.decisions), *values.shape[1:]), np.nan)
    chain = np.searchsorted(space.codes(space.sets), space.codes(space.paper))
    return np.diff(values[chain], axis=0)


def _quantiles(gains: Floats, share: Floats) -> Floats:
    order = np.argsort(gains)
    reached = np.minimum(np.cumsum(share[order]), 1)
    return gains[order][np.searchsorted(reached, [0.05, 0.95])]


def _order(space: Space, before: Floats, decision: int) -> str:
    """An order with just these decisions before this one, otherwise in the paper's order."""
    taken: list[str] = []
    first = {name for name, has in zip(space.decisions, before, strict=True) if has}
    for group in (first, {space.decisions[decision]}, set(space.decisions)):
        while waiting := [name for name in space.decisions if name in group - set(taken)]:
            free = (
                name
                for name in waiting
                if all(needed in taken for one, needed in space.rules if one == name)
            )
            taken.append(next(free))
    return " ".join(taken)
