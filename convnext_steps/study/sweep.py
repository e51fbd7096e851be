"""One value of a study varied, and chosen on held-out training images, never on the test set."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from convnext_steps.errors import InvalidStudyError
from convnext_steps.study.loading import study_of
from convnext_steps.study.statistics import accuracies
from convnext_steps.study.study import Study, word

HELD_OUT = 0.1  # share of the training images to choose on, unless the study has its own


def sweep(study: Study, key: str, values: Sequence[Any]) -> list[Study]:
    """A study for each value, all of them tested on held-out training images.

    What is chosen from them is trained anew on all images, with fresh seeds.

    Args:
        study: what is varied.
        key: `section.field`, such as `recipe.learning_rate`.
        values: of that field.

    Raises:
        InvalidStudyError: there is no such field, or a value cannot be.
    """
    if len(values) < 2:
        raise InvalidStudyError(f"{key}: a sweep needs two values or more")
    held_out = study.data.held_out or HELD_OUT
    _, _, short = key.partition(".")
    if not short:
        raise InvalidStudyError(f"{key}: a sweep varies a field such as recipe.learning_rate")
    return [
        study.change(
            {"data.held_out": held_out, key: value}, f"{study.name}_sweep_{short}_{word(value)}"
        )
        for value in values
    ]


def sweep_table(tables: Sequence[pd.DataFrame], key: str) -> pd.DataFrame:
    """The mean accuracy of each step (rows) at each value (columns) of a sweep, held out.

    Args:
        tables: of `load_results`, one per study of the sweep.
        key: the field that was varied.
    """
    section, _, field = key.partition(".")
    columns = {}
    for table in tables:
        study = study_of(table)
        columns[getattr(getattr(study, section), field)] = accuracies(table).mean()
    wide = pd.DataFrame(columns)
    return wide.rename_axis(index="step", columns=field)


def choose(wide: pd.DataFrame, common: Any = None) -> pd.DataFrame:
    """Each step's own best value, and what a common one costs it, in points.

    Only steps that have a result at every value count.

    Args:
        wide: a table of `sweep_table`.
        common: one of its values; by default the one with the highest accuracy on average over the
            steps, on a tie the first.

    Raises:
        InvalidStudyError: no step has a result at every value.
    """
    known = wide.dropna()
    if known.empty:
        raise InvalidStudyError("no step has a result at every value of the sweep")
    if common is None:
        common = known.mean().idxmax()
    return pd.DataFrame(
        {
            "own best": known.idxmax(axis=1),
            "accuracy at own best": known.max(axis=1),
            "common": common,
            "accuracy at common": known[common],
            "cost": known.max(axis=1) - known[common],
        }
    )
