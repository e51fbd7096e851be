"""convnext-steps explorer, slides and site: what is read in a browser."""

import argparse
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from convnext_steps.cli.options import (
    a_file,
    a_path,
    add_changed_study,
    add_results_folder,
    chosen_study,
    shown_results,
)
from convnext_steps.course.executed import all_notebooks, execute_stale
from convnext_steps.course.explorer import explorer_page
from convnext_steps.course.order_page import order_page
from convnext_steps.course.site import write_site
from convnext_steps.course.slides import write_slides
from convnext_steps.files import write_bytes
from convnext_steps.study.factorial import PUBLISHED
from convnext_steps.study.loading import load_results
from convnext_steps.study.study import Study
from convnext_steps.study.toml import load_study


def add_explorer(parser: argparse.ArgumentParser) -> None:
    """Write one HTML page with the trajectory of both roadmaps, to explore offline.

    It has the block, the diff, the counts and the time of every step. If factorial_quick has
    results, a second page lets you put the decisions in your own order. For a factorial, only this
    second page is written.
    """
    parser.add_argument(
        "output", type=partial(a_file, ".html"), metavar="OUTPUT", help="the page, an .html file"
    )
    add_changed_study(parser)
    add_results_folder(parser)


def add_slides(parser: argparse.ArgumentParser) -> None:
    """Execute what changed, then write slides with reveal.js, one file each."""
    add_chosen_notebooks(parser)


def add_site(parser: argparse.ArgumentParser) -> None:
    """Execute what changed, then make the site with Sphinx.

    Open it from its folder; it works offline.
    """
    add_chosen_notebooks(parser)


def add_chosen_notebooks(parser: argparse.ArgumentParser) -> None:
    """Which notebooks, what they show, and where everything goes."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="a notebook; default: all")
    parser.add_argument("--build", type=a_path, default=Path("build"), help="default build")
    parser.add_argument("--study", help="the study to show; default: each notebook's own")
    parser.add_argument("--results", type=a_path, help="the results folder; default: the project's")


def explorer_command(options: argparse.Namespace) -> None:
    """Write the page."""
    if not options.output.parent.is_dir():
        raise ValueError(f"there is no folder {options.output.parent} for the page")
    study = chosen_study(options)
    if study.factorial:
        write_bytes(options.output, order_page(shown_results(study, options.results)).encode())
        print(f"written: {options.output}")
    else:
        write_explorer(options.output, study, options.results, {})


def write_explorer(
    trajectory: Path, study: Study, results: Path | None, links: dict[str, str]
) -> None:
    """Write the page with the trajectory, and beside it the page "Your own order".

    Without results of the factorial, the second is not written, which is said.

    Args:
        trajectory: the first page.
        study: what it shows.
        results: the folder of your own results.
        links: of both pages, by what the link says.
    """
    order, pages = trajectory.with_name(f"{trajectory.stem}_order.html"), dict[Path, str]()
    try:
        back = links | {"← The trajectory, step by step": trajectory.name}
        pages[order] = order_page(load_results(PUBLISHED, results), back)
        links = links | {"Your own order →": order.name}
    except ValueError as reason:
        print(f"no page {order.name}: {reason}")
    pages[trajectory] = explorer_page(results, study, links)
    for path, page in pages.items():
        write_bytes(path, page.encode())
        print(f"written: {path}")


def executed(options: argparse.Namespace) -> dict[str, Path]:
    """The notebooks asked for, executed."""
    parameters = {"OUTPUT": str((options.build / "run_step").resolve())}  # not among the results
    if options.study:
        parameters["STUDY"] = options.study
    if options.results:
        parameters["RESULTS"] = str(options.results.resolve())
    return execute_stale(options.names or all_notebooks(), options.build / "executed", parameters)


def slides_command(options: argparse.Namespace) -> None:
    """Write the slides and say where they are."""
    for path in write_slides(executed(options), options.build / "slides"):
        print(f"slides: {path}")


def site_command(options: argparse.Namespace) -> None:
    """Make the site and say where it begins."""
    if find_spec("sphinx") is None:  # before the notebooks are executed, which takes minutes
        raise ValueError("the site needs: pip install 'convnext-steps[site]'")
    notebooks = executed(options)
    shown = load_study(options.study or "quick", results=options.results)
    write_site(notebooks, options.build / "site-source", options.build / "site")
    explorer = options.build / "site" / "explorer.html"
    write_explorer(explorer, shown, options.results, {"← The course": "index.html"})
    print(f"site: {options.build / 'site' / 'index.html'}")
