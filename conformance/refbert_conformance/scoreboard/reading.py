"""A report read from its file, and refused in one line if it is anything else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from refbert.errors import InputError
from refbert.files.json import parse_json
from refbert.files.reading import read_bytes
from refbert_conformance.process.records import BACKEND, Wrong, check, errors_of, rows_of
from refbert_conformance.report import FORMAT
from refbert_conformance.scoreboard.runs import STATES, counts_of, state_of


def read(path: Path) -> dict[str, Any]:
    """The one report of a file of ``refbert conform --json``; raises `InputError` as `read_all`, or if it has more."""
    first, *others = read_all(path)
    if others:
        raise InputError(f"{path}: {len(others) + 1} reports, where one is expected")
    return first


def read_all(path: Path) -> list[dict[str, Any]]:
    """The reports that ``refbert conform --json`` wrote, of several dtypes or one; raises `InputError` for a file that
    is missing or anything else."""
    content = read_bytes(path)
    try:
        data = parse_json(content, path)
    except InputError as error:
        raise InputError(f"{error}; {_AGAIN}") from None
    reports = data if isinstance(data, list) and data else [data]
    for report in reports:
        if not isinstance(report, dict) or not str(report.get("format")).startswith(_FAMILY):
            raise InputError(f"{path}: not a report of refbert conform; {_AGAIN}")
        if report["format"] == _FORMERLY:
            report["effort"] = report.pop("profile", None)
        elif report["format"] != FORMAT:
            said = f'a report in format "{report["format"]}", but this refbert reads {FORMAT}'
            raise InputError(f"{path}: {said}; {_AGAIN}")
        try:
            _check_report(report)
        except Wrong as wrong:
            raise InputError(f"{path}: {wrong}; {_AGAIN}") from None
    return reports


_AGAIN = "write one with: refbert conform --json FILE"
_FORMERLY = "refbert-conformance/1"  # called the effort a profile
_FAMILY = FORMAT.partition("/")[0] + "/"


_REPORT = {
    "created": "a text", "backend": "an object", "versions": "an object", "effort": "a text", "seed": "a whole number",
    "only": "a text or null", "model": "a text or null", "seconds": "a number", "verdict": "a text",
    "score": "a number", "counts": "an object", "properties": "a list",
}  # fmt: skip
_SINCE = {
    "not_judged": "texts",
    "errors": "an object or null",
    "cost": "an object or null",
}  # what the first reports did not have


def _check_report(data: dict[str, Any]) -> None:
    check("the report", data, _REPORT | _SINCE, optional=_SINCE)
    check('"backend"', data["backend"], BACKEND, optional=BACKEND)
    check('"counts"', data["counts"], dict.fromkeys(STATES, "a count"), optional=STATES)
    if not data["properties"]:
        raise Wrong("the report has no properties")
    errors_of(data)
    rows = rows_of(data)
    twice = [id for id, count in Counter(row.id for row in rows).items() if count > 1]
    if twice:
        raise Wrong(f'property "{twice[0]}" comes twice')
    tally = Counter(map(state_of, rows))
    if any(counts_of(data)[state] != tally[state] for state in STATES):
        raise Wrong("its counts are not those of its properties")
