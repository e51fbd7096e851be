"""What each decision does, from a factorial's results: effects, interactions, how sure they are.

Two linear models of the accuracy, by ordinary least squares: one in which decisions add up, and
one with the product of every two decisions that the rules let vary freely.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from convnext_steps.study.loading import study_of
from convnext_steps.study.networks import factorial_of, networks
from convnext_steps.study.orders import credits, mean_weights, paper_credits
from convnext_steps.study.space import Bools, Floats, Space
from convnext_steps.study.statistics import ALPHA

DRAWS = 2000  # of the bootstrap
RUNS_PER_TERM = 2  # from which on interactions are fitted; with fewer, noise would be fitted


@dataclass(frozen=True)
class Analysis:
    """A factorial's runs and the models fitted to them; see `analyse`."""

    space: Space
    runs: pd.DataFrame  # of `networks`
    models: Mapping[str, Any]  # statsmodels' results: additive, with enough runs interactions

    @property
    def best(self) -> Any:
        """The model with interactions, or the additive one where there are too few runs."""
        return self.models.get("interactions", self.models["additive"])

    def terms(self, rows: Floats, name: str = "") -> Floats:
        """The columns of a model, by default the best one's."""
        return self.space.terms(rows, (name or list(self.models)[-1]) == "interactions")

    @property
    def fitted(self) -> Bools:
        """Which runs the models are fitted to."""
        return (self.runs["part"] != "held out").to_numpy(bool)

    def errors(self, table: pd.DataFrame, name: str) -> "pd.Series[float]":
        """What a model's predictions leave of the accuracies of runs or networks."""
        rows = table[list(self.space.decisions)].to_numpy(float)
        return table["accuracy"] - self.models[name].predict(self.terms(rows, name))


def analyse(results: pd.DataFrame) -> Analysis:
    """Fit both models to the runs of a factorial that are not held out.

    Args:
        results: a table of `load_results`.

    Raises:
        ValueError: the results are not a factorial's, too few, or statsmodels is not installed.
    """
    try:
        from statsmodels.api import OLS
    except ImportError:
        raise ValueError(
            "effects need statsmodels: pip install 'convnext-steps[statistics]'"
        ) from None
    space, runs = factorial_of(results).space, networks(results)
    fit = runs[runs["part"] != "held out"]
    rows, accuracy = fit[list(space.decisions)].to_numpy(float), fit["accuracy"].to_numpy()
    models = {}
    for name, per_term in (("additive", 1), ("interactions", RUNS_PER_TERM)):
        terms = space.terms(rows, name == "interactions")
        enough = len(fit) > per_term * terms.shape[1]
        if enough and np.linalg.matrix_rank(terms) == terms.shape[1]:
            models[name] = OLS(accuracy, terms).fit()
    if "additive" not in models:
        raise ValueError(
            f"{study_of(results).name}: {len(fit)} runs are too few to tell "
            f"{len(space.decisions)} effects apart"
        )
    return Analysis(space, runs, models)


def main_effects(analysis: Analysis) -> pd.DataFrame:
    """One row per decision: its average effect over the contexts that allow both its values.

    Columns: decision, effect, low, high (95 % t-interval), p, additive (by the other model), and
    contexts (sets of the other decisions, each counted once).
    """
    space, best = analysis.space, analysis.best
    test = best.t_test(space.contrasts("interactions" in analysis.models))
    low, high = test.conf_int(ALPHA).T
    size = len(space.decisions)
    return pd.DataFrame(
        {
            "decision": space.decisions,
            "effect": test.effect,
            "low": low,
            "high": high,
            "p": test.pvalue,
            "additive": analysis.models["additive"].params[1 : size + 1],
            "contexts": [len(space.contexts(decision)[0]) for decision in range(size)],
        }
    )


def interactions(analysis: Analysis) -> pd.DataFrame:
    """One row per pair: how much more one gains when the other is taken, the clearest first.

    Columns: decision, other, effect, low, high (95 % t-interval), p, p_fdr (Benjamini and
    Hochberg's, over all pairs), found (p_fdr at most 0.05). Empty where there are too few runs.
    """
    space, columns = analysis.space, ["effect", "low", "high", "p", "p_fdr"]
    found = np.empty((0, len(columns)))
    if "interactions" in analysis.models:
        model, first = analysis.models["interactions"], 1 + len(space.decisions)
        p = model.pvalues[first:]
        interval = model.conf_int(ALPHA)[first:]
        found = np.column_stack(
            [model.params[first:], interval, p, stats.false_discovery_control(p)]
        )
    names = [[space.decisions[place] for place in pair] for pair in space.pairs[: len(found)]]
    table = pd.DataFrame(names, columns=["decision", "other"]).join(
        pd.DataFrame(found, columns=columns)
    )
    table["found"] = table["p_fdr"] <= ALPHA
    return table.sort_values("p", kind="stable").reset_index(drop=True)


