"""convnext-steps study, status, report and notebook: trainings, and their results."""

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from convnext_steps.cli.options import (
    add_backend,
    add_plan,
    add_results,
    add_results_folder,
    backend,
)
from convnext_steps.errors import StudyError
from convnext_steps.execution.notebook import execute_notebook
from convnext_steps.execution.report import report, show_trajectory
from convnext_steps.execution.runfolder import status
from convnext_steps.execution.runner import run_study
from convnext_steps.models.roadmap import roadmap
from convnext_steps.study.pack import import_results, pack
from convnext_steps.study.plan import Run, plan, study_name
from convnext_steps.study.profiles import find_profile
from convnext_steps.study.results import read_results


def add_study(parser: argparse.ArgumentParser) -> None:
    """The options of the command study."""
    parser.description = (
        "Train every step that has no result yet, each in a notebook of its own, then write the "
        "table and the figure. Interrupt any time; rerun to resume. Several runners may "
        "share a results folder, and with Ray all nodes of the cluster must."
    )
    add_plan(parser)
    parser.add_argument(
        "--index",
        type=int,
        metavar="K",
        help="only do the K-th run of the plan, counted from 0, without a report",
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="runs at once; default: one per core, or all that the cluster takes",
    )
    add_backend(parser)
    parser.set_defaults(command=study_command)


def add_status(parser: argparse.ArgumentParser) -> None:
    """The options of the command status."""
    add_plan(parser)
    parser.set_defaults(command=status_command)


def add_report(parser: argparse.ArgumentParser) -> None:
    """The options of the command report."""
    add_results(parser)
    parser.set_defaults(command=report_command)


def add_pack(parser: argparse.ArgumentParser) -> None:
    """The options of the command pack."""
    parser.description = (
        "Write all results of a study into one file, runs.jsonl, to pass on or publish; the "
        "folders of its runs stay as they are."
    )
    parser.add_argument("study", metavar="STUDY", help="the name of its folder in the results")
    add_results_folder(parser)
    parser.set_defaults(command=pack_command)


def add_import(parser: argparse.ArgumentParser) -> None:
    """The options of the command import."""
    parser.description = (
        "Import other people's results, or those of an earlier version: runs in folders, or "
        "packed. Each is checked against its checksum and its hash, and only what is new is added."
    )
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path, help="where they are")
    add_results_folder(parser)
    parser.set_defaults(command=import_command)


def add_notebook(parser: argparse.ArgumentParser) -> None:
    """The options of the command notebook."""
    parser.description = "Execute a notebook with papermill. Unknown parameters are refused."
    parser.add_argument("name", metavar="NAME", help="a notebook of notebooks/, or a path")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="the executed notebook")
    parser.add_argument(
        "-p",
        dest="parameters",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a value for the parameters cell, paths are relative to notebooks/; may be repeated",
    )
    parser.set_defaults(command=notebook_command)


def study_command(options: argparse.Namespace) -> None:
    """Run what is missing of a study, then report."""
    if options.workers is not None and options.workers < 1:
        raise ValueError(f"--workers is {options.workers}; it must be at least 1")
    runs = planned(options)
    if options.index is not None:
        if not 0 <= options.index < len(runs):
            raise ValueError(
                f"--index is {options.index}; the plan's runs are 0 to {len(runs) - 1}"
            )
        run_study([runs[options.index]], options.results, 1, *backend(options))
        return
    failures = None
    try:
        if run_study(runs, options.results, options.workers, *backend(options)) == 0:
            print(f"all {len(runs)} runs are already done")
    except StudyError as error:  # the runs that were completed are reported all the same
        failures = error
    try:
        if show_trajectory(options.results, options.profile, options.regime):
            report_command(options)
    finally:
        if failures:
            raise failures


def planned(options: argparse.Namespace) -> list[Run]:
    """The runs that the options ask for."""
    return plan(options.profile, options.regime, options.steps, parse_seeds(options.seeds))


def status_command(options: argparse.Namespace) -> None:
    """Print one line per run that is not done, and how many runs are in each state."""
    states = Counter[str]()
    known = {result["hash"]: result for result in read_results(options.results)}
    for index, run in enumerate(planned(options)):
        now = status(run, options.results, known)
        states[now.state] += 1
        if now.state != "done":
            print(f"{index:4} {run.name:32} {now.state:8} {now.reason}")
    print(", ".join(f"{count} {state}" for state, count in states.items()))


def report_command(options: argparse.Namespace) -> None:
    """Write and print the table, and say where the figure is."""
    find_profile(options.profile)
    roadmap(options.regime)
    print(report(options.results, options.profile, options.regime))
    folder = options.results / study_name(options.profile, options.regime)
    print(f"figure: {folder / 'trajectory.png'}")


def pack_command(options: argparse.Namespace) -> None:
    """Pack a study and say where it is."""
    count = pack(options.results, options.study)
    print(f"{count} results: {options.results / options.study / 'runs.jsonl'}")


def import_command(options: argparse.Namespace) -> int:
    """Import, and say what is new, what was already there, and what was refused and why."""
    imported = import_results(options.folders, options.results)
    for study, count in imported.new.items():
        print(f"{study}: {count} new results")
    if imported.known:
        print(f"{imported.known} were already here")
    for reason in imported.refused:
        print(f"refused: {reason}")
    return 1 if imported.refused else 0


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
        ValueError: a word is neither an integer nor a range.
    """
    seeds: list[int] = []
    for text in texts:
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(f"{text!r} is not a seed; give integers such as 3, or 0-9")
        seeds += range(int(match[1]), int(match[2] or match[1]) + 1)
    return list(dict.fromkeys(seeds))
