"""The events that a worker sends, one JSON object a line, read as what they are: written by a process in which a
third party's code runs. What is not an event ends that worker, and is never a traceback here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refbert.errors import InputError, one_line, printable
from refbert.files.json import parse_json
from refbert_conformance.process import records
from refbert_conformance.process.records import BACKEND, Diagnosis, Row, Wrong, check

# Bytes of one event. The longest are a failure's case and the growth of its error: a few thousand.
LONGEST = 1 << 20

_ID = {"id": "a text"}
_EVENTS: Mapping[str, Mapping[str, str]] = {
    "unavailable": {"message": "a text"},
    "ready": {"backend": "an object", "versions": "an object", "offers": "a list"},
    "try": {"example": "a text"},
    "result": {"row": "an object"},
    "detail": _ID | {"message": "a text", "failure": "an object"},
    "note": {"message": "a text"},
    "over": _ID,
    "forked": {},
}


def read(line: bytes) -> dict[str, Any]:
    """The event, with nothing in it but what belongs there, and no text that steers a terminal.

    Raises `Wrong` for a line that is anything else.
    """
    try:
        event = parse_json(line, "the line")
    except InputError as error:
        raise Wrong(str(error)) from None
    kind = event.get("event") if isinstance(event, dict) else None
    if not isinstance(kind, str) or kind not in _EVENTS:
        raise Wrong("it is no event")
    check("it", event, _EVENTS[kind])
    if kind == "ready":
        check("the backend", event["backend"], BACKEND, optional=BACKEND)
        if not all(isinstance(value, str) for value in (*event["versions"].values(), *event["offers"])):
            raise Wrong("its versions and operations are not texts")
    known: dict[str, Any] = {name: _printable(event[name]) for name in ("event", *_EVENTS[kind])}
    for name, record in (("row", Row), ("failure", Diagnosis)):
        if name in known:
            known[name] = records.read(record, f"its {name}", known[name])
    if kind == "result":
        known["id"] = known["row"].id
    return known


def _printable(value: Any) -> Any:
    """Texts with what cannot be printed escaped; a case has lines, and keeps them."""
    if isinstance(value, str):
        return value if value.isprintable() else "\n".join(map(printable, value.split("\n")))
    if isinstance(value, dict):
        return {_printable(name): _printable(one) for name, one in value.items()}
    return [_printable(one) for one in value] if isinstance(value, list) else value


def excerpt(line: bytes) -> str:
    """The line as a message quotes it."""
    text = one_line(line[:200].decode("utf-8", "replace"))
    return f"{text[:80]}…" if len(text) > 80 else text
