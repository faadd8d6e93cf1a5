"""What came of a property, as it goes from the worker to the supervisor, the report and the page: its fields, how JSON
holds them, and the one check of them, since a report's file and the events of a worker are others' words.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from refbert_conformance.engine.divergence import Divergence, Place
from refbert_conformance.engine.measure import Worst
from refbert_conformance.engine.runner import Result
from refbert_conformance.engine.suspicion import Errors

OUTCOMES = ("passed", "failed", "inconclusive", "unsupported", "unavailable")
Outcome = Annotated[str, "an outcome"]
Finite = Annotated[float, "a number"]
Histogram = Annotated[Mapping[str, int], "counts of entries by their distance"]


@dataclass(frozen=True)
class Diagnosis:
    """What is known of a failure: its smallest case, the script that shows it again, what it behaves like."""

    case: str | None = None
    script: str | None = None
    worst: Worst | None = None
    looks_like: str | None = None
    hint: str | None = None
    first_divergence: Divergence | None = None
    growth: Sequence[Place] | None = ()

    def clues(self) -> list[str]:
        """All but the case and the numbers, a line each."""
        named = {
            "first diverging operation": self.first_divergence, "behaves like": self.looks_like, "hint": self.hint,
            "reproduce": self.script and f"python {self.script}",
        }  # fmt: skip
        return [f"{name}: {value}" for name, value in named.items() if value]


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came of one property. ulps: upper edge -> entries. waived: why it may fail."""

    id: str
    level: str
    op: str
    says: str
    outcome: Outcome
    examples: int
    seconds: Finite
    rho: float | None
    ulps: Histogram | None
    unchecked: Finite
    message: str
    waived: str | None
    failure: Diagnosis | None


BACKEND = dict.fromkeys(("given", "name", "library", "dtype", "device"), "a text or null") | {
    "arithmetic": "an object or null",
    "dtypes": "texts or null",
    "gradients": "yes or no",
    "contract": "a count",
    "contract_said": "yes or no",
    "note": "a text or null",
}


def row_of(result: Result) -> Row:
    """The row of a result."""
    property, record, failure = result.property, result.record, None
    judged = record.judged + record.unchecked
    if result.outcome == "failed" and not result.stale:
        failure = Diagnosis(None if result.example is None else repr(result.example)[:2000], worst=result.worst)
    return Row(
        id=property.id, level=property.level, op=property.op, says=property.says, outcome=result.outcome,
        examples=result.examples, seconds=round(result.seconds, 4), rho=record.rho, ulps=dict(record.ulps) or None,
        unchecked=record.unchecked / judged if judged else 0.0, message=result.message, waived=result.waived,
        failure=failure,
    )  # fmt: skip


class Wrong(Exception):
    """What is wrong, without the name of the file or process that it comes from."""


def as_data(value: Any) -> Any:
    """A record as JSON holds it, which knows no NaN and no infinity: those become text."""
    if is_dataclass(value):
        return {one.name: as_data(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, tuple | list):
        return [as_data(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def rows_of(report: Mapping[str, Any]) -> list[Row]:
    """The rows of a report; raises `Wrong` for anything else."""
    return [read(Row, f"property {number}", row) for number, row in enumerate(report["properties"], start=1)]


def errors_of(report: Mapping[str, Any]) -> list[Errors]:
    """What the report says of errors together, nothing in those of before it was looked at; raises `Wrong`."""
    found = report.get("errors") or {"measured": []}
    check('"errors"', found, {"measured": "a list"})
    return [read(Errors, f"errors {number}", one) for number, one in enumerate(found["measured"], start=1)]


def read(kind: Any, where: str, data: Any) -> Any:
    """The record that JSON holds; raises `Wrong` where a field lacks that has no default, or is of another kind."""
    hints = _hints(kind)
    check(where, data, {name: said for name, (said, _) in hints.items()}, optional=_defaults(kind))
    return kind(**{name: _read(made, where, name, data[name]) for name, (_, made) in hints.items() if name in data})


def _read(made: Any, where: str, name: str, value: Any) -> Any:
    if value is None:
        return None
    here = f"{where.partition(',')[0]}, {name}"
    if get_origin(made) is Sequence:
        inner = get_args(made)[0]
        return tuple(read(inner, here, one) for one in value)
    if is_dataclass(made):
        return read(made, here, value)
    return float(value) if made is float else tuple(value) if get_origin(made) is tuple else value


@cache
def _hints(kind: Any) -> dict[str, tuple[str, Any]]:
    """Field -> (what it is, in words; its type without None)."""
    return {name: _described(hint) for name, hint in get_type_hints(kind, include_extras=True).items()}


@cache
def _defaults(kind: Any) -> frozenset[str]:
    return frozenset(one.name for one in fields(kind) if one.name in vars(kind))


def _described(hint: Any) -> tuple[str, Any]:
    if get_origin(hint) in (Union, types.UnionType):
        (inner,) = (one for one in get_args(hint) if one is not type(None))
        said, made = _described(inner)
        return said + _OR_NULL, made
    if get_origin(hint) is Annotated:
        made, said = get_args(hint)
        return said, made
    if get_origin(hint) in (Sequence, tuple):
        return "a list", hint
    return {str: "a text", int: "a count", float: "a real number"}.get(hint, "an object"), hint


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


_EDGE = re.compile(r">?[0-9]{1,9}(\.[0-9]{1,9})?")
_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "a text": lambda v: isinstance(v, str),
    "an object": lambda v: isinstance(v, dict),
    "a list": lambda v: isinstance(v, list),
    "counts": lambda v: isinstance(v, list) and all(map(_KINDS["a count"], v)),
    "texts": lambda v: isinstance(v, list) and all(isinstance(one, str) for one in v),
    "yes or no": lambda v: isinstance(v, bool),
    "a number": _is_number,
    "a whole number": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "a count": lambda v: isinstance(v, int) and _is_number(v) and v >= 0,
    # JSON has no infinity: the report writes it as text.
    "a real number": lambda v: _is_number(v) or isinstance(v, float) or v in ("inf", "-inf", "nan"),
    "an outcome": lambda v: v in OUTCOMES,
    "counts of entries by their distance": lambda v: (
        isinstance(v, dict) and all(map(_EDGE.fullmatch, v)) and all(map(_KINDS["a count"], v.values()))
    ),
}
_OR_NULL = " or null"


def check(where: str, value: Any, shape: Mapping[str, str], *, optional: Collection[str] = ()) -> None:
    """Raise `Wrong` unless value is an object with the shape's keys, each of its kind; ``optional`` ones may lack."""
    if not isinstance(value, dict):
        raise Wrong(f"{where} is not an object")
    lacks = sorted(set(shape).difference(value, optional))
    if lacks:
        raise Wrong(f"{where} lacks {', '.join(lacks)}")
    for key, kind in shape.items():
        if key not in value or (value[key] is None and kind.endswith(_OR_NULL)):
            continue
        if not _KINDS[kind.removesuffix(_OR_NULL)](value[key]):
            raise Wrong(f'{where}: "{key}" is not {kind}')


# Once, here: reading annotations compiles them, and what checks the words of others compiles nothing.
for _record in (Place, Divergence, Worst, Diagnosis, Row, Errors):
    _hints(_record)
