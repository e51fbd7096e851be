"""convnext-steps steps and show: a study's steps without training, at the paper's size."""

import argparse

from convnext_steps.cli.options import add_changed_study, chosen_study, positive
from convnext_steps.measure.compare import compare_counts, errata
from convnext_steps.measure.diff import step_diff
from convnext_steps.measure.flops import count_flops


def add_steps(parser: argparse.ArgumentParser) -> None:
    """Print the steps of a study, counted at the paper's size, next to the paper's numbers."""
    add_changed_study(parser)


def add_show(parser: argparse.ArgumentParser) -> None:
    """Print one step: the paper's claim, what changes, and the counts."""
    parser.add_argument("step", metavar="STEP", help="a name from `convnext-steps steps`")
    add_changed_study(parser)
    parser.add_argument(
        "--resolution",
        type=positive,
        default=224,
        help="side of the image to count at, default 224",
    )


def steps_command(options: argparse.Namespace) -> None:
    """Print the steps with counts and the paper's numbers."""
    steps = list(chosen_study(options).steps().values())
    print(compare_counts(steps).to_string())
    print("\ncounted, printed: 1e9 multiply-adds of convolutions and linear layers at 224x224,")
    print("ours and the paper's; with norms: what fvcore totals; top-1: the paper's, ImageNet-1K")
    print("\n".join(errata(steps)))


def show_command(options: argparse.Namespace) -> None:
    """Print one step: the paper's claim, what changes, and the counts."""
    study = chosen_study(options)
    step = study.find(options.step)
    count = count_flops(step.build(), options.resolution)
    print(f"{step.name}: {step.claim}")
    print(f"counted at {options.resolution}x{options.resolution}: {count}")
    print("\n".join(errata([step])))
    print(step_diff(study.find(step.parent), step) if step.parent else step.design)
