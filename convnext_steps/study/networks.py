"""A factorial's results as a table of networks: what each decides, costs and reaches."""

import numpy as np
import pandas as pd

from convnext_steps.study.factorial import Factorial, entries
from convnext_steps.study.loading import study_of
from convnext_steps.study.markdown import markdown_table, numbers

BEST = 10  # networks in the short table, beside the paper's own


def factorial_of(results: pd.DataFrame) -> Factorial:
    """The factorial that a table of results is of.

    Raises:
        ValueError: it is of a study that is none.
    """
    study = study_of(results)
    if study.factorial is None:
        raise ValueError(f"{study.name} is not a factorial: its file has no table [factorial]")
    return study.factorial


def networks(results: pd.DataFrame) -> pd.DataFrame:
    """One row per run, the most accurate network first.

    Columns: step, each decision (0 or 1), part (fit, repeat or held out), seed, accuracy (%), loss,
    macs, params, seconds (of training), paper (whether it is one of the paper's own networks), and
    front: whether no network with as few multiply-adds is more accurate, on the mean of its runs.

    Raises:
        ValueError: the results are not a factorial's.
    """
    factorial = factorial_of(results)
    space = factorial.space
    parts = {(each.step, each.seed): each.part for each in entries(factorial)}
    runs = list(zip(results["step"], results["seed"], strict=True))
    table = results.rename(columns={"training_seconds": "seconds"}).assign(
        part=[parts[run] for run in runs],
        paper=results["step"].isin(space.names(space.paper)),
        mean=results.groupby("step")["accuracy"].transform("mean"),
    )
    decisions = pd.DataFrame(
        space.rows(table["step"]).astype(int), table.index, list(space.decisions)
    )
    best = table.sort_values(["macs", "mean"], ascending=[True, False])
    leads = best["mean"] >= best["mean"].cummax()
    table = table.assign(front=leads).join(decisions)
    ordered = table.sort_values("mean", ascending=False, kind="stable")  # as on any other CPU
    columns = ["step", *decisions, "part", "seed", "accuracy", "loss", "macs", "params", "seconds"]
    return ordered[[*columns, "paper", "front"]].reset_index(drop=True)


def to_markdown(table: pd.DataFrame) -> str:
    """The paper's own networks and the best of all, from a table of `networks`."""
    groups = table.groupby("step", sort=False)
    means = groups[["accuracy", "macs", "params", "seconds", "paper", "front"]].mean()
    means = means.assign(runs=groups.size()).sort_values("accuracy", ascending=False, kind="stable")
    chain, best = papers_own(means), means.head(BEST)
    shown = pd.concat([chain, best])
    columns = {
        "network": shown.index,
        "runs": shown["runs"],
        "accuracy %": numbers(shown["accuracy"]),
        "M multiply-adds": numbers(shown["macs"] / 1e6),
        "M parameters": numbers(shown["params"] / 1e6, ".3f"),
        "seconds": numbers(shown["seconds"], ".1f"),
        "front": ["yes" if front else "" for front in shown["front"]],
    }
    lines = markdown_table(columns).splitlines()
    lines.insert(2 + len(chain), "|" + len(columns) * " |")
    lines.append(
        f"\nFirst the paper's own networks, then the {len(best)} most accurate of "
        f"{len(means):,}; each accuracy is the mean of its runs. Front: no network with as few "
        "multiply-adds is more accurate.\n"
    )
    return "\n".join(lines)


def papers_own(means: pd.DataFrame) -> pd.DataFrame:
    """The paper's own networks in its order, from a table of the means of networks by step."""
    own = means[means["paper"] > 0]
    return own.iloc[np.argsort(own.index.str.count(r"\+"), kind="stable")]
