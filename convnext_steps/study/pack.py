"""Results that move: a study packed into one file, and other people's results imported."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convnext_steps.errors import ResultError
from convnext_steps.files import write_bytes
from convnext_steps.study.plan import HASH_DEFAULTS, run_hash
from convnext_steps.study.results import (
    PACKED,
    SCHEMA,
    checksum,
    contents,
    parse_result,
    read_results,
    result_files,
)
from convnext_steps.text import check_name
from convnext_steps.training.checkpoint import HISTORY
from convnext_steps.training.data import SOURCES

MADE_FROM = ("design", "recipe", "data", "seed", "code")
MOVED_1 = (  # fields with another place or value today
    *("schema", "profile", "regime", "config", "train_images", "data_fingerprint"),
    *("processes", "checksum"),
)
HOW_1 = ("checkpoint_every", "keep_checkpoints", "data_workers", "compile")  # in its recipe


def pack(results: Path, study: str) -> int:
    """Write all results of a study into its one file; return how many there are.

    Raises:
        ValueError: there are none, or a line of the file cannot be read.
    """
    results_there = [*_packed(results / study), *read_results(results / study)]
    found = {result["hash"]: result for result in results_there}
    if not found:
        raise ValueError(f"there are no results in {results / study}")
    _write(results / study, found.values())
    return len(found)


def _write(folder: Path, results: Iterable[Mapping[str, Any]]) -> None:
    ordered = sorted(results, key=lambda result: (result["seed"], result["step"], result["hash"]))
    lines = [json.dumps(result, separators=(",", ":")) + "\n" for result in ordered]
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / PACKED, "".join(lines).encode())


def _packed(folder: Path) -> list[dict[str, Any]]:
    """The results in a study's one file, those of version 0.1 in today's form.

    Raises:
        ResultError: one cannot be read: writing the file anew would lose it.
    """
    path = folder / PACKED
    lines = contents(path) if path.exists() else ()
    try:
        return [_trusted(name, line, path.with_name(HISTORY)) for name, line in lines]
    except ResultError as error:
        raise ResultError(f"{error}; correct or remove that line, or move the file away") from None


@dataclass
class Imported:
    """What came of an import: how many results of each study are new, known, and refused."""

    new: Counter[str] = field(default_factory=Counter)
    known: int = 0
    refused: list[str] = field(default_factory=list)  # why, one line per result


def import_results(folders: Iterable[Path], results: Path) -> Imported:
    """Import the results of other folders, each checked against its checksum and its hash.

    Results of this version and of the one before it, in folders of runs or packed. A run that is
    already there stays as it is.

    Args:
        folders: where to look, at any depth; or files, packed (.jsonl) or of single runs.
        results: the results folder that they join.

    Raises:
        ValueError: in one of them there are no results.
    """
    known = {result["hash"] for result in read_results(results)}
    imported, new = Imported(), dict[str, list[dict[str, Any]]]()
    for folder in folders:
        there = list(_contents(folder))
        if not there:
            raise ValueError(f"there are no results in {folder}")
        for name, content, curve in there:
            try:
                result = _trusted(name, content, curve)
            except ResultError as error:
                imported.refused.append(str(error))
                continue
            if result["hash"] in known:
                imported.known += 1
                continue
            known.add(result["hash"])
            imported.new[result["study"]] += 1
            new.setdefault(result["study"], []).append(result)
    for study, more in new.items():
        whole = {result["hash"]: result for result in [*_packed(results / study), *more]}
        _write(results / study, whole.values())
    return imported


def _contents(folder: Path) -> Iterator[tuple[str, bytes, Path]]:
    """Every result below a folder: its name, its text, and where its curve may be."""
    for path in [folder] if folder.is_file() else result_files(folder):
        for name, content in contents(path):
            yield name, content, path.with_name(HISTORY)


def _trusted(name: str, content: bytes, curve: Path) -> dict[str, Any]:
    """A result whose hash matches what it says that it was made from.

    Raises:
        ResultError: it is damaged, or its hash does not match.
    """
    try:
        result = json.loads(content)
        if result["schema"] == 1:
            return from_schema_1(name, result, curve)
        result = parse_result(content, name)
        if run_hash(*(result[part] for part in MADE_FROM)) != result["hash"]:
            raise ResultError(f"{name} does not match the design, recipe and data that it names")
        for part in ("study", "step"):  # where it is written
            check_name(result[part], part)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ResultError):
            raise
        raise ResultError(f"{name} is not a result: {error!r}") from None
    return result


def from_schema_1(name: str, old: Mapping[str, Any], curve: Path) -> dict[str, Any]:
    """A result of version 0.1 in today's form, with its curve.

    Its hash included the names of profile, regime and step, and so changes; its evidence stays.

    Raises:
        ResultError: it was changed after it was written, or its hash does not match.
    """
    if old.get("checksum") != checksum(old):
        raise ResultError(f"{name} was changed after it was written")
    if hash_1(old) != old["hash"]:
        raise ResultError(f"{name} does not match the design, recipe and data that it names")
    config = old["config"]
    lines = curve.read_text(encoding="utf-8").splitlines() if curve.exists() else []
    result = {key: value for key, value in old.items() if key not in MOVED_1} | {
        "schema": SCHEMA,
        "study": "_".join([old["profile"], *({old["regime"]} - {"tiny"})]),
        "recipe": {k: v for k, v in config.items() if k not in (*HOW_1, "seed")},
        "how": {k: config[k] for k in HOW_1} | {"processes": old.get("processes", 1)},
        "data": {
            "source": old["data"],
            "images": old["train_images"],
            "content": SOURCES[old["data"]].fingerprint,
        },
        "code": None,
        "curve": [json.loads(line) for line in lines],
        "imported": {"schema": 1, "hash": old["hash"], "checksum": old["checksum"]},
    }
    result["hash"] = run_hash(*(result[part] for part in MADE_FROM))
    return result | {"checksum": checksum(result)}


def hash_1(old: Mapping[str, Any]) -> str:
    """The hash of a run in version 0.1, which proves what the result was made from."""
    plain = {"config": HASH_DEFAULTS["recipe"] | {"precision": "fp32", "seed": 0}}
    plain["design"] = HASH_DEFAULTS["design"] | {"depths": [3, 4, 6, 3]}
    parts = {
        kind: {k: v for k, v in old[kind].items() if k not in plain[kind] or v != plain[kind][k]}
        for kind in plain
    }
    recipe = {k: v for k, v in parts["config"].items() if k not in HOW_1}
    decisive = {name: old[name] for name in ("profile", "regime", "step", "seed")}
    decisive |= {"design": parts["design"], "recipe": recipe}
    decisive["data"] = [old["data"], old["train_images"], SOURCES[old["data"]].fingerprint]
    text = json.dumps(decisive, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
