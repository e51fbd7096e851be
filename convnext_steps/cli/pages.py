"""convnext-steps explorer: what is read in a browser, made from results and notebooks."""

import argparse
from pathlib import Path

from convnext_steps.cli.options import Commands, add_results
from convnext_steps.course.explorer import explorer_page
from convnext_steps.training.files import write_bytes


def add_pages(commands: Commands) -> None:
    """The commands and their options."""
    explorer = commands.add_parser(
        "explorer",
        help="one page to explore the trajectory in a browser, from the results",
        description="Write one HTML page with the trajectory of both regimes, and of every step "
        "its block, its diff, its counts and its time. It needs neither server nor network. A "
        "study without results of its own is shown by the reference's.",
    )
    explorer.add_argument("output", type=Path, metavar="OUTPUT", help="the page, an .html file")
    add_results(explorer)
    explorer.set_defaults(command=explorer_command)


def explorer_command(options: argparse.Namespace) -> None:
    """Write the page."""
    if not options.output.parent.is_dir():
        raise ValueError(f"there is no folder {options.output.parent} for the page")
    page = explorer_page(options.results, options.profile, options.regime)
    write_bytes(options.output, page.encode())
    print(f"written: {options.output}")
