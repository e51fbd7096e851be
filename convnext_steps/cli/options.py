"""Options that several commands share."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from torch import nn

from convnext_steps.errors import reworded
from convnext_steps.files import expanded, own_results
from convnext_steps.models import convnext
from convnext_steps.models.paper import published_family
from convnext_steps.models.roadmap import Step
from convnext_steps.study.loading import load_results
from convnext_steps.study.results import PROJECT_RESULTS
from convnext_steps.study.study import Study
from convnext_steps.study.toml import load_study, read_changes
from convnext_steps.text import unknown


def a_path(text: str) -> Path:
    """A path with its `~` as the home, which the shell leaves in `--results=~/r`."""
    with reworded(kind=argparse.ArgumentTypeError):
        return expanded(text)


def a_file(ending: str, text: str) -> Path:
    """The path of a file to write, of this kind: no other file is written over by mistake."""
    if not text.endswith(ending):
        raise argparse.ArgumentTypeError(f"{text} does not end in {ending}")
    return a_path(text)


def positive(text: str) -> int:
    """A positive integer, for argparse."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive integer")
    return number


def add_changed_study(parser: argparse.ArgumentParser, default: str = "quick") -> None:
    """The study: its name or file, what is changed, and the file of one's own steps."""
    parser.add_argument(
        "study",
        metavar="STUDY",
        nargs="?",
        default=default,
        help=f"a name from `convnext-steps studies`, or a TOML file; default {default}",
    )
    add_changes(parser)


def add_changes(parser: argparse.ArgumentParser) -> None:
    """--set, --name and --uses."""
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="SECTION.FIELD=VALUE",
        help="change the study, such as recipe.max_epochs=12; may be repeated",
    )
    parser.add_argument("--name", help="of the changed study; default: made of what differs")
    parser.add_argument(
        "--uses", default="", metavar="FILE", help="a Python file whose add_step adds decisions"
    )


def chosen_study(options: argparse.Namespace) -> Study:
    """The study asked for, changed as asked.

    Raises:
        InvalidStudyError: there is none, or it cannot be.
    """
    study = load_study(options.study, options.uses, getattr(options, "results", None))
    if options.changes or options.name:
        return study.change(read_changes(options.changes), options.name)
    return study


def add_plan(parser: argparse.ArgumentParser) -> None:
    """The options that choose the runs of a study."""
    add_changed_study(parser)
    add_results_folder(parser)
    parser.add_argument("--seeds", nargs="+", help="0 1 2, or 0-9; default 0")
    parser.add_argument("--steps", nargs="+", metavar="STEP", help="default: the study's own")


def add_results_folder(parser: argparse.ArgumentParser) -> None:
    """--results."""
    parser.add_argument(
        "--results",
        type=a_path,
        default=own_results(),
        help="the folder of your own results, default results/own",
    )


def shown_results(study: Study, results: Path) -> pd.DataFrame:
    """`load_results`, and a line where the published results are shown for want of one's own."""
    table = load_results(study, results)
    own = results.resolve() == PROJECT_RESULTS
    if not own and not table.empty and table.attrs.get("folder") == str(PROJECT_RESULTS):
        print(f"no results of {study.name} in {results}: the published ones are shown")
    return table


def find_model(name: str, study: Study) -> Step | Callable[..., nn.Module]:
    """A step of a study, or the builder of a model of the published family.

    Raises:
        ValueError: there is no such model; the message has the nearest name.
    """
    family = published_family()
    if name in family:
        builder: Callable[..., nn.Module] = getattr(convnext, name)
        return builder
    steps = study.steps()
    if name in steps or "+" in name:
        return study.find(name)
    raise ValueError(unknown("model", name, (*steps, *family)))
