"""The tables of a factorial's effects, as Markdown."""

import pandas as pd

from convnext_steps.study import networks
from convnext_steps.study.effects import (
    Analysis,
    credit_over_orders,
    interactions,
    main_effects,
    models,
    where_from,
)
from convnext_steps.study.markdown import (
    markdown_table,
    numbers,
    p_values,
    percent,
    signed,
    within,
)
from convnext_steps.study.orders import number_of_orders


def effect_report(analysis: Analysis) -> tuple[str, dict[str, pd.DataFrame]]:
    """All tables of a factorial, as one Markdown text, and each by name."""
    space = analysis.space
    found = {
        "effects": main_effects(analysis),
        "interactions": interactions(analysis),
        "models": models(analysis),
        "credits": credit_over_orders(analysis),
        "networks": analysis.runs,
    }
    pairs = found["interactions"]
    sections = {
        "What each decision does": [
            _effects(found["effects"]),
            "Points of accuracy, ± half the width of the 95 % t-interval, on average over the sets "
            "of the other decisions that allow both values (how many: contexts). Additive: by the "
            "model without interactions. What the model leaves counts as noise, so that where most "
            "networks are measured, the intervals are too wide.",
        ],
        "Which decisions depend on each other": [
            _interactions(pairs.head(max(10, int(pairs["found"].sum())))),
            f"How much more one gains when the other is taken; {int(pairs['found'].sum())} of "
            f"{len(pairs)} found, with a false discovery rate of 5 % (Benjamini and Hochberg).",
        ]
        if len(pairs)
        else ["There are too few runs for interactions: the model has none."],
        "How good the models are": [
            _models(found["models"]),
            "R² of the fit, and of the paper's own networks. Lack of fit: F against the pure error "
            "of the repeats. Error: root mean square on networks that were held out. A dash: there "
            "are no repeats, or nothing is held out.",
        ],
        f"Credit over all {number_of_orders(space):,} orders": [
            _credits(found["credits"]),
            f"Points; {where_from(found['credits'])}. Mean: the Shapley value under the rules, "
            "± half the width of its 95 % bootstrap interval. Smallest, largest and negative (a "
            "share of the orders) have the noise of single runs in them; in brackets, by the model "
            "alone. Depends: by the model, it clearly gains in one context and clearly loses in "
            "another.",
            *_extremes(found["credits"]),
        ],
        "Accuracy and cost": [networks.to_markdown(analysis.runs).strip(), _finished(analysis)],
    }
    texts = (f"## {title}\n\n" + "\n\n".join(parts) for title, parts in sections.items())
    return "\n\n".join(texts) + "\n", found


def _within(table: pd.DataFrame, name: str, prefix: str = "") -> list[str]:
    margins = (table[f"{prefix}high"] - table[f"{prefix}low"]) / 2
    return within(table[name], margins)


def _effects(table: pd.DataFrame) -> str:
    return markdown_table(
        {
            "decision": table["decision"],
            "effect": _within(table, "effect"),
            "p": p_values(table["p"]),
            "additive": signed(table["additive"]),
            "contexts": table["contexts"].map("{:,}".format),
        }
    )


def _interactions(table: pd.DataFrame) -> str:
    return markdown_table(
        {
            "decision": table["decision"],
            "with": table["other"],
            "interaction": _within(table, "effect"),
            "p": p_values(table["p"]),
            "p, corrected": p_values(table["p_fdr"]),
        }
    )


def _models(table: pd.DataFrame) -> str:
    deviations = {"sd of residuals": "sd", "sd of repeats": "pure_sd", "error, held out": "error"}
    return markdown_table(
        {
            "model": table["model"],
            "terms": table["terms"],
            "runs": table["runs"],
            "R²": percent(table["r2"]),
            "R², adjusted": percent(table["r2_adjusted"]),
            "R², paper's networks": percent(table["r2_paper"]),
            "lack of fit": numbers(table["f"]),
            "p": p_values(table["p"]),
            **{title: numbers(table[name]) for title, name in deviations.items()},
        }
    )


def _credits(table: pd.DataFrame) -> str:
    names = {"smallest": signed, "largest": signed, "negative": percent}
    both = {
        name: [
            f"{one} ({other})"
            for one, other in zip(form(table[name]), form(table[f"{name}_model"]), strict=True)
        ]
        for name, form in names.items()
    }
    return markdown_table(
        {
            "decision": table["decision"],
            "mean": _within(table, "mean", "mean_"),
            **both,
            "paper's order": _within(table, "paper", "paper_"),
            "orders below it": percent(table["below"]),
            "depends": ["yes" if depends else "" for depends in table["depends"]],
        }
    )


def _extremes(table: pd.DataFrame) -> list[str]:
    lines = []
    for row in table.itertuples():
        lines.append(f"- {row.decision}, smallest: {row.smallest_order}")
        lines.append(f"- {row.decision}, largest: {row.largest_order}")
    return ["Orders that give them:", "\n".join(lines)]


def _finished(analysis: Analysis) -> str:
    space, runs = analysis.space, analysis.runs
    finished = runs[runs["step"] == space.names(space.paper[-1:])[0]]
    if finished.empty:
        return "The network with every decision has no result yet."
    word = "on" if finished["front"].all() else "not on"
    return f"The network with every decision is {word} the front."
