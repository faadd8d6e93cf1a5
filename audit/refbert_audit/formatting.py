"""Measured values as text, for tables and pages alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refbert_audit.findings import SAME, Value
from refbert_audit.outcomes import Outcome

# What it means that a claim is inferred.
INFERRED = "no document says it in so many words; it follows from what one says, or readers take it for granted"


def show(x: Any) -> str:
    """A value for a person to read: 109,482,240, 4.73e-04, yes, [12, 768, 12]."""
    if isinstance(x, bool):
        return "yes" if x else "no"
    if isinstance(x, int):
        return f"{x:,}"
    if isinstance(x, float):
        return f"{x:,.0f}" if abs(x) < 1e15 and x == round(x) else f"{x:.6g}"
    if isinstance(x, list):
        return "[" + ", ".join(show(one) for one in x) + "]"
    return str(x)


def show_measured(v: Value) -> str:
    """What was measured; a difference of rounding alone is shown with two digits."""
    if isinstance(v.measured, float) and v.within and v.expected == 0 and v.measured != 0:
        return f"{v.measured:.2g}"
    return show(v.measured)


def show_expected(v: Value) -> str:
    """What is on record, with its bound."""
    return f"{show(v.expected)} ± {v.within:.2g}" if v.within else show(v.expected)


def show_claimed(v: Value) -> str:
    """What the document says, where it is something else than what is on record."""
    return "" if v.claimed is SAME else show(v.claimed)


def parts(numbers: Mapping[str, int]) -> str:
    """Counts in words: "29: 4 agrees, 13 deviates"; what there is none of is left out."""
    found = {verdict: n for verdict, n in numbers.items() if n and verdict != "not as recorded"}
    return f"{sum(found.values()):3}: " + ", ".join(f"{n} {verdict}" for verdict, n in found.items())


def summary(outcome: Outcome) -> str:
    """A claim's result in one line: the value that decides, or what is missing, or the error."""
    found = outcome.finding
    if found is None:
        return f"needs {outcome.lacking}" if outcome.lacking else outcome.error
    if found.missing:
        return f"needs {found.missing}"
    failing = [v for v in found.values if not v.holds]
    contradicted = [v for v in found.values if not v.as_claimed]
    v = (failing or contradicted or list(found.values))[0]
    text = f"{v.name}: {show_measured(v)}"
    if failing:
        return f"{text}, expected {show_expected(v)}"
    return f"{text}, not {show(v.claimed)}" if contradicted and v.claimed is not SAME else text
