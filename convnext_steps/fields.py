"""Dataclasses from the values of a file or of a command line, every mistake one clear line."""

import math
import re
import tomllib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np

from convnext_steps.errors import reworded
from convnext_steps.text import unknown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text in quotes"}


def build(kind: type[T], values: Mapping[str, Any], section: str) -> T:
    """A dataclass whose fields have these values, each of the field's type.

    Args:
        kind: the dataclass.
        values: by the names of fields.
        section: stands before the name of a field in messages.

    Raises:
        ValueError: a name is unknown or missing, or a value is of another type or out of range.
    """
    known = {field.name: field.type for field in fields(kind)}
    for name in values:
        if name not in known:
            raise ValueError(
                unknown("key", f"{section}.{name}", tuple(f"{section}.{k}" for k in known))
            )
    for field in fields(kind):
        if field.default is field.default_factory is MISSING and field.name not in values:
            raise ValueError(f"a table [[{section}]] lacks {field.name}")
    given = {
        name: convert(value, known[name], f"{section}.{name}") for name, value in values.items()
    }
    with reworded(f"{section}."):
        return kind(**given)


def convert(value: Any, kind: Any, name: str) -> Any:
    """A value as a field of this type holds it.

    Raises:
        ValueError: it is of another type.
    """
    if kind is Any:
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if get_origin(kind) is Literal:
        allowed = get_args(kind)
        if value not in allowed or isinstance(value, bool) != isinstance(allowed[0], bool):
            choices = ("one of " if len(allowed) > 1 else "") + ", ".join(map(repr, allowed))
            raise ValueError(f"{name} is {value!r}; it must be {choices}")
        return allowed[allowed.index(value)]  # 2 for 2.0
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name} is {value!r}; it must be a list in brackets")
        part = get_args(kind)[0]
        return tuple(convert(each, part, f"{name}[{place}]") for place, each in enumerate(value))
    if get_origin(kind) in (types.UnionType, Union):
        rules = []
        for other in get_args(kind):
            try:
                return convert(value, other, name)
            except ValueError as error:
                rules.append(str(error).rpartition("it must be ")[2])
        raise ValueError(f"{name} is {value!r}; it must be {' or '.join(rules)}")
    if get_origin(kind) is Mapping:
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} is {value!r}; it must be a table in braces")
        return {
            key: convert(part, get_args(kind)[1], f"{name}.{key}") for key, part in value.items()
        }
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    other = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
    if other or (kind is float and not math.isfinite(value)):
        raise ValueError(f"{name} is {value!r}; it must be {WORDS[kind]}")
    return value


def read_value(text: str) -> Any:
    """What a text of a command line means: a value in TOML, True, False, a fraction, or a word."""
    if re.fullmatch(r"[+-]?(\d+\.|\.\d+)", text):  # which TOML lacks
        return float(text)
    if fraction := re.fullmatch(r"(\d+)/([1-9]\d*)", text):
        return int(fraction[1]) / int(fraction[2])
    written = text.lower() if text in ("True", "False") else text  # as papermill has them
    try:
        return tomllib.loads(f"value = {written}")["value"]
    except tomllib.TOMLDecodeError:
        if text.startswith("[") and text.endswith("]"):
            return [read_value(part.strip()) for part in text[1:-1].split(",") if part.strip()]
        return text
