"""Results as files, one per run or one per study."""

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from convnext_steps.errors import ResultError, reworded
from convnext_steps.files import project_folder

SCHEMA = 2
RESULT = "result.json"  # in a run's folder
PACKED = "runs.jsonl"  # of a whole study, one line per run
PROJECT_RESULTS = project_folder() / "results"  # the published studies

LOG = logging.getLogger("convnext_steps")


def checksum(result: Mapping[str, Any]) -> str:
    """The SHA-256 sum of everything else in a result."""
    rest = {name: value for name, value in result.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_result(path: str | Path) -> dict[str, Any]:
    """Read the result of one run.

    Raises:
        ResultError: the file is missing, truncated, of another schema, or was changed by hand.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ResultError(f"{path} is not readable: {error}") from None
    return parse_result(content, str(path))


def parse_result(content: bytes, name: str) -> dict[str, Any]:
    """The result that a file, or a line of one, holds.

    Raises:
        ResultError: it is truncated, of another schema, lacks a field, or was changed by hand.
    """
    with reworded(f"{name} is not readable: ", ResultError):
        result = json.loads(content)
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        raise ResultError(f"{name} is not a result of schema {SCHEMA}; see `convnext-steps import`")
    if result.get("checksum") != checksum(result):
        raise ResultError(f"{name} was changed after it was written")
    try:
        _row(result)
    except KeyError as error:
        raise ResultError(f"{name} has no {error}") from None
    return result


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """The results in a file, each with its name: one, or one in each line of a packed study."""
    if path.suffix != ".jsonl":
        yield str(path), path.read_bytes()
        return
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            yield f"{path}, line {number}", line


def _say_left_out(error: OSError) -> None:
    if isinstance(error, PermissionError):  # a folder that is not there has no results
        LOG.warning("left out: %s", error)


def result_files(folder: Path) -> list[Path]:
    """The files with results below a folder, single runs first; links to folders are followed."""
    walk = os.walk(folder, onerror=_say_left_out, followlinks=True)
    found = (Path(parent, name) for parent, _, names in walk for name in names)
    wanted = (path for path in found if path.name in (RESULT, PACKED))
    return sorted(wanted, key=lambda path: (path.name == PACKED, path))


def read_results(folder: str | Path) -> Iterator[dict[str, Any]]:
    """All results below a folder, each run once; those that cannot be trusted are logged.

    Of the project's own folder, only the published studies.
    """
    folder = Path(folder)
    published = folder.resolve() == PROJECT_RESULTS
    files = sorted(folder.glob(f"*/{PACKED}")) if published else result_files(folder)
    seen = set()
    for name, content in chain.from_iterable(map(contents, files)):
        try:
            result = parse_result(content, name)
        except ResultError as error:
            LOG.warning("left out: %s", error)
            continue
        if result["hash"] not in seen:
            seen.add(result["hash"])
            yield result


def all_results(folder: str | Path) -> pd.DataFrame:
    """All results below a folder as a table, one row per run.

    Columns: study, step, seed, accuracy (%), loss and correct (of test_images), fit_accuracy (%)
    and fit_loss (of training images; NaN where a result lacks them), macs and params (of the
    network as trained), training_seconds, evaluation_seconds, hash, commit, content (of the data).
    `attrs["folder"]` says where they are.
    """
    table = pd.DataFrame([_row(result) for result in read_results(folder)], columns=COLUMNS)
    table.attrs["folder"] = str(folder)
    return table


COLUMNS = [
    *("study", "step", "seed", "accuracy", "loss", "correct", "test_images"),
    *("fit_accuracy", "fit_loss", "macs", "params"),
    *("training_seconds", "evaluation_seconds", "hash", "commit", "content"),
]


def _row(result: Mapping[str, Any]) -> dict[str, Any]:
    seconds = {f"{name}_seconds": value for name, value in result["seconds"].items()}
    known = {**result, **seconds, "commit": result["environment"]["commit"]}
    known["content"] = result["data"]["content"]
    fit = result.get("fit") or {}  # results of version 0.1 lack it
    known |= {f"fit_{name}": fit.get(name, math.nan) for name in ("accuracy", "loss")}
    return {name: known[name] for name in COLUMNS}
