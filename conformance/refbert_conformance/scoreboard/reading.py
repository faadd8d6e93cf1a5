"""A report read from its file, and refused in one line if it is anything else."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from refbert.errors import InputError
from refbert_conformance.report import FORMAT, OUTCOMES
from refbert_conformance.scoreboard.runs import STATES, Row, state_of


def read(path: Path) -> dict[str, Any]:
    """A report of ``refbert conform --json``; raises `InputError` for a file that is missing or anything else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); {_AGAIN}") from None
    if not isinstance(data, dict) or not str(data.get("format")).startswith(_FAMILY):
        raise InputError(f"{path}: not a report of refbert conform; {_AGAIN}")
    if data["format"] != FORMAT:
        raise InputError(f'{path}: a report in format "{data["format"]}", but this refbert reads {FORMAT}; {_AGAIN}')
    try:
        _check_report(data)
    except _Wrong as wrong:
        raise InputError(f"{path}: {wrong}; {_AGAIN}") from None
    return data


_AGAIN = "write one with: refbert conform --json FILE"
_FAMILY = FORMAT.partition("/")[0] + "/"


class _Wrong(Exception):
    """What is wrong with a report, without the file's name."""


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "a text": lambda v: isinstance(v, str),
    "an object": lambda v: isinstance(v, dict),
    "a list": lambda v: isinstance(v, list),
    "a number": _is_number,
    "a whole number": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "a count": lambda v: isinstance(v, int) and _is_number(v) and v >= 0,
    # JSON has no infinity: the report writes it as text.
    "a real number": lambda v: _is_number(v) or isinstance(v, float) or v in ("inf", "-inf", "nan"),
    "an outcome": lambda v: v in OUTCOMES,
}
_OR_NULL = " or null"


_REPORT = {
    "created": "a text", "backend": "an object", "versions": "an object", "profile": "a text",
    "seed": "a whole number", "only": "a text or null", "model": "a text or null", "seconds": "a number",
    "verdict": "a text", "score": "a number", "counts": "an object", "properties": "a list",
}  # fmt: skip
_BACKEND = dict.fromkeys(("given", "name", "library", "dtype", "device"), "a text or null") | {
    "arithmetic": "an object or null"
}
_PROPERTY = {
    "id": "a text", "level": "a text", "op": "a text", "says": "a text", "outcome": "an outcome",
    "waived": "a text or null", "examples": "a count", "seconds": "a number", "rho": "a real number or null",
    "ulps": "an object or null",
    "unjudged": "a number", "message": "a text", "failure": "an object or null",
}  # fmt: skip
_FAILURE = {
    "case": "a text or null", "script": "a text or null", "worst": "an object or null", "looks_like": "a text or null",
    "first_divergence": "an object or null", "growth": "a list or null",
}  # fmt: skip
_WORST = {"output": "a text", "index": "a list"} | dict.fromkeys(
    ("got", "expected", "bound", "rho", "ulps"), "a real number or null"
)
_FIRST = dict.fromkeys(("where", "op", "direction"), "a text or null") | {"rho": "a real number or null"}
_PLACE = {"where": "a text", "error": "a real number or null", "rho": "a real number or null"}


def _check(where: str, value: Any, shape: Mapping[str, str], *, partial: bool = False) -> None:
    """Raise `_Wrong` unless value is an object with the shape's keys, each of its kind; ``partial``: some may lack."""
    if not isinstance(value, dict):
        raise _Wrong(f"{where} is not an object")
    lacks = sorted(set(shape) - set(value))
    if lacks and not partial:
        raise _Wrong(f"{where} lacks {', '.join(lacks)}")
    for key, kind in shape.items():
        if key not in value or (value[key] is None and kind.endswith(_OR_NULL)):
            continue
        if not _KINDS[kind.removesuffix(_OR_NULL)](value[key]):
            raise _Wrong(f'{where}: "{key}" is not {kind}')


def _check_report(data: dict[str, Any]) -> None:
    _check("the report", data, _REPORT)
    _check('"backend"', data["backend"], _BACKEND, partial=True)
    _check('"counts"', data["counts"], dict.fromkeys(STATES, "a count"))
    if not data["properties"]:
        raise _Wrong("the report has no properties")
    seen: set[str] = set()
    for number, row in enumerate(data["properties"], start=1):
        _check(f"property {number}", row, _PROPERTY)
        where = f'property "{row["id"]}"'
        if row["id"] in seen:
            raise _Wrong(f"{where} comes twice")
        seen.add(row["id"])
        _check_details(where, row)
    tally = Counter(state_of(row) for row in data["properties"])
    if any(data["counts"][state] != tally[state] for state in STATES):
        raise _Wrong("its counts are not those of its properties")


def _check_details(where: str, row: Row) -> None:
    for edge, count in (row["ulps"] or {}).items():
        if not re.fullmatch(r">?[0-9]{1,9}(\.[0-9]{1,9})?", edge) or not _KINDS["a count"](count):
            raise _Wrong(f'{where}: "ulps" does not count entries by their distance')
    failure = row["failure"]
    if failure is None:
        return
    _check(f"{where}, failure", failure, _FAILURE, partial=True)
    for key, shape in (("worst", _WORST), ("first_divergence", _FIRST)):
        if failure.get(key) is not None:
            _check(f"{where}, {key}", failure[key], shape)
    for place in failure.get("growth") or ():
        _check(f"{where}, growth", place, _PLACE)
