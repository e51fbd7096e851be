"""Result files and the table that they make."""

import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from convnext_steps.errors import ResultError
from convnext_steps.files import write_bytes
from convnext_steps.models.roadmap import roadmap
from convnext_steps.study.plan import Run
from convnext_steps.study.statistics import accuracies, describe

SCHEMA = 1
PARTIAL_RESULT = "result.partial.json"
RESULT = "result.json"


def checksum(result: Mapping[str, Any]) -> str:
    """The SHA-256 sum of everything else in a result."""
    rest = {name: value for name, value in result.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, atomically."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def read_result(path: str | Path) -> dict[str, Any]:
    """Read one result file.

    Raises:
        ResultError: the file is missing, truncated, of another schema, or was changed by hand.
    """
    try:
        result = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise ResultError(f"{path} is not readable: {error}") from None
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        raise ResultError(f"{path} is not a result file of schema {SCHEMA}")
    if result.get("checksum") != checksum(result):
        raise ResultError(f"{path} was changed after it was written")
    return result


def result_of(run: Run, folder: Path) -> dict[str, Any]:
    """Read a run's result from its folder.

    Raises:
        ResultError: it is missing, cannot be trusted, or is not the plan's.
    """
    result = read_result(folder / RESULT)
    if result.get("hash") != run.hash:
        raise ResultError("the result there is of another design, recipe or data")
    return result


def done(run: Run, results: str | Path) -> bool:
    """Whether a run's result is there and is the plan's: same design, recipe and data."""
    try:
        result_of(run, run.folder(results))
    except ResultError:
        return False
    return True


def load_results(folder: str | Path) -> pd.DataFrame:
    """All results below a folder as a table, a row a run; unreadable files are named and left out.

    Columns: profile, regime, step, seed, accuracy and loss (test set), macs and params (of the
    network as trained), training_seconds, evaluation_seconds, hash, commit.
    """
    rows = []
    for path in sorted(Path(folder).rglob(RESULT)):
        try:
            rows.append(_row(read_result(path)))
        except ResultError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
        except KeyError as error:
            warnings.warn(f"left out: {path} has no {error}", stacklevel=2)
    return pd.DataFrame(rows, columns=COLUMNS)


COLUMNS = [
    *("profile", "regime", "step", "seed", "accuracy", "loss", "macs", "params"),
    *("training_seconds", "evaluation_seconds", "hash", "commit"),
]


def _row(result: Mapping[str, Any]) -> dict[str, Any]:
    seconds = {f"{name}_seconds": value for name, value in result["seconds"].items()}
    known = {**result, **seconds, "commit": result["environment"]["commit"]}
    return {name: known[name] for name in COLUMNS}


def summarize(results: pd.DataFrame, regime: str = "tiny") -> pd.DataFrame:
    """One row a step in the roadmap's order: ours over the seeds, and the paper's; gaps stay empty.

    Accuracies are per cent; `margin` is half of the mean's 95 % t-interval, `gain` the
    difference to the parent, paired by seed. Where `paper_erratum`, the paper prints another number
    of multiply-adds than its network counts.

    Raises:
        ValueError: the results are of several profiles, or have a run twice.
    """
    columns, ours = accuracies(results, regime), describe(results, regime).set_index("step")
    macs = results[results["regime"] == regime].groupby("step")["macs"].first()
    rows = []
    for name, step in roadmap(regime).items():
        gains = columns[name] - columns[step.parent] if step.parent else columns[name] * math.nan
        rows.append(
            {
                "step": name,
                "title": step.title,
                "seeds": int(ours.loc[name, "n"]),
                "accuracy": ours.loc[name, "mean"],
                "std": ours.loc[name, "std"],
                "margin": ours.loc[name, "margin"],
                "gain": gains.mean(),
                "macs": macs.get(name, float("nan")),
                "paper_top1": step.paper.top1_mean,
                "paper_macs": step.paper.macs,
                "paper_erratum": step.paper.erratum is not None,
            }
        )
    return pd.DataFrame(rows)
