"""What changed since earlier reports of the same backend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from refbert.pages.numbers import moment
from refbert_conformance.process.records import Row, rows_of
from refbert_conformance.scoreboard.runs import Report, Run, identity, state_of

DOUBLED = "ρ more than doubled"
KINDS = ("newly failing", "newly passing", "other outcome", DOUBLED, "added", "gone")
_GROWN = 2.0

# (kind, id, before, after): outcomes, ρs where it has doubled, None where it was not there.
Change = tuple[str, str, str | float | None, str | float | None]


def trend(runs: Sequence[Run], earlier: Sequence[Report]) -> list[tuple[Run, list[Report], list[Change]]]:
    """Each run, the earlier reports of the same backend, dtype and device, and what changed since the newest."""
    found = []
    for run in runs:
        past = sorted((e for e in earlier if _same(e, run.report)), key=lambda e: moment(e["created"]))
        changes = _changes(run.rows, {row.id: row for row in rows_of(past[-1])}) if past else []
        found.append((run, past, changes))
    return found


def alone(runs: Sequence[Run], earlier: Sequence[Report]) -> list[Report]:
    """Earlier reports that belong to no run."""
    return [e for e in earlier if not any(_same(e, run.report) for run in runs)]


def unlike(now: Report, was: Report) -> list[str]:
    """What was asked for differently."""
    return [key for key in ("effort", "seed", "only", "model") if now[key] != was[key]]


def _same(a: Report, b: Report) -> bool:
    names = [{r["backend"].get(key) for key in ("given", "name")} - {None, ""} for r in (a, b)]
    return identity(a)[1:] == identity(b)[1:] and (identity(a)[0] == identity(b)[0] or bool(names[0] & names[1]))


def _changes(now: Mapping[str, Row], was: Mapping[str, Row]) -> list[Change]:
    found: list[Change] = []
    for id, row in now.items():
        if id not in was:
            found.append(("added", id, None, state_of(row)))
            continue
        before, after = state_of(was[id]), state_of(row)
        if before != after:
            kind = {"failed": "newly failing", "passed": "newly passing"}.get(after, "other outcome")
            found.append((kind, id, before, after))
        a, b = was[id].rho, row.rho
        if a is not None and b is not None and not math.isnan(a) and (b > _GROWN * a or math.isnan(b)):
            found.append((DOUBLED, id, a, b))
    found += [("gone", id, state_of(row), None) for id, row in was.items() if id not in now]
    return sorted(found, key=lambda change: KINDS.index(change[0]))
