"""convnext-steps compare and effects: what the results of studies say."""

import argparse
from collections import Counter
from pathlib import Path

from convnext_steps.cli.options import (
    a_path,
    add_changed_study,
    add_results_folder,
    chosen_study,
    shown_results,
)
from convnext_steps.files import write_bytes
from convnext_steps.study import comparison, effect_comparison
from convnext_steps.study.effect_plots import (
    plot_credits,
    plot_effects,
    plot_front,
    plot_interactions,
)
from convnext_steps.study.effect_tables import effect_report
from convnext_steps.study.effects import analyse, main_effects
from convnext_steps.study.factorial import PUBLISHED
from convnext_steps.study.figures import save_figure
from convnext_steps.study.toml import load_study


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Compare the gains of the same steps in several studies with those in the first.

    Of factorials, the effects of the same decisions. What comes of it is a table of their
    differences, and a figure.
    """
    parser.add_argument("studies", metavar="STUDY", nargs="+", help="names, or TOML files")
    parser.add_argument("--output", type=a_path, help="a folder for the table and the figure")
    add_results_folder(parser)


def add_effects(parser: argparse.ArgumentParser) -> None:
    """Estimate what each decision of a factorial does: alone, with the others, and in all orders.

    Tables and figures of the results so far are written next to them.
    """
    add_changed_study(parser, default=PUBLISHED)
    add_results_folder(parser)


def compare_command(options: argparse.Namespace) -> None:
    """Print the table, and write it and the figure if a folder is given."""
    studies = [load_study(name, results=options.results) for name in options.studies]
    for name, number in Counter(study.name for study in studies).items():
        if number > 1:
            raise ValueError(
                f"{number} studies are named {name}: name each once, or change a file's name = "
            )
    tables = [shown_results(study, options.results) for study in studies]
    if all(study.factorial for study in studies):
        analyses = effect_comparison.alike(
            {study.name: analyse(table) for study, table in zip(studies, tables, strict=True)}
        )
        markdown = effect_comparison.to_markdown(analyses)
        figure = plot_effects({name: main_effects(each) for name, each in analyses.items()})
    else:
        gains = comparison.compare_studies(tables)
        markdown = comparison.to_markdown(gains, studies[0].name)
        figure = comparison.plot_comparison(tables)
    print(markdown)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        write_bytes(options.output / "comparison.md", markdown.encode())
        save_figure(figure, options.output / "comparison")
        print(f"figure: {options.output / 'comparison.png'}")


def effects_command(options: argparse.Namespace) -> None:
    """Print the tables, and write them and the figures beside the results."""
    study = chosen_study(options)
    analysis = analyse(shown_results(study, options.results))
    text, tables = effect_report(analysis)
    print(text)
    folder = Path(options.results, study.name)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "effects.md", text.encode())
    for name, table in tables.items():
        write_bytes(folder / f"{name}.csv", table.to_csv(index=False).encode())
    figures = {
        "effects": plot_effects({study.name: tables["effects"]}),
        "credits": plot_credits(tables["credits"]),
        "front": plot_front(analysis),
    }
    if not tables["interactions"].empty:  # without, there are too few runs, which the text says
        drawn = plot_interactions(tables["interactions"], analysis.space.decisions)
        figures["interactions"] = drawn
    for name, figure in figures.items():
        save_figure(figure, folder / name)
    print(f"written: effects.md, {len(tables)} tables and {len(figures)} figures in {folder}")
