"""Studies from files: what a file says, what it is based on, and every mistake as one line."""

import os
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from convnext_steps.fields import build, convert
from convnext_steps.study.study import PLAIN, SECTIONS, OwnStep, Study, checked
from convnext_steps.text import unknown

STUDIES = files("convnext_steps.study").joinpath("studies")
OWN_STEP = ("name", "parent", "change", "title")


def study_names() -> tuple[str, ...]:
    """The names of the studies in the package."""
    return tuple(sorted(path.name.removesuffix(".toml") for path in STUDIES.iterdir()))


def load_study(source: str | Path) -> Study:
    """A study by name, or from a file.

    Args:
        source: the name of a study in the package, or the path of a TOML file.

    Raises:
        ValueError: there is none, or something in it cannot be; one line that names the file, the
            key and the nearest right word.
    """
    text = str(source)
    if not text.endswith(".toml") and os.sep not in text:
        if text not in study_names():
            raise ValueError(unknown("study", text, study_names()))
        path = Path(str(STUDIES.joinpath(f"{text}.toml")))
    else:
        path = Path(source).expanduser()
    try:
        return _study(path.stem, _merged(path, ()))
    except ValueError as error:
        raise ValueError(f"{path.name if text in study_names() else path}: {error}") from None


def _merged(path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    """A file's tables over those of the study that it is based on."""
    if path.resolve() in chain:
        names = " -> ".join(each.name for each in (*chain, path.resolve()))
        raise ValueError(f"base: the studies {names} go round in a circle")
    try:
        own = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError("there is no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"not readable as TOML: {error}") from None
    own = _with_paths(own, path.parent)
    base = own.pop("base", None)
    if base is None:
        return own
    if not isinstance(base, str):
        raise ValueError(f"base is {base!r}; it must be the name or the file of a study")
    if base in study_names():
        before = Path(str(STUDIES.joinpath(f"{base}.toml")))
    elif base.endswith(".toml"):
        before = path.parent / base
    else:
        raise ValueError(f"base: {unknown('study', base, study_names())}")
    merged = _merged(before, (*chain, path.resolve()))
    for key, value in own.items():
        if key in SECTIONS and isinstance(value, Mapping):
            merged[key] = {**merged.get(key, {}), **value}
        elif key == "step" and isinstance(value, list):
            merged[key] = [*merged.get(key, []), *value]
        else:
            merged[key] = value
    return merged


def _with_paths(tables: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same, with the data's folder as it is seen from anywhere."""
    data = tables.get("data")
    if isinstance(data, dict) and isinstance(data.get("root"), str) and data["root"]:
        data["root"] = str((folder / Path(data["root"]).expanduser()).resolve())
    return tables


def _study(name: str, tables: Mapping[str, Any]) -> Study:
    known = (*PLAIN, *SECTIONS, "step", "base")
    parts: dict[str, Any] = {"name": name}
    for key, value in tables.items():
        if key in SECTIONS:
            if not isinstance(value, Mapping):
                raise ValueError(f"{key} is {value!r}; it must be a table, [{key}]")
            parts[key] = build(SECTIONS[key], value, key)
        elif key == "step":
            parts["own_steps"] = _own_steps(value)
        elif key in PLAIN:
            parts[key] = convert(value, PLAIN[key], key)
        else:
            raise ValueError(unknown("key", key, known))
    return checked(Study(**parts))


def _own_steps(tables: Any) -> tuple[OwnStep, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise ValueError("step must be one table for each step, [[step]]")
    steps = []
    for table in tables:
        for key in table:
            if key not in OWN_STEP:
                raise ValueError(
                    unknown("key", f"step.{key}", tuple(f"step.{k}" for k in OWN_STEP))
                )
        for key in ("name", "parent", "change"):
            if key not in table:
                raise ValueError(f"a [[step]] lacks {key}")
        if not isinstance(table["change"], Mapping) or not table["change"]:
            raise ValueError("step.change must be a table such as { kernel_size = 13 }")
        texts = {k: convert(v, str, f"step.{k}") for k, v in table.items() if k != "change"}
        steps.append(OwnStep(**texts, change=dict(table["change"])))
    return tuple(steps)
