"""convnext-steps studies, study, status and report: what is asked and done."""

import argparse
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convnext_steps.cli.options import (
    a_path,
    add_changed_study,
    add_plan,
    add_results_folder,
    chosen_study,
    positive,
)
from convnext_steps.errors import StudyError
from convnext_steps.execution.machine import cores
from convnext_steps.execution.report import report, show_trajectory
from convnext_steps.execution.runfolder import status
from convnext_steps.execution.runner import do_missing, run_study
from convnext_steps.study.factorial import design_quality
from convnext_steps.study.forecast import Forecast, forecast
from convnext_steps.study.loading import load_results
from convnext_steps.study.plan import Run
from convnext_steps.study.results import read_results
from convnext_steps.study.study import OWN_SEEDS, Study
from convnext_steps.study.sweep import choose, sweep, sweep_table
from convnext_steps.study.toml import load_study, read_changes, study_names, write_study


def add_studies(parser: argparse.ArgumentParser) -> None:
    """Print the studies in the package, and what one seed of each costs here."""
    add_results_folder(parser)


def add_study(parser: argparse.ArgumentParser) -> None:
    """Train every step that has no result yet, each in a notebook of its own.

    The table and the figure are drawn anew as results come in. Interrupt any time; rerun to resume.
    Several runners may share a results folder, and with Ray all nodes of the cluster must.
    """
    add_plan(parser)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--index",
        type=int,
        metavar="K",
        help="only do the K-th run of the plan, counted from 0, without a report",
    )
    instead.add_argument(
        "--sweep",
        metavar="SECTION.FIELD=A,B,...",
        help="train a study for each value, and choose on held-out training images",
    )
    instead.add_argument("--write", type=a_path, metavar="FILE", help="write the study as TOML")
    parser.add_argument("--dry-run", action="store_true", help="list the runs and their cost only")
    parser.add_argument(
        "--workers",
        type=positive,
        help="runs at once; default: one per core, or all that the cluster takes",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--backend",
        choices=("local", "ray"),
        default="local",
        help="local: processes of this machine (the default); ray: tasks of a Ray cluster, whose "
        "nodes all have this package and the results folder",
    )
    where.add_argument(
        "--address",
        help="a running Ray cluster, such as auto; without it, Ray runs on this machine alone",
    )


def add_status(parser: argparse.ArgumentParser) -> None:
    """Print which runs of a study are done, running, failed or missing, and why."""
    add_plan(parser)


def add_report(parser: argparse.ArgumentParser) -> None:
    """Write the table and the figure of a study's results so far, and print the table."""
    add_changed_study(parser)
    add_results_folder(parser)


def studies_command(options: argparse.Namespace) -> None:
    """Print the studies of the package, and what one seed of each costs."""
    for name in study_names():
        study = load_study(name)
        if study.factorial:
            cost = f"{len(study.plan()):,} runs"
        elif study.data.source == "folder":
            cost = "one seed: its images are yours"
        else:
            cost = f"one seed: {describe(forecast(study.plan(), options.results))}"
        print(f"{name}: {study.description}\n    {cost}")


def study_command(options: argparse.Namespace) -> None:
    """Run what is missing of a study, then report."""
    study = chosen_study(options)
    if options.workers:
        study = study.change({"how.workers": options.workers})
    seeds = chosen_seeds(study, options)
    runs = study.plan(seeds, options.steps)
    address = options.address or ("local" if options.backend == "ray" else None)
    if options.write:
        if options.write.exists():
            raise ValueError(f"{options.write} is there already; choose another file")
        write_study(study, options.write)
        print(f"written: {options.write}")
    elif options.sweep:
        run_sweep(study, seeds, options, address)
    elif options.dry_run:
        print_plan(runs, options.results)
        if study.factorial:
            print(f"design: {design_quality(study.factorial)}")
    elif options.index is not None:
        if not 0 <= options.index < len(runs):
            last = len(runs) - 1
            raise ValueError(f"--index is {options.index}; the plan's runs are 0 to {last}")
        do_missing(study, [runs[options.index]], options.results, address)
    else:
        run_and_report(study, seeds, options, address)


