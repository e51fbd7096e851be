"""The parameters of `run_step.ipynb`, checked before anything else is done."""

from collections.abc import Mapping
from typing import Any

from convnext_steps.errors import ConvNeXtStepsError, reworded
from convnext_steps.fields import convert
from convnext_steps.study.plan import Run
from convnext_steps.study.study import Study
from convnext_steps.study.toml import load_study, read_changes
from convnext_steps.text import unknown

KNOWN = {
    "STUDY": str,
    "CHANGES": str,
    "STEP": str,
    "SEED": int,
    "OUTPUT": str,
    "RESULTS": str,
    "USES": str,
}


class ParameterError(ConvNeXtStepsError, ValueError):
    """A parameter of a notebook makes no sense."""


def the_run(given: Mapping[str, Any]) -> tuple[Study, Run]:
    """The study and the run that a notebook's parameters name.

    Args:
        given: the notebook's variables; those in capital letters are its parameters.

    Raises:
        ParameterError: one is unknown, of the wrong type, or names nothing.
    """
    for name in given:
        if name.isupper() and not name.startswith("_") and name not in KNOWN:
            raise ParameterError(unknown("parameter", name, KNOWN))
    with reworded(kind=ParameterError):
        for name, kind in KNOWN.items():
            convert(given[name], kind, name)
        study = load_study(given["STUDY"], given["USES"])
        if given["CHANGES"]:
            study = study.change(read_changes(given["CHANGES"]))
        (run,) = study.plan([given["SEED"]], [given["STEP"]])
    return study, run
