"""The command line: one module for each group of commands, imported when one of them is called."""

import argparse
import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from inspect import getdoc

from convnext_steps.errors import ConvNeXtStepsError, NotebookError, StudyError
from convnext_steps.text import first_line

LOG = logging.getLogger("convnext_steps")

# By name: the module, and a line for --help. The module has `<name>_command`, and `add_<name>` for
# the options, whose docstring is the command's description.
COMMANDS = {
    "steps": ("roadmap", "the roadmap, counted, next to the paper's numbers"),
    "show": ("roadmap", "one step: the paper's claim, the change, the counts"),
    "studies": ("study", "the studies in the package, and what each costs here"),
    "study": ("study", "train the steps that have no result yet, then report"),
    "status": ("study", "which runs are done, running, failed, missing"),
    "report": ("study", "table and figure of the results so far"),
    "compare": ("findings", "the gains of the same steps in several studies"),
    "effects": ("findings", "what each decision of a factorial does, in every order"),
    "pack": ("results", "one file of a study's results"),
    "import": ("results", "import other people's results, or those of an earlier version"),
    "notebook": ("results", "execute a notebook with papermill, its parameters checked"),
    "explorer": ("pages", "one page to explore the trajectory in a browser, from the results"),
    "slides": ("pages", "slides of the notebooks, to show offline"),
    "site": ("pages", "the site: executed notebooks, the explorer, the teacher's guide"),
    "notebooks": ("course", "copy the course's notebooks into a folder, to work on"),
    "student": ("course", "a notebook, or the whole course, without the solutions"),
    "train": ("train", "train one step or one published model on any data set"),
    "bench": ("bench", "time a model against a public peer"),
    "gpu": ("gpu", "what one GPU gives in a few minutes: checks, speeds, a study"),
    "doctor": ("doctor", "whether a study can run here, and what to do if it can't"),
}
EXAMPLES = """examples:
  convnext-steps study                           train every step on Fashion-MNIST, and plot
  convnext-steps study --seeds 0-4               the same with five seeds
  convnext-steps study --steps kernel_5 gelu     some steps only
  convnext-steps train gelu --output out         one training, on any data, with any recipe
  convnext-steps notebook run_step out.ipynb -p STEP=gelu    one notebook with its parameters
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 2 for a user's mistake, 1 for failed runs."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack the sign ±
            stream.reconfigure(errors="replace")
    show_warnings()
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        return int(options.command(options) or 0)
    except BrokenPipeError:  # of `| head`; what is left to say has no reader
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (NotebookError, StudyError) as error:
        print(f"convnext-steps: {error}", file=sys.stderr)
        return 1
    except (ConvNeXtStepsError, OSError, OverflowError, ValueError) as error:
        print(f"convnext-steps: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resume = "rerun with --resume" if "train" in sys.argv[1:2] else "rerun the same command"
        print(f"\ninterrupted; {resume} to resume", file=sys.stderr)
        return 130


class OneLine(logging.Handler):
    """Shows a record as people read it, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line to standard error, whatever that is by now."""
        bars = sys.modules.get("tqdm")
        write = bars.tqdm.write if bars else print
        write(f"convnext-steps: {record.getMessage()}", file=sys.stderr)


WARNINGS = OneLine(logging.WARNING)


def show_warnings() -> None:
    """Show the library's warnings, and Python's own without their line of code."""
    LOG.addHandler(WARNINGS)  # once, however often
    warnings.showwarning = lambda message, *_, **__: LOG.warning("%s", message)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of the command that is called; only its own module is imported."""
    parser = argparse.ArgumentParser(
        prog="convnext-steps",
        description="How a ResNet becomes a ConvNeXt, step by step.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, (module, line) in COMMANDS.items():
        command = commands.add_parser(name, help=line)
        if [name] == list(arguments[:1]):
            try:
                own = import_module(f"{__name__}.{module}")
            except Exception as error:  # a broken installation can raise anything
                remedy = "`convnext-steps doctor` says what to do"
                command.exit(1, f"convnext-steps: {first_line(error)}; {remedy}\n")
            add = getattr(own, f"add_{name}")
            command.description = getdoc(add)
            add(command)
            command.set_defaults(command=getattr(own, f"{name}_command"))
    return parser.parse_args(arguments)
