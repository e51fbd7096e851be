"""Options that several commands share."""

import argparse
from collections.abc import Callable
from pathlib import Path

from torch import nn

from convnext_steps.models import convnext
from convnext_steps.models.paper import published_family
from convnext_steps.models.roadmap import Step, roadmap
from convnext_steps.study.profiles import PROFILES
from convnext_steps.text import unknown


def positive(text: str) -> int:
    """A whole number above zero, for argparse."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return number


def add_regime(parser: argparse.ArgumentParser) -> None:
    """--regime."""
    parser.add_argument(
        "--regime",
        default="tiny",
        help="tiny: ResNet-50 to ConvNeXt-T (the default); base: ResNet-200 to ConvNeXt-B; "
        "leave_one_out: ConvNeXt-T without each of its decisions in turn",
    )


def add_plan(parser: argparse.ArgumentParser) -> None:
    """What names the runs of a study."""
    add_results(parser)
    parser.add_argument("--seeds", nargs="+", default=["0"], help="0 1 2, or 0-9; default 0")
    parser.add_argument("--steps", nargs="+", metavar="STEP", help="default: the profile's own")


def add_results(parser: argparse.ArgumentParser) -> None:
    """What names a study and its folder."""
    profiles = "; ".join(f"{profile.name}: {profile.description}" for profile in PROFILES.values())
    parser.add_argument("--profile", default="quick", help=f"{profiles}; default quick")
    add_regime(parser)
    add_results_folder(parser)


def add_results_folder(parser: argparse.ArgumentParser) -> None:
    """--results."""
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results", "own"),
        help="the folder of your own results, default results/own",
    )


def add_backend(parser: argparse.ArgumentParser) -> None:
    """--backend and --address."""
    parser.add_argument(
        "--backend",
        choices=("local", "ray"),
        default="local",
        help="local: processes of this machine (the default); ray: tasks of a Ray cluster, whose "
        "nodes all have this package and the results folder",
    )
    parser.add_argument(
        "--address",
        help="of a running Ray cluster, such as auto; without it, Ray runs on this machine alone",
    )


def backend(options: argparse.Namespace) -> tuple[str, str | None]:
    """Which backend, and its address: who names an address means Ray."""
    return "ray" if options.address else options.backend, options.address


def find_model(name: str, regime: str) -> Step | Callable[..., nn.Module]:
    """A step of the roadmap, or the builder of a model of the published family.

    Raises:
        ValueError: there is no such model; the message has the nearest name.
    """
    steps, family = roadmap(regime), published_family()
    if name in steps:
        return steps[name]
    if name in family:
        builder: Callable[..., nn.Module] = getattr(convnext, name)
        return builder
    raise ValueError(unknown("model", name, (*steps, *family)))
