"""convnext-steps notebooks and student: the course, to work on and to hand out."""

import argparse

from convnext_steps.cli.options import a_path
from convnext_steps.course.student import COURSE, copy_course, write_student_versions


def add_notebooks(parser: argparse.ArgumentParser) -> None:
    """Copy the course's notebooks and its guide into a folder, to work on."""
    parser.add_argument("folder", type=a_path, metavar="FOLDER", help="it is created")


def add_student(parser: argparse.ArgumentParser) -> None:
    """Write a notebook without the solutions of its exercises, as nbgrader does."""
    parser.add_argument("name", metavar="NAME", help=f"a notebook, or {COURSE!r} for all of them")
    parser.add_argument("output", type=a_path, metavar="OUTPUT", help="a file; for all, a folder")


def notebooks_command(options: argparse.Namespace) -> None:
    """Copy the notebooks and say where they are."""
    for path in copy_course(options.folder):
        print(f"copied: {path}")


def student_command(options: argparse.Namespace) -> None:
    """Write the student versions and say where they are."""
    for path in write_student_versions(options.name, options.output):
        print(f"written: {path}")
