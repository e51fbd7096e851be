"""The command line: convnext-steps steps | show | train | study | report | notebook | bench."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from convnext_steps.cli.bench import add_bench
from convnext_steps.cli.train import add_train
from convnext_steps.measure.compare import compare_counts, errata
from convnext_steps.measure.diff import step_diff
from convnext_steps.measure.flops import count_flops
from convnext_steps.models.roadmap import find_step, roadmap
from convnext_steps.study.notebook import NotebookError, execute_notebook
from convnext_steps.study.plan import PROFILES, find_profile, plan
from convnext_steps.study.report import report
from convnext_steps.study.runner import StudyError, run_study
from convnext_steps.training.errors import TrainingError

EXAMPLES = """examples:
  convnext-steps steps                           the roadmap, counted, beside the paper's numbers
  convnext-steps show gelu                       one step: the paper's claim, the change, the counts
  convnext-steps study                           train every step on Fashion-MNIST, and plot
  convnext-steps study --seeds 0-4               the same with five seeds
  convnext-steps study --steps kernel_5 gelu     some steps only
  convnext-steps train gelu --output out         one training, on any data, with any recipe
  convnext-steps report                          table and figure of the results so far
  convnext-steps notebook run_step out.ipynb -p STEP=gelu    one notebook with its parameters
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 2 for a user's mistake, 1 for failed runs."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options) or 0)
    except (NotebookError, StudyError) as error:
        print(f"convnext-steps: {error}", file=sys.stderr)
        return 1
    except (TrainingError, ValueError) as error:
        print(f"convnext-steps: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on with what is missing", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="convnext-steps",
        description="How a ResNet becomes a ConvNeXt, step by step.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_steps(commands)
    _add_study(commands)
    _add_notebook(commands)
    add_train(commands)
    add_bench(commands)
    return parser


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add_steps(commands: Commands) -> None:
    steps = commands.add_parser("steps", help="the roadmap, counted, beside the paper's numbers")
    _add_regime(steps)
    steps.set_defaults(command=print_steps)
    show = commands.add_parser("show", help="one step: the paper's claim, the change, the counts")
    show.add_argument("step", metavar="STEP", help="a name from `convnext-steps steps`")
    _add_regime(show)
    show.add_argument(
        "--resolution", type=int, default=224, help="side of the image to count at, default 224"
    )
    show.set_defaults(command=show_step)


def _add_study(commands: Commands) -> None:
    study = commands.add_parser(
        "study",
        help="train the steps that have no result yet, then report",
        description="Train every step that has no result yet, each in a notebook of its own, "
        "then write the table and the figure. Stopped at any time, it goes on where it was.",
    )
    _add_results(study)
    study.add_argument("--seeds", nargs="+", default=["0"], help="0 1 2, or 0-9; default 0")
    study.add_argument("--steps", nargs="+", metavar="STEP", help="default: the profile's own")
    study.add_argument("--workers", type=int, help="runs at once; default: one a core")
    study.set_defaults(command=study_command)
    report_parser = commands.add_parser("report", help="table and figure of the results so far")
    _add_results(report_parser)
    report_parser.set_defaults(command=report_command)


def _add_notebook(commands: Commands) -> None:
    notebook = commands.add_parser(
        "notebook",
        help="execute a notebook with papermill, its parameters checked",
        description="Execute a notebook with papermill. Unknown parameters are refused.",
    )
    notebook.add_argument("name", metavar="NAME", help="a notebook of notebooks/, or a path")
    notebook.add_argument("output", type=Path, metavar="OUTPUT", help="the executed notebook")
    notebook.add_argument(
        "-p",
        dest="parameters",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a value for the parameters cell; may be given again",
    )
    notebook.set_defaults(command=notebook_command)


def _add_regime(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--regime",
        default="tiny",
        help="tiny: ResNet-50 to ConvNeXt-T (the default); base: ResNet-200 to ConvNeXt-B",
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    profiles = "; ".join(f"{profile.name}: {profile.description}" for profile in PROFILES.values())
    parser.add_argument("--profile", default="quick", help=f"{profiles}; default quick")
    _add_regime(parser)
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="the results folder, default results"
    )


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


def study_command(options: argparse.Namespace) -> None:
    """Run what is missing of a study, then report."""
    if options.workers is not None and options.workers < 1:
        raise ValueError(f"--workers is {options.workers}; it needs to be at least 1")
    runs = plan(options.profile, options.regime, options.steps, parse_seeds(options.seeds))
    trained = run_study(runs, options.results, options.workers)
    report_command(options)
    if trained == 0:
        print(f"all {len(runs)} runs are done already")
        return
    folder = options.results / options.profile / options.regime
    parameters = {"PROFILE": options.profile, "REGIME": options.regime}
    parameters["RESULTS"] = str(options.results.resolve())
    execute_notebook("trajectory", folder / "trajectory.ipynb", parameters)


def report_command(options: argparse.Namespace) -> None:
    """Write and print the table, and say where the figure is."""
    find_profile(options.profile)
    roadmap(options.regime)
    print(report(options.results, options.profile, options.regime))
    print(f"figure: {options.results / options.profile / options.regime / 'trajectory.png'}")


def notebook_command(options: argparse.Namespace) -> None:
    """Execute one notebook with checked parameters."""
    parameters = {}
    for text in options.parameters:
        name, separator, value = text.partition("=")
        if not separator:
            raise ValueError(f"-p {text}: a parameter is given as NAME=VALUE")
        parameters[name] = value
    execute_notebook(options.name, options.output, parameters)
    print(f"executed: {options.output}")


def parse_seeds(texts: Sequence[str]) -> list[int]:
    """Seeds from words such as "3" and "0-9".

    Raises:
        ValueError: a word is neither a whole number nor a range.
    """
    seeds: list[int] = []
    for text in texts:
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(f"{text!r} is no seed; give whole numbers such as 3, or 0-9")
        seeds += range(int(match[1]), int(match[2] or match[1]) + 1)
    return list(dict.fromkeys(seeds))
