"""What is shown: the reports as runs side by side, and each property as all of them together know it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from refbert_conformance.engine.property import LEVELS
from refbert_conformance.process.records import OUTCOMES, Row, rows_of

Report = Mapping[str, Any]

STATES = (*OUTCOMES, "waived")
SERIES = 8  # colours, and shapes, that tell runs apart


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

    @property
    def colour(self) -> int:
        """Its series' colour."""
        return self.number % SERIES

    @property
    def shape(self) -> int:
        """Its series' shape; where colours come again, it is another one."""
        return (self.number + self.number // SERIES) % SERIES


def runs_of(reports: Sequence[Report]) -> list[Run]:
    """The reports numbered and named, no two alike."""
    keys = [identity(report) for report in reports]
    total, seen = Counter(keys), Counter[tuple[str, ...]]()
    runs = []
    for number, (report, key) in enumerate(zip(reports, keys, strict=True)):
        seen[key] += 1
        label = " ".join(word for word in key if word) + (f" #{seen[key]}" if total[key] > 1 else "")
        runs.append(Run(report, number, key[0], label, {row.id: row for row in rows_of(report)}))
    return runs


def identity(report: Report) -> tuple[str, ...]:
    """What makes two reports ones of the same thing: backend, dtype, device."""
    backend = report["backend"]
    name = backend.get("given") or backend.get("name") or "unnamed backend"
    return (str(name), str(backend.get("dtype") or ""), str(backend.get("device") or ""))


def state_of(row: Row) -> str:
    """The outcome, or that it is waived."""
    return "waived" if row.waived else str(row.outcome)


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

    @property
    def rest(self) -> str:
        """The id without level and op."""
        return self.id.removeprefix(f"{self.level}/").removeprefix(self.op).lstrip("/")

    @property
    def kind(self) -> str:
        """What the filter goes by: "bad", "lacking" or "clean"."""
        states = {state_of(row) if row else "passed" for row in self.rows}
        return "bad" if states & {"failed", "waived"} else "clean" if states == {"passed"} else "lacking"

    @property
    def measured(self) -> list[tuple[int, float]]:
        """(number of a run, its ρ)."""
        return [(number, row.rho) for number, row in enumerate(self.rows) if row and row.rho is not None]

    @property
    def tried(self) -> bool:
        """Whether a run has tried it."""
        return any(row.outcome in ("passed", "failed") for row in self.rows if row)

    def failure_of(self, run: Run) -> str:
        """The anchor of its failure."""
        return f"failure-{run.number + 1}-{self.slug}"


@dataclass(frozen=True)
class Level:
    """A level and its properties, those of one op together."""

    name: str
    lines: tuple[Line, ...]
    by_run: tuple[tuple[Mapping[str, int], float | None], ...]

    @property
    def slug(self) -> str:
        """What names its anchor."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-") or "other"

    @property
    def title(self) -> str:
        """Its heading; a level that this refbert does not know is called as the report calls it."""
        return self.name.capitalize() if self.name in LEVELS else self.name

    @property
    def by_op(self) -> list[tuple[str, list[Line]]]:
        """Its properties, op by op."""
        return [(op, list(lines)) for op, lines in groupby(self.lines, key=lambda line: line.op)]


def levels_of(runs: Sequence[Run]) -> list[Level]:
    """The levels; properties of one op stand together, otherwise in the order of the reports."""
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
        line = Line(id, row.level, row.op, row.says, slug, rows)
        by_level.setdefault(line.level, {}).setdefault(line.op, []).append(line)
    levels = {level: [line for op in ops.values() for line in op] for level, ops in by_level.items() if ops}
    return [
        Level(name, tuple(lines), tuple(_counted([line.rows[run.number] for line in lines]) for run in runs))
        for name, lines in levels.items()
    ]


def _counted(rows: Sequence[Row | None]) -> tuple[Mapping[str, int], float | None]:
    """Outcomes and the worst ρ; None if nothing has one."""
    here = [row for row in rows if row]
    rhos = [row.rho for row in here if row.rho is not None]
    worst = math.nan if any(map(math.isnan, rhos)) else max(rhos, default=None)
    return Counter(state_of(row) for row in here), worst
