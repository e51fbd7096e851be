"""convnext-steps steps and show: the roadmap without training."""

import argparse

from convnext_steps.cli.options import add_regime
from convnext_steps.measure.compare import compare_counts, errata
from convnext_steps.measure.diff import step_diff
from convnext_steps.measure.flops import count_flops
from convnext_steps.models.roadmap import find_step, roadmap


def add_steps(parser: argparse.ArgumentParser) -> None:
    """The options of the command steps."""
    add_regime(parser)
    parser.set_defaults(command=print_steps)


def add_show(parser: argparse.ArgumentParser) -> None:
    """The options of the command show."""
    parser.add_argument("step", metavar="STEP", help="a name from `convnext-steps steps`")
    add_regime(parser)
    parser.add_argument(
        "--resolution", type=int, default=224, help="side of the image to count at, default 224"
    )
    parser.set_defaults(command=show_step)


def print_steps(options: argparse.Namespace) -> None:
    """Print the roadmap with counts and the paper's numbers."""
    steps = list(roadmap(options.regime).values())
    print(compare_counts(steps).to_string())
    print("\ncounted, printed: 1e9 multiply-adds of convolutions and linear layers at 224x224,")
    print("ours and the paper's; with norms: what fvcore totals; top-1: the paper's, ImageNet-1K")
    print("\n".join(errata(steps)))


def show_step(options: argparse.Namespace) -> None:
    """Print one step: the paper's claim, what changes, and the counts."""
    step = find_step(options.step, options.regime)
    count = count_flops(step.build(), options.resolution)
    print(f"{step.name}: {step.claim}")
    print(f"counted at {options.resolution}x{options.resolution}: {count}")
    print("\n".join(errata([step])))
    print(step_diff(step.parent, step.name, step.regime) if step.parent else step.design)
