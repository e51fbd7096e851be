"""Studies as TOML files: read, with every mistake as one line, and written."""

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import tomli_w

from convnext_steps.errors import InvalidStudyError, reworded
from convnext_steps.fields import build, convert, read_value
from convnext_steps.files import expanded, own_results, write_bytes
from convnext_steps.models.own import use
from convnext_steps.study.own_steps import OwnStep
from convnext_steps.study.study import INSTEAD, PLAIN, SECTIONS, Study, checked, say_what_stays
from convnext_steps.text import unknown
from convnext_steps.training.config import TrainingConfig

# Between two changes; in braces an equals sign begins none.
CHANGE = re.compile(r"[\s;]+(?=[a-z_.]+\s*=)(?![^{}]*\}(?:\s|;|$))")
STUDIES = files("convnext_steps.study").joinpath("studies")


def study_names() -> tuple[str, ...]:
    """The names of the studies in the package."""
    return tuple(sorted(path.name.removesuffix(".toml") for path in STUDIES.iterdir()))


def load_study(
    source: "str | Path | Study", uses: str | Path = "", results: str | Path | None = None
) -> Study:
    """A study by name, or from a file.

    Args:
        source: the name of a study in the package, or of one that has been run, or the path of a
            TOML file; a study is itself.
        uses: a Python file whose `add_step` adds decisions of your own; it is executed.
        results: the folder of your own results, where studies that have been run are; by default
            `results/own`.

    Raises:
        InvalidStudyError: there is none, or something in it cannot be; one line that names the
            file, the key and the nearest right word.
    """
    if isinstance(source, Study):
        return source
    text = str(source)
    with reworded(f"{text}: ", InvalidStudyError):
        if uses:
            use(Path(uses))
        path = _found(text, results)
        tables = _merged(path, ())
        study = _study(path.stem, tables)
        if text not in study_names():
            say_what_stays(study, tables.get("recipe", ()), TrainingConfig())
        return replace(study, uses=str(Path(uses).resolve()) if uses else "")


def is_factorial(name: str, results: str | Path | None = None) -> bool:
    """Whether the study of this name draws a seed for each network; False where there is none.

    Args:
        name: of a study.
        results: the folder of results, where studies that have been run are; by default
            `results/own`.
    """
    try:
        return "factorial" in _merged(_found(name, results), ())
    except ValueError:
        return False


def read_changes(changes: str | Sequence[str]) -> dict[str, Any]:
    """The changes that texts such as `recipe.max_epochs=12` ask for.

    Args:
        changes: one, or several in one text, separated by spaces, or a list of them. Values are
            written as in TOML; a fraction such as 1/4, and words without quotes, are too.

    Raises:
        InvalidStudyError: a text is no change.
    """
    texts = [changes] if isinstance(changes, str) else changes
    found: dict[str, Any] = {}
    for text in texts:
        for part in filter(None, CHANGE.split(text.strip())):
            key, sign, value = part.partition("=")
            if not sign:
                raise InvalidStudyError(
                    f"{part!r} is not a change; write it like recipe.max_epochs=12"
                )
            found[key.strip()] = read_value(value.strip())
    return found


def write_study(study: Study, path: Path) -> None:
    """Write the whole study, without a base, as a file to go on from; atomically."""
    tables = {"name": study.name} | {key: getattr(study, key) for key in PLAIN}
    for section, kind in SECTIONS.items():
        if not (part := getattr(study, section)):
            continue
        values = asdict(part)
        if section == "how":
            values = {k: v for k, v in values.items() if v != getattr(kind(), k)}
        if section == "data":
            values = {k: v for k, v in values.items() if v}
        tables[section] = {k: v for k, v in values.items() if (section, k) != ("recipe", "seed")}
    tables["step"] = [
        {key: value for key, value in asdict(own).items() if value} for own in study.own_steps
    ]
    tables = {key: value for key, value in tables.items() if value}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, tomli_w.dumps(tables).encode())


def study_file(name: str, results: Path) -> Path:
    """Where a study that runs is written, for the processes that do its runs."""
    return results / name / "study.toml"


def _found(name: str, results: str | Path | None = None, folder: Path = Path()) -> Path:
    """The file of a study: a path, or by name, of the package or of one that has been run here."""
    if name.endswith(".toml") or os.sep in name:
        return folder / expanded(name)
    if name in study_names():
        return Path(str(STUDIES.joinpath(f"{name}.toml")))
    if (file := study_file(name, own_results(results))).is_file():
        return file
    raise ValueError(unknown("study", name, study_names()))


def _merged(path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    """A file's tables over those of the study that it is based on."""
    if path.resolve() in chain:
        names = " -> ".join(each.name for each in (*chain, path.resolve()))
        raise ValueError(f"base: the studies {names} go round in a circle")
    try:
        own = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError("there is no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"not readable as TOML: {error}") from None
    _check_tables(own)
    if isinstance(root := own.get("data", {}).get("root"), str) and root:
        own["data"]["root"] = str((path.parent / expanded(root)).resolve())  # from anywhere
    base = own.pop("base", None)
    if base is None:
        return own
    if not isinstance(base, str):
        raise ValueError(f"base is {base!r}; it must be the name or the file of a study")
    with reworded("base: "):
        before = _found(base, folder=path.parent)
    merged = _merged(before, (*chain, path.resolve()))
    merged.pop("name", None)
    if "factorial" in own and "factorial" not in merged:
        merged = {key: value for key, value in merged.items() if key not in (*INSTEAD, "step")}
    for key, value in own.items():
        if key in SECTIONS:
            merged[key] = {**merged.get(key, {}), **value}
        elif key == "step":
            merged[key] = [*merged.get(key, []), *value]
        else:
            merged[key] = value
    return merged


def _study(name: str, tables: Mapping[str, Any]) -> Study:
    parts: dict[str, Any] = {"name": convert(tables.get("name", name), str, "name")}
    for key, value in tables.items():
        if key in SECTIONS:
            parts[key] = build(SECTIONS[key], value, key)
        elif key == "step":
            parts["own_steps"] = tuple(build(OwnStep, table, "step") for table in value)
        elif key in PLAIN:
            parts[key] = convert(value, PLAIN[key], key)
        elif key != "name":
            raise ValueError(unknown("key", key, ("name", *PLAIN, *SECTIONS, "step", "base")))
    return checked(Study(**parts))


def _check_tables(tables: Mapping[str, Any]) -> None:
    for key, value in tables.items():
        if key in SECTIONS and not isinstance(value, Mapping):
            raise ValueError(f"{key} is {value!r}; it must be a table, [{key}]")
    steps = tables.get("step", [])
    if not isinstance(steps, list) or not all(isinstance(table, Mapping) for table in steps):
        raise ValueError("step must be one table for each step, [[step]]")
