"""A study's results as a table that knows its study."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from convnext_steps.errors import DataError, InvalidStudyError
from convnext_steps.files import own_results
from convnext_steps.models.roadmap import Step
from convnext_steps.study.plan import Run
from convnext_steps.study.results import PROJECT_RESULTS, all_results
from convnext_steps.study.study import Study
from convnext_steps.study.toml import is_factorial, load_study

LOG = logging.getLogger("convnext_steps")


def load_results(
    study: Study | str,
    results: str | Path | None = None,
    seeds: Iterable[int] | None = None,
) -> pd.DataFrame:
    """The reader's own results of a study; where there are none, those that the project publishes.

    One row per run; for the columns see `all_results`.

    Args:
        study: a study, or what `load_study` takes.
        results: the folder of one's own results; by default `results/own`.
        seeds: which; all by default.
    """
    study = load_study(study, results=results)
    wanted = None if seeds is None else list(seeds)
    for folder in (own_results(results), PROJECT_RESULTS):
        found = of_the_study(all_results(folder), study)
        found = found if wanted is None else found[found["seed"].isin(wanted)]
        if not found.empty:
            break
    return found


def of_the_study(table: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The results of this study as it is planned now, found by hash, under its own names.

    Others with the study's name are logged and left out.
    """
    planned: dict[str, list[Run]] = {}  # steps may differ in name alone
    for run in _planned(table, study):
        planned.setdefault(run.hash, []).append(run)
    belongs = table["hash"].isin(planned)
    named = (table["study"] == study.name) & table["step"].isin(study.steps())
    for row in table[named & ~belongs].itertuples():
        reason = "belongs to another design, recipe or data"
        LOG.warning("left out: %s seed %s %s", row.step, row.seed, reason)
    known = table[belongs]
    pairs = [(row, run) for row, digest in enumerate(known["hash"]) for run in planned[digest]]
    runs = [run for _, run in pairs]
    found = known.iloc[[row for row, _ in pairs]].assign(
        study=study.name,
        step=[run.step for run in runs],
        seed=[run.seed for run in runs],
    )
    found.attrs["study"] = _with_steps(study, set(found["step"]))
    return found


def _with_steps(study: Study, names: set[str]) -> Study:
    """A study of a few steps (`only`) with those that were trained beside them."""
    if not study.only:
        return study
    wanted = {*study.only, *names}
    return replace(study, only=tuple(name for name in study.all_steps() if name in wanted))


def _planned(table: pd.DataFrame, study: Study) -> list[Run]:
    """The runs of a study with the seeds of a table.

    Where the study's own images are not here, the content that its results name is assumed.
    """
    if study.factorial:
        runs = study.plan()
    else:
        folder = table.attrs.get("folder")  # none in a table put together by hand
        drawn = [name for name in table["study"].unique() if is_factorial(name, folder)]
        seeds = sorted({int(seed) for seed in table.loc[~table["study"].isin(drawn), "seed"]})
        runs = study.plan(seeds, list(study.all_steps()))
    try:
        for run in runs[:1]:
            run.data.identity()
    except DataError:
        contents = table.loc[table["study"] == study.name, "content"].unique()
        named = [replace(study.data, content=str(content)) for content in contents]
        return [replace(run, data=data) for data in named for run in runs]
    return runs


def study_of(results: pd.DataFrame) -> Study:
    """The study that a table of results is of.

    Raises:
        InvalidStudyError: the table does not say.
    """
    study = results.attrs.get("study")
    if not isinstance(study, Study):
        raise InvalidStudyError("this table does not say of which study it is; see load_results")
    return study


def steps_of(results: pd.DataFrame) -> Mapping[str, Step]:
    """The steps of the study that a table of results is of."""
    return study_of(results).steps()


def stored_results(
    study: Study | str, results: str | Path | None = None, steps: Sequence[str] = ()
) -> pd.DataFrame:
    """The reader's own results of a study; where there are none, others with the same steps.

    These are those of the standard study, or else of the quick one; the column `study` says which.
    Without any, the table is empty.

    Args:
        study: a study, or what `load_study` takes.
        results: the folder of one's own results; by default `results/own`.
        steps: results that lack one of these count as none.
    """
    study = load_study(study, results=results)
    own, published = all_results(own_results(results)), all_results(PROJECT_RESULTS)
    changes = {"roadmap": study.roadmap}
    others = [load_study(name).change(changes) for name in ("standard", "quick")]
    candidates = [(own, study), (own, others[0]), *((published, other) for other in others)]
    for table, candidate in candidates:
        found = of_the_study(table, candidate)
        if not found.empty and set(steps) <= set(found["step"]):
            return found
    return of_the_study(own.iloc[:0], study)
