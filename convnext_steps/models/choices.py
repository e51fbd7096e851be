"""Fields of a dataclass that may hold one of a few values, which their type names."""

from dataclasses import fields
from typing import TYPE_CHECKING, Literal, get_args, get_origin

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def check_choices(values: "DataclassInstance") -> None:
    """Compare the fields whose type is a `Literal` with what it allows.

    Raises:
        ValueError: a field holds another value.
    """
    for field in fields(values):
        if get_origin(field.type) is Literal:
            value, allowed = getattr(values, field.name), get_args(field.type)
            if value not in allowed:
                raise ValueError(f"{field.name} is {value!r}; it may be one of {allowed}")
