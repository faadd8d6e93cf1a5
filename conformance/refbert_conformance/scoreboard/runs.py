"""What is shown: the reports as runs side by side, and each property as all of them together know it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refbert_conformance.engine.property import LEVELS
from refbert_conformance.process.records import OUTCOMES

Report = Mapping[str, Any]
Row = Mapping[str, Any]

STATES = (*OUTCOMES, "waived")


@dataclass(frozen=True)
class Run:
    """One report and its place on the page. number: 0, 1, …; name: the backend; label: unlike every other run's."""

    report: Report
    number: int
    name: str
    label: str
    rows: Mapping[str, Row]

    @property
    def kind(self) -> str:
        """The label without the name."""
        return self.label.removeprefix(self.name).strip()


def runs_of(reports: Sequence[Report]) -> list[Run]:
    """The reports numbered and named, no two alike."""
    keys = [identity(report) for report in reports]
    total, seen = Counter(keys), Counter[tuple[str, ...]]()
    runs = []
    for number, (report, key) in enumerate(zip(reports, keys, strict=True)):
        seen[key] += 1
        label = " ".join(word for word in key if word) + (f" #{seen[key]}" if total[key] > 1 else "")
        runs.append(Run(report, number, key[0], label, {row["id"]: row for row in report["properties"]}))
    return runs


def identity(report: Report) -> tuple[str, ...]:
    """What makes two reports ones of the same thing: backend, dtype, device."""
    backend = report["backend"]
    name = backend.get("given") or backend.get("name") or "unnamed backend"
    return (str(name), str(backend.get("dtype") or ""), str(backend.get("device") or ""))


def state_of(row: Row) -> str:
    """The outcome, or that it is waived."""
    return "waived" if row["waived"] else str(row["outcome"])


def counts_of(report: Report) -> Mapping[str, int]:
    """How many properties are in each state; early reports know nothing of some, and have none in them."""
    return Counter(report["counts"])


@dataclass(frozen=True)
class Line:
    """A property, as all runs together know it. slug: names its anchor; rows: by run, None where it was not asked."""

    id: str
    level: str
    op: str
    says: str
    slug: str
    rows: tuple[Row | None, ...]


def lines_of(runs: Sequence[Run]) -> dict[str, list[Line]]:
    """level -> its properties, those of one op together, otherwise in the order of the reports."""
    first = {id: row for run in reversed(runs) for id, row in run.rows.items()}
    slugs: dict[str, str] = {}
    by_level: dict[str, dict[str, list[Line]]] = {level: {} for level in LEVELS}
    for id in dict.fromkeys(id for run in runs for id in run.rows):
        row = first[id]
        slug = base = re.sub(r"[^a-z0-9_./]+", "-", id.lower()).strip("-") or "property"
        while slug in slugs:
            slug = f"{base}-{len(slugs)}"
        slugs[slug] = id
        rows = tuple(run.rows.get(id) for run in runs)
        line = Line(id, row["level"], row["op"], row["says"], slug, rows)
        by_level.setdefault(line.level, {}).setdefault(line.op, []).append(line)
    return {level: [line for op in ops.values() for line in op] for level, ops in by_level.items() if ops}
