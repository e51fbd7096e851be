"""Paired tests for few seeds, and what remains of them after many comparisons."""

import itertools
import math
import warnings
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import stats

ALPHA = 0.05
EXACT_SEEDS = 20  # up to here all sign patterns are counted, beyond they are drawn
BATCHES, DRAWS = 10, 1000  # of random sign patterns

Floats = npt.NDArray[np.float64]


def sign_flip_p(differences: npt.ArrayLike) -> float:
    """The two-sided p-value of paired differences under random signs; NaN without any.

    All 2^n patterns are counted up to twenty differences; beyond, 10,000 are drawn, always the
    same. Differences of zero stay in: they speak for noise.
    """
    given = np.asarray(differences, dtype=float)
    if given.size == 0:
        return math.nan
    exact = given.size <= EXACT_SEEDS
    sums = _all_sums(given) if exact else _random_sums(given)
    rounding = 1e-9 * np.abs(given).sum()  # sums that are equal on paper
    extreme = int(np.count_nonzero(np.abs(sums) >= abs(given.sum()) - rounding))
    return extreme / sums.size if exact else (extreme + 1) / (sums.size + 1)


def _all_sums(differences: Floats) -> Floats:
    """The sums under every pattern of signs but the first's, which only mirrors the rest."""
    sums = differences[:1]
    for difference in differences[1:]:
        sums = np.concatenate([sums + difference, sums - difference])
    return sums


def _random_sums(differences: Floats) -> Floats:
    kept = [signs @ differences for signs in _random_signs(differences.size)]
    return 2 * np.concatenate(kept) - differences.sum()


@lru_cache(maxsize=1)  # the comparisons of a study have the same seeds
def _random_signs(size: int) -> list[Floats]:
    """Which differences keep their sign: 1, or 0 where it is turned."""
    random = np.random.default_rng(0)
    return [random.integers(0, 2, (DRAWS, size), np.int8) * 1.0 for _ in range(BATCHES)]


def smallest_p(seeds: int) -> float:
    """The smallest p-value that a two-sided sign-flip test can reach: 2 / 2^n."""
    return min(1.0, 2.0 ** (1 - seeds))


def seeds_needed(comparisons: int) -> int:
    """The fewest seeds with which a sign-flip test can pass Holm's first step."""
    return next(n for n in itertools.count(1) if smallest_p(n) <= ALPHA / comparisons)


def holm(p_values: npt.ArrayLike) -> Floats:
    """Holm's corrected p-values; NaN, a test still to come, stays NaN and counts as one more."""
    given = np.asarray(p_values, dtype=float)
    order = np.argsort(given)  # NaN last
    raised = given[order] * np.arange(given.size, 0, -1)
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(1, np.maximum.accumulate(raised))
    return corrected


def paired_t_p(differences: npt.ArrayLike) -> float:
    """The two-sided p-value of the paired t-test; NaN for fewer than two, 1 where all are zero."""
    given = np.asarray(differences, dtype=float)
    if given.size < 2:
        return math.nan
    if not given.any():
        return 1.0
    with warnings.catch_warnings():  # differences that are all alike: p is about 0, and so be it
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(stats.ttest_1samp(given, 0).pvalue)