def models(analysis: Analysis) -> pd.DataFrame:
    """One row per model: how much it explains, whether it lacks something, how well it predicts.

    Columns: model, terms, runs, r2 and r2_adjusted (of the fit), r2_paper (of the variance along
    the paper's own networks), sd (of the residuals), f and p (lack of fit against the pure error),
    error (root mean square on the held-out networks), pure_sd (of the repeats). NaN where there are
    no repeats, or nothing is held out.
    """
    fit, held = analysis.runs[analysis.fitted], analysis.runs[~analysis.fitted]
    networks = analysis.runs[analysis.runs["paper"]].groupby("step")
    paper = networks[["accuracy", *analysis.space.decisions]].mean()
    around = paper["accuracy"] - paper["accuracy"].mean()
    within = fit["accuracy"] - fit.groupby("step")["accuracy"].transform("mean")
    squares, repeated = within.pow(2).sum(), len(fit) - fit["step"].nunique()
    pure = squares / repeated if repeated else np.nan
    rows = []
    for name, model in analysis.models.items():
        lacking = model.df_resid - repeated
        f = (model.ssr - squares) / lacking / pure if lacking else np.nan
        left = analysis.errors(paper, name).pow(2).mean() / around.pow(2).mean()
        rows.append(
            {
                "model": name,
                "terms": len(model.params),
                "runs": len(fit),
                "r2": model.rsquared,
                "r2_adjusted": model.rsquared_adj,
                "r2_paper": 1 - left,
                "sd": np.sqrt(model.mse_resid),
                "f": f,
                "p": stats.f.sf(f, lacking, repeated),
                "error": np.sqrt(analysis.errors(held, name).pow(2).mean()),
                "pure_sd": np.sqrt(pure),
            }
        )
    return pd.DataFrame(rows)


def values(analysis: Analysis) -> tuple[Floats, Floats, Bools]:
    """The accuracy of every set: the mean of its runs, or where it has none, the model's.

    Returns the values, the linear map that makes their errors (sets, errors) from those of the runs
    and of what the model lacks at each set without a run, and whether each is measured.
    """
    space, runs = analysis.space, analysis.runs
    rows = runs[list(space.decisions)].to_numpy(float)
    linear = np.zeros((len(space.sets), len(runs)))
    hat = analysis.terms(space.sets) @ np.linalg.pinv(analysis.terms(rows[analysis.fitted]))
    linear[:, analysis.fitted] = hat
    trained = np.equal.outer(space.codes(space.sets), space.codes(rows))
    measured = np.asarray(trained.any(1))
    linear[measured] = trained[measured] / trained[measured].sum(1, keepdims=True)
    known = linear @ runs["accuracy"].to_numpy()
    return known, np.hstack([linear, np.eye(len(known))[:, ~measured]]), measured


def credit_over_orders(analysis: Analysis) -> pd.DataFrame:
    """One row per decision: `credits` of the values, and how sure its mean and the paper's are.

    More columns: mean_low and mean_high, paper_low and paper_high (95 %, by a bootstrap of the
    residuals, of runs and of networks that were not trained: too wide where the model lacks
    something), negative_model, smallest_model and largest_model (by the model alone, without the
    noise of single runs), depends (see `sign_depends`), sets and measured (how many there are, and
    how many of them were trained).
    """
    space, (known, linear, measured) = analysis.space, values(analysis)
    table = credits(space, known)
    model = credits(space, analysis.best.predict(analysis.terms(space.sets)))
    best, rng = analysis.best, np.random.default_rng(0)
    scale = np.sqrt(best.nobs / best.df_resid)
    noise = rng.choice(best.resid * scale, (linear.shape[1], DRAWS))
    moved = linear @ noise
    shifts = {"mean": mean_weights(space) @ moved, "paper": paper_credits(space, moved)}
    for name, shift in shifts.items():
        upper, lower = np.quantile(shift, [1 - ALPHA / 2, ALPHA / 2], axis=1)
        table[f"{name}_low"], table[f"{name}_high"] = table[name] - upper, table[name] - lower
    alone = model[["negative", "smallest", "largest"]].add_suffix("_model")
    sizes = {"sets": len(known), "measured": measured.sum()}
    return table.join(alone).assign(depends=sign_depends(analysis), **sizes)


def sign_depends(analysis: Analysis) -> Bools:
    """(decisions,): whether a decision clearly gains in one context and clearly loses in another.

    By the model: of its gains in all contexts that allow both values, one is above and one below
    zero, by t-tests with Bonferroni's correction for the number of contexts.
    """
    space, found = analysis.space, []
    for decision in range(len(space.decisions)):
        without, taken = (analysis.terms(rows) for rows in space.contexts(decision))
        test = analysis.best.t_test(np.unique(taken - without, axis=0))
        gains, p = np.ravel(test.effect), np.ravel(test.pvalue)
        clear = gains[p <= ALPHA / len(p)]
        found.append(bool(clear.min(initial=0) < 0 < clear.max(initial=0)))
    return np.array(found)


def where_from(credits: pd.DataFrame) -> str:
    """Which networks are measured and which predicted, from a table of `credit_over_orders`."""
    sets, measured = credits["sets"].iloc[0], credits["measured"].iloc[0]
    if measured == sets:
        return f"all {sets:,} networks are measured"
    return f"{measured:,} of the {sets:,} networks are measured, the others predicted by the model"
