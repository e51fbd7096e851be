"""What is signal and what is noise: every step against its parent, paired by seed.

The verdict comes from the exact two-sided sign-flip test, with Holm's correction over all
comparisons of the study: it assumes only that a step without effect gains any amount as often as
it loses it. The paired t-test is given next to it; the 95 % t-intervals are not corrected.
"""

import itertools
import math
import warnings
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from convnext_steps.models.roadmap import Step
from convnext_steps.study.loading import steps_of
from convnext_steps.study.markdown import markdown_table, numbers, p_values, within
from convnext_steps.study.space import Floats

ALPHA = 0.05
PAPER_SEEDS = 3  # behind each mean and standard deviation of Table 10
PATTERNS = 10_000  # of signs: all up to thirteen seeds; for more, a random sample, always the same

COLUMNS = [
    *("step", "parent", "title", "against"),  # two names, two titles
    "n",  # seeds that both have
    *("difference", "std", "margin"),  # in points; margin: of the mean's t-interval
    *("p_t", "p_sign_flip", "p_t_holm", "p_sign_flip_holm"),
    "verdict",
    *("paper_difference", "paper_margin", "paper_verdict"),
]


def sign_flip_p(differences: npt.ArrayLike) -> float:
    """The two-sided p-value of paired differences under random signs; NaN without any.

    Whole numbers, such as images classified correctly, make ties exact; differences of zero stay
    in: they are evidence for noise.
    """
    given = np.asarray(differences)
    if given.size < 2:
        return 1.0 if given.size else math.nan
    options = {"permutation_type": "samples", "n_resamples": PATTERNS, "vectorized": True}
    test = stats.permutation_test((given,), np.sum, rng=np.random.default_rng(0), **options)
    return float(test.pvalue)


def smallest_p(seeds: int) -> float:
    """The smallest p-value that a two-sided sign-flip test can reach: 2 / 2^n."""
    return min(1.0, 2.0 ** (1 - seeds))


def seeds_needed(comparisons: int) -> int:
    """The fewest seeds with which a sign-flip test can pass Holm's first step."""
    return next(n for n in itertools.count(1) if smallest_p(n) <= ALPHA / comparisons)


def holm(p_values: npt.ArrayLike) -> Floats:
    """Holm's corrected p-values; NaN, a test not yet made, stays NaN and counts as one more."""
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
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # all equal
        return float(stats.ttest_1samp(given, 0).pvalue)


def compare(results: pd.DataFrame) -> pd.DataFrame:
    """One row per comparison: the gain over the parent, tested, next to the paper's.

    Args:
        results: a table of `load_results`, of one study.

    Raises:
        ValueError: the table mixes studies, or has a run twice.
    """
    steps = steps_of(results)
    pairs = comparisons(steps)
    points, images = (paired(results, pairs, column) for column in ("accuracy", "correct"))
    names = {"p": "p_sign_flip", "p_holm": "p_sign_flip_holm"}
    table = tested(points, images).rename(columns=names).rename_axis("step").reset_index()
    table["parent"] = table["step"].map(pairs)
    titles = {name: step.title for name, step in steps.items()}
    table["title"], table["against"] = table["step"].map(titles), table["parent"].map(titles)
    table["p_t"] = [paired_t_p(gains.dropna()) for _, gains in points.items()]
    table["p_t_holm"] = holm(table["p_t"])
    known = results.dropna(subset="accuracy")["step"]
    table.loc[~table["step"].isin(known), "verdict"] = "no results"
    paper = [paper_gain(steps[step], steps[parent]) for step, parent in pairs.items()]
    table["paper_difference"] = [difference for difference, _ in paper]
    table["paper_margin"] = [margin for _, margin in paper]
    table["paper_verdict"] = [_paper_verdict(*each) for each in paper]
    return table[COLUMNS]


