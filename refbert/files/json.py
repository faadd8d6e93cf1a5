"""Read JSON strictly, and write it: of NumPy's numbers too, in a file that is there whole or as it was before.

What is read was written by others: it may be nested without end, name a key twice, or hold numbers that no float has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from refbert.errors import InputError
from refbert.files.reading import SETTINGS, Kind, decode, read_bytes, shown
from refbert.files.writing import write_text

# The value of a key that an object has twice, where that is left to whoever uses it.
TWICE = object()


def read_json(path: str | Path, error: Kind = InputError, *, most: int = SETTINGS) -> Any:
    """Read a file's JSON; raises ``error`` as `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(path, error, most=most), path, error)


def read_object(path: str | Path, error: Kind = InputError, *, most: int = SETTINGS) -> dict[str, Any]:
    """Read the JSON of a file that must hold an object; raises ``error`` as `read_json`."""
    value = read_json(path, error, most=most)
    if not isinstance(value, dict):
        raise error(f"{path}: a JSON object is expected, not {shown(value)}")
    return value


def parse_json(text: str | bytes, where: object, error: Kind = InputError, *, strict: bool = True) -> Any:
    """Parse JSON as in RFC 8259, from ``where`` (a file, or a file and its line); raises ``error`` for anything else.

    Also refused, since no two readers agree on them: a key that an object has twice, numbers beyond a float's range,
    and nesting beyond what Python follows. ``strict=False``, for rows of data of which few columns are read, takes
    NaN, such numbers (as infinity), halves of surrogate pairs, and keys that are there twice (with the value `TWICE`).
    """
    if isinstance(text, bytes):
        text = decode(text, where, error)
    text = text.removeprefix("\ufeff")
    try:
        value = (_STRICT if strict else _LENIENT).decode(text)
    except json.JSONDecodeError as problem:
        place = f"line {problem.lineno}, column {problem.colno}" if "\n" in text else f"column {problem.colno}"
        raise error(f"{where}: not JSON ({problem.msg}, {place})") from None
    except RecursionError:
        raise error(f"{where}: not usable JSON (nested too deep)") from None
    except _Refused as problem:
        raise error(f"{where}: not usable JSON ({problem})") from None
    if strict and _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except RecursionError:  # writing takes more of the stack than reading did
            raise error(f"{where}: not usable JSON (nested too deep)") from None
        except UnicodeEncodeError:
            raise error(f"{where}: not usable JSON (half a surrogate pair, which is no character)") from None
    return value


def write_json(path: Path, value: object, error: Kind = InputError, *, indent: int = 2) -> None:
    """Write JSON as people read it, the whole file or none; raises ``error`` if that cannot be."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n", error)


def _no_form(x: object) -> object:
    raise TypeError(f"{type(x).__name__} has no JSON form")


def jsonable(x: Any, *, other: Callable[[Any], Any] = _no_form) -> Any:
    """Return ``x``, of dictionaries, lists, tuples, arrays, numbers and texts, as what JSON can hold.

    NumPy's numbers become Python's; NaN and infinity, which JSON does not know, texts. ``other`` converts anything
    else, which raises TypeError without it.
    """
    if isinstance(x, dict):
        return {name: jsonable(one, other=other) for name, one in x.items()}
    if isinstance(x, np.ndarray | np.generic):
        return jsonable(x.tolist(), other=other)
    if isinstance(x, list | tuple):
        return [jsonable(one, other=other) for one in x]
    if isinstance(x, float) and x - x != 0:
        return str(x)
    return x if isinstance(x, str | int | float | bool | None) else other(x)


class _Refused(Exception):
    """JSON that can be read, but not used."""


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_DIGITS = 308  # the largest float is 1.8e308


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise _Refused(f"a number of {len(digits):,} digits")
    return int(digits)


def _real(digits: str) -> float:
    number = float(digits)
    if number - number != 0:
        raise _Refused(f"the number {digits[:20]}, which no float holds")
    return number


def _constant(name: str) -> float:
    raise _Refused(f"{name}, which JSON does not have")


def _any_whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else float(digits)


def _twice(pairs: list[tuple[str, Any]]) -> list[str]:
    seen: set[str] = set()
    return [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        raise _Refused(f"{shown(_twice(pairs)[0])} is there twice")
    return out


def _any_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    return out if len(out) == len(pairs) else out | dict.fromkeys(_twice(pairs), TWICE)


_STRICT = json.JSONDecoder(parse_int=_whole, parse_float=_real, parse_constant=_constant, object_pairs_hook=_object)
_LENIENT = json.JSONDecoder(parse_int=_any_whole, object_pairs_hook=_any_object)
