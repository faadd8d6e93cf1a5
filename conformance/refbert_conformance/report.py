"""The verdict as data: one JSON document per run (docs/conformance.md describes it)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from refbert.backend import REQUIRED, TRAINING
from refbert_conformance.cost import cost
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.suspicion import CHANCE
from refbert_conformance.process.records import OUTCOMES, Row, as_data
from refbert_conformance.process.supervisor import Run

FORMAT = "refbert-conformance/2"
# By verdict; the worst of several is the first here.
STATUS = {"not conformant": 1, "inconclusive": 3, "conformant for inference": 0, "conformant": 0}


def assemble(
    run: Run, properties: Sequence[Property], waived: Mapping[str, str], *, effort: str, seed: int, only: str | None,
    model: str | None, seconds: float, not_judged: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """The report. ``not_judged``: dtypes that the backend offers too.

    A waived property must fail: one that passes is turned into a failure, which nothing waives.
    """
    rows = [_row(p, run.results[p.id], waived.get(p.id)) for p in properties]
    counts = Counter("waived" if row.waived else row.outcome for row in rows)
    inference = run.backend.get("gradients") is False
    # Optional methods may be left out, required ones not.
    lacks = set(REQUIRED).difference(run.offers, TRAINING if inference else ())
    if counts["failed"] or any(lacks & set(p.needs) for p in properties):
        verdict = "not conformant"
    elif counts["inconclusive"]:
        verdict = "inconclusive"
    else:
        verdict = ("conformant for inference" if inference else "conformant") if counts["passed"] else "not conformant"
    return {
        "format": FORMAT, "created": datetime.now(UTC).isoformat(timespec="seconds"), "backend": run.backend,
        "not_judged": list(not_judged), "versions": run.versions, "effort": effort, "seed": seed, "only": only,
        "model": model, "seconds": round(seconds, 2), "verdict": verdict,
        "score": round(counts["passed"] / len(rows), 4) if rows else 0.0,
        "counts": {name: counts[name] for name in (*OUTCOMES, "waived")}, "properties": as_data(rows),
        "cost": as_cost(run.backend),
        "errors": None if run.errors is None else {
            "chance": CHANCE, "measured": as_data(run.errors.errors), "not_measured": run.errors.not_measured,
        },
    }  # fmt: skip


def as_cost(backend: Mapping[str, Any]) -> dict[str, int] | None:
    """What the backend's declaration costs, as `refbert_conformance.cost` has it."""
    found = cost(backend["dtype"], backend["arithmetic"]["declared"])
    return None if found is None else vars(found)


def _row(p: Property, row: Row, reason: str | None) -> Row:
    row = replace(row, level=p.level, op=p.op, says=p.says)
    if reason is not None and row.outcome == "passed":
        said = f"waived, but it passes: take the waiver out ({reason})"
        return replace(row, outcome="failed", message=said, failure=None)
    return replace(row, waived=reason) if reason is not None and row.outcome == "failed" else row
