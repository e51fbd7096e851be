"""convnext-steps pack, import and notebook: results that move, and notebooks as programs."""

import argparse
from functools import partial

from convnext_steps.cli.options import a_file, a_path, add_results_folder
from convnext_steps.execution.notebook import execute_notebook
from convnext_steps.study.pack import import_results, pack
from convnext_steps.text import check_name


def add_pack(parser: argparse.ArgumentParser) -> None:
    """Write all results of a study into one file, runs.jsonl, to pass on or publish.

    The folders of its runs stay as they are.
    """
    parser.add_argument("study", metavar="STUDY", help="the name of its folder in the results")
    add_results_folder(parser)


def add_import(parser: argparse.ArgumentParser) -> None:
    """Import other people's results, or those of an earlier version: runs in folders, or packed.

    Each is checked against its checksum and its hash, and only what is new is added.
    """
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=a_path, help="where they are")
    add_results_folder(parser)


def add_notebook(parser: argparse.ArgumentParser) -> None:
    """Execute a notebook with papermill. Unknown parameters are refused."""
    parser.add_argument("name", metavar="NAME", help="a notebook of notebooks/, or a path")
    words = "the executed notebook, an .ipynb file"
    parser.add_argument("output", type=partial(a_file, ".ipynb"), metavar="OUTPUT", help=words)
    parser.add_argument(
        "-p",
        dest="parameters",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter; a path is relative to the current folder; may be repeated",
    )


def pack_command(options: argparse.Namespace) -> None:
    """Pack a study and say where it is."""
    check_name(options.study, "study")
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