def run_and_report(
    study: Study, seeds: Sequence[int] | None, options: argparse.Namespace, address: str | None
) -> None:
    """Run what is missing, and report what is there even if some of it failed."""
    failures = None
    try:
        if run_study(study, seeds, options.steps, options.results, address) == 0:
            print("all runs are already done")
    except StudyError as error:  # the runs that were completed are reported all the same
        failures = error
    try:
        if study.factorial or show_trajectory(study, options.results):
            print_report(study, options.results)
    finally:
        if failures:
            raise failures


def run_sweep(
    study: Study, seeds: Sequence[int] | None, options: argparse.Namespace, address: str | None
) -> None:
    """Run a study for each value, and print what the held-out images choose."""
    key, _, texts = (part.strip() for part in options.sweep.partition("="))
    values = [read_changes(f"{key}={text}")[key] for text in texts.split(",")]
    studies = sweep(study, key, values)
    if options.dry_run:
        runs = [run for one in studies for run in one.plan(seeds, options.steps)]
        print_plan(runs, options.results)
        return
    for one in studies:
        run_study(one, seeds, options.steps, options.results, address)
    wide = sweep_table([load_results(one, options.results, seeds) for one in studies], key)
    print(f"accuracy on held-out training images (%), by {key}:")
    chosen = choose(wide)
    print(chosen.round(4).to_string())
    best = chosen["common"].iloc[0]
    words = ["convnext-steps", "study", options.study]
    words += ["--uses", options.uses] if options.uses else []
    best = str(best).lower() if isinstance(best, bool | np.bool_) else best
    for change in (*options.changes, f"{key}={best}"):
        words += ["--set", change]
    print(f"to report it: {shlex.join(words)}, with fresh seeds")


def print_plan(runs: Sequence[Run], results: Path) -> None:
    """Print the runs, what is missing, and what that will cost."""
    known = {result["hash"] for result in read_results(results)}
    missing = list({run.hash: run for run in runs if run.hash not in known}.values())
    for index, run in enumerate(runs):
        print(f"{index:4} {run.name:40} {'done' if run.hash in known else 'missing'}")
    print(f"{len(runs)} runs, a job array of 0-{len(runs) - 1}; {len(missing)} are missing")
    if missing:
        print(f"to do: {describe(forecast(missing, results))}")


def describe(cost: Forecast) -> str:
    """What runs cost, in one line."""
    text = f"{cost.images:,} images seen, {3 * cost.macs:.1e} multiply-adds"
    if cost.hours is None:
        return text
    hours = cost.hours / cores()
    time = f"{60 * hours:.0f} minutes" if hours < 2 else f"{hours:,.0f} hours"
    time = "less than a minute" if hours < 1 / 60 else f"about {time}"
    return f"{text}, {time} on {cores()} cores (an estimate from stored runs)"


def status_command(options: argparse.Namespace) -> None:
    """Print one line per run that is not done, and how many runs are in each state."""
    states = Counter[str]()
    known = {result["hash"]: result for result in read_results(options.results)}
    study = chosen_study(options)
    runs = study.plan(chosen_seeds(study, options), options.steps)
    for index, run in enumerate(runs):
        now = status(run, options.results, known)
        states[now.state] += 1
        if now.state != "done":
            print(f"{index:4} {run.name:32} {now.state:8} {now.reason}")
    print(", ".join(f"{count} {state}" for state, count in states.items()))


def report_command(options: argparse.Namespace) -> None:
    """Write and print the table, and say where the figure is."""
    print_report(chosen_study(options), options.results)


def print_report(study: Study, results: Path) -> None:
    """Write and print a study's table, and say where the figure is."""
    print(report(study, results))
    if study.factorial:
        print(f"all runs: {results / study.name / 'table.csv'}")
    else:
        print(f"figure: {results / study.name / 'trajectory.png'}")


def chosen_seeds(study: Study, options: argparse.Namespace) -> list[int] | None:
    """The seeds asked for, or 0; a factorial's networks draw their own.

    Raises:
        ValueError: seeds are given for a factorial.
    """
    if study.factorial and options.seeds:
        raise ValueError(OWN_SEEDS)
    return None if study.factorial else parse_seeds(options.seeds or ["0"])


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