def tested(points: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """One row per comparison: n, mean difference, std, margin, p (of sign flips), p_holm, verdict.

    The verdict is up, down or within noise; with fewer seeds than this many comparisons need, it
    is "too few seeds (n of needed)".

    Args:
        points: differences of accuracy, one row per seed and one column per comparison.
        images: the same in whole numbers, such as images classified correctly.
    """
    rows = []
    for (_, found), (_, whole) in zip(points.items(), images.items(), strict=True):
        known = spread(found, "difference")
        rows.append({"n": found.count(), **known, "p": sign_flip_p(whole.dropna())})
    columns = ["n", "difference", "std", "margin", "p"]
    table = pd.DataFrame(rows, index=points.columns, columns=columns)
    table["p_holm"] = holm(table["p"])
    needed = seeds_needed(max(len(table), 1))
    table["verdict"] = [
        f"too few seeds ({row.n} of {needed})"
        if row.n < needed
        else _word(row.difference, row.p_holm <= ALPHA)
        for row in table.itertuples()
    ]
    return table


def paired(
    results: pd.DataFrame, pairs: Mapping[str, str], column: str = "accuracy"
) -> pd.DataFrame:
    """Gains, one row per seed and one column per step; NaN where a run is missing.

    Args:
        results: of one study.
        pairs: by step, what it is compared with.
        column: of the results.
    """
    table = accuracies(results, column)
    return pd.DataFrame({step: table[step] - table[parent] for step, parent in pairs.items()})


def comparisons(steps: Mapping[str, Step]) -> dict[str, str]:
    """What each step is compared with: its parent; for `resnet`, the older recipe's.

    Probes count: sixteen comparisons in all.
    """
    parents = {name: step.parent for name, step in steps.items()}
    if "resnet" in parents:
        parents["resnet"] = "resnet_original"  # the first gain of Figure 2: the recipe's
    return {name: parent for name, parent in parents.items() if parent and parent in steps}


def accuracies(results: pd.DataFrame, column: str = "accuracy") -> pd.DataFrame:
    """One column of a study's table, one row per seed and one column per step; NaN without a run.

    Raises:
        ValueError: the table mixes studies, or has a run twice.
    """
    studies = sorted(results["study"].unique())
    if len(studies) > 1:
        raise ValueError(f"the results mix the studies {', '.join(studies)}; compare one")
    twice = results[results.duplicated(["step", "seed"])]
    if not twice.empty:
        first = twice.iloc[0]
        raise ValueError(f"{first['step']} seed {first['seed']} appears twice in the results")
    table = results.pivot(index="seed", columns="step", values=column)
    return table.reindex(columns=list(steps_of(results))).astype(float)


def paper_gain(step: Step, parent: Step) -> tuple[float, float]:
    """The paper's difference of means and the margin of Welch's t-interval, three seeds each.

    The margin is NaN where a standard deviation is not printed: all of Table 11, and the original
    recipe. Beyond it the paper's step counts as up or down, without correction.
    """
    both = step.paper, parent.paper
    ours, theirs = np.array([paper.top1_mean for paper in both], dtype=float)  # None becomes NaN
    squares = np.array([paper.top1_std for paper in both], dtype=float) ** 2 / PAPER_SEEDS
    freedom = squares.sum() ** 2 * (PAPER_SEEDS - 1) / (squares**2).sum()
    margin = stats.t.ppf(1 - ALPHA / 2, freedom) * np.sqrt(squares.sum())
    return float(ours - theirs), float(margin)


def spread(values: npt.ArrayLike, name: str) -> dict[str, float]:
    """Mean (under this name), deviation, and margin of the mean's t-interval; without NaN."""
    known = pd.Series(values, dtype=float).dropna()
    margin = stats.t.ppf(1 - ALPHA / 2, len(known) - 1) * known.sem()  # NaN for fewer than two
    return {name: known.mean(), "std": known.std(), "margin": float(margin)}


def _paper_verdict(difference: float, margin: float) -> str:
    if math.isnan(difference):
        return "not in the paper"
    if math.isnan(margin):
        return f"{_word(difference, True)} (no std printed)"
    return _word(difference, abs(difference) > margin)


def _word(difference: float, significant: bool) -> str:
    if not significant or difference == 0:
        return "within noise"
    return "up" if difference > 0 else "down"


def to_markdown(table: pd.DataFrame) -> str:
    """A table of `compare` as Markdown; a missing result is a dash."""
    columns = {
        "step": table["title"],
        "against": table["against"],
        "n": table["n"],
        "difference": within(table["difference"], table["margin"]),
        "std": numbers(table["std"]),
        "p": p_values(table["p_sign_flip_holm"]),
        "p, t": p_values(table["p_t_holm"]),
        "verdict": table["verdict"],
        "paper": within(table["paper_difference"], table["paper_margin"]),
        "paper's verdict": table["paper_verdict"],
    }
    return (
        f"{markdown_table(columns)}\n\n"
        "Differences in points, paired by n seeds, ± half the width of their 95 % t-interval "
        "(uncorrected); p of the sign-flip test and, beside it, of the paired t-test, both with "
        f"Holm's correction over {len(table)} comparisons. "
        f"The paper's on ImageNet-1K, ± Welch's interval over {PAPER_SEEDS} seeds, uncorrected; "
        "its verdict says whether the difference lies beyond it.\n"
    )
