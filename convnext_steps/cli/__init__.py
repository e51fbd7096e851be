"""The command line: one module for each group of commands."""

import argparse
import sys
import warnings
from collections.abc import Sequence

from convnext_steps.cli.bench import add_bench
from convnext_steps.cli.doctor import add_doctor
from convnext_steps.cli.roadmap import add_roadmap
from convnext_steps.cli.study import add_notebook, add_study
from convnext_steps.cli.train import add_train
from convnext_steps.study.notebook import NotebookError
from convnext_steps.study.runner import StudyError
from convnext_steps.training.errors import TrainingError

EXAMPLES = """examples:
  convnext-steps steps                           the roadmap, counted, beside the paper's numbers
  convnext-steps show gelu                       one step: the paper's claim, the change, the counts
  convnext-steps study                           train every step on Fashion-MNIST, and plot
  convnext-steps study --seeds 0-4               the same with five seeds
  convnext-steps study --steps kernel_5 gelu     some steps only
  convnext-steps train gelu --output out         one training, on any data, with any recipe
  convnext-steps status                          which runs are done, running, failed, missing
  convnext-steps report                          table and figure of the results so far
  convnext-steps doctor                          whether this machine has all that is needed
  convnext-steps notebook run_step out.ipynb -p STEP=gelu    one notebook with its parameters
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 2 for a user's mistake, 1 for failed runs."""
    options = _parser().parse_args(arguments)
    warnings.showwarning = _one_line
    try:
        return int(options.command(options) or 0)
    except (NotebookError, StudyError) as error:
        print(f"convnext-steps: {error}", file=sys.stderr)
        return 1
    except (TrainingError, OSError, ValueError) as error:
        print(f"convnext-steps: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on with what is missing", file=sys.stderr)
        return 130


def _one_line(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as people read it, without the line of code that it comes from."""
    print(f"convnext-steps: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="convnext-steps",
        description="How a ResNet becomes a ConvNeXt, step by step.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_roadmap(commands)
    add_study(commands)
    add_notebook(commands)
    add_train(commands)
    add_bench(commands)
    add_doctor(commands)
    return parser
