"""What a report is made of, and the one check of it: a report's file and the events of a worker are others' words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

OUTCOMES = ("passed", "failed", "inconclusive", "unsupported", "unavailable")


class Wrong(Exception):
    """What is wrong, without the name of the file or process that it comes from."""


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
    "texts": lambda v: isinstance(v, list) and all(isinstance(one, str) for one in v),
    "yes or no": lambda v: isinstance(v, bool),
    "a number": _is_number,
    "a whole number": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "a count": lambda v: isinstance(v, int) and _is_number(v) and v >= 0,
    # JSON has no infinity: the report writes it as text.
    "a real number": lambda v: _is_number(v) or isinstance(v, float) or v in ("inf", "-inf", "nan"),
    "an outcome": lambda v: v in OUTCOMES,
}
_OR_NULL = " or null"

BACKEND = dict.fromkeys(("given", "name", "library", "dtype", "device"), "a text or null") | {
    "arithmetic": "an object or null",
    "dtypes": "texts or null",
    "gradients": "yes or no",
    "contract": "a count",
    "contract_said": "yes or no",
    "note": "a text or null",
}
# What a worker says of a property; a report adds its place and what excuses it.
RESULT = {
    "id": "a text", "outcome": "an outcome", "examples": "a count", "seconds": "a number",
    "rho": "a real number or null", "ulps": "an object or null", "unchecked": "a number", "message": "a text",
    "waived": "a text or null",
    "failure": "an object or null",
}  # fmt: skip
FAILURE = {
    "case": "a text or null", "script": "a text or null", "worst": "an object or null", "looks_like": "a text or null",
    "hint": "a text or null",
    "first_divergence": "an object or null", "growth": "a list or null",
}  # fmt: skip
_WORST = {"output": "a text", "index": "a list"} | dict.fromkeys(
    ("got", "expected", "bound", "rho", "ulps"), "a real number or null"
)
_FIRST = dict.fromkeys(("where", "op", "direction"), "a text or null") | {"rho": "a real number or null"}
_PLACE = {"where": "a text", "error": "a real number or null", "rho": "a real number or null"}


def check(where: str, value: Any, shape: Mapping[str, str], *, partial: bool = False) -> None:
    """Raise `Wrong` unless value is an object with the shape's keys, each of its kind; ``partial``: some may lack."""
    if not isinstance(value, dict):
        raise Wrong(f"{where} is not an object")
    lacks = sorted(set(shape) - set(value))
    if lacks and not partial:
        raise Wrong(f"{where} lacks {', '.join(lacks)}")
    for key, kind in shape.items():
        if key not in value or (value[key] is None and kind.endswith(_OR_NULL)):
            continue
        if not _KINDS[kind.removesuffix(_OR_NULL)](value[key]):
            raise Wrong(f'{where}: "{key}" is not {kind}')


def check_ulps(where: str, ulps: Mapping[str, Any] | None) -> None:
    """Raise `Wrong` unless it is a histogram: upper edge -> entries."""
    for edge, count in (ulps or {}).items():
        if not re.fullmatch(r">?[0-9]{1,9}(\.[0-9]{1,9})?", edge) or not _KINDS["a count"](count):
            raise Wrong(f'{where}: "ulps" does not count entries by their distance')


def check_failure(where: str, failure: Any) -> None:
    """Raise `Wrong` unless it is what is known of a failure, as far as it goes, or None."""
    if failure is None:
        return
    check(f"{where}, failure", failure, FAILURE, partial=True)
    for key, shape in (("worst", _WORST), ("first_divergence", _FIRST)):
        if failure.get(key) is not None:
            check(f"{where}, {key}", failure[key], shape)
    for place in failure.get("growth") or ():
        check(f"{where}, growth", place, _PLACE)
