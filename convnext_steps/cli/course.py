"""convnext-steps student: what a teacher does with the notebooks of the course."""

import argparse

from convnext_steps.cli.options import a_path
from convnext_steps.course.student import COURSE, write_student_versions


def add_student(parser: argparse.ArgumentParser) -> None:
    """The options of the command student."""
    parser.description = (
        "Write a notebook without the solutions of its exercises, as nbgrader does."
    )
    parser.add_argument("name", metavar="NAME", help=f"a notebook, or {COURSE!r} for all of them")
    parser.add_argument("output", type=a_path, metavar="OUTPUT", help="a file; for all, a folder")
    parser.set_defaults(command=student_command)


def student_command(options: argparse.Namespace) -> None:
    """Write the student versions and say where they are."""
    for path in write_student_versions(options.name, options.output):
        print(f"student version: {path}")
