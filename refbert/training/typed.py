"""Records whose values have the types that their fields say, whoever wrote them: the command line, Python, a file."""

from __future__ import annotations

import types
import typing
from typing import Any

from refbert.errors import InputError

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def check_types(record: Any) -> None:
    """Raise `InputError` that names the first field of a dataclass whose value is not of its type.

    A whole number is a number; true is not; a list is a tuple.
    """
    for name, kind in typing.get_type_hints(type(record)).items():
        value = getattr(record, name)
        if not _is(value, kind):
            raise InputError(f"{name} must be {_said(kind)}, not {value!r:.60}")


def _is(value: Any, kind: Any) -> bool:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return any(_is(value, one) for one in inner)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_is(item, inner[0]) for item in value)
    if kind is types.NoneType:
        return value is None
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, int | float if kind is float else kind)


def _said(kind: Any) -> str:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_said(one) for one in inner)
    if origin is tuple:
        return f"a list, each {_said(inner[0])}"
    return "none" if kind is types.NoneType else _WORDS.get(kind, kind.__name__)
