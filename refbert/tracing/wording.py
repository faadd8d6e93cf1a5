"""A comparison in words, the same on the terminal and on the page."""

from __future__ import annotations

from refbert.tracing.difference import Difference
from refbert.tracing.judging import Judgement


def verdict(found: Difference) -> list[str]:
    """What was found, the most telling first."""
    if found.within:
        worst = max((row.rho for row in found.rows), default=0.0)
        return [
            f"within the bounds: {len(found.rows)} tensors, the worst row at {number(worst)} of what rounding may do"
        ]
    lines = []
    for side, wrong in zip(found.sides, found.wrong, strict=True):
        if wrong:
            more = f" ({len(wrong) - 1} more)" if len(wrong) > 1 else ""
            lines.append(f"{side.label}: first wrong operation: {described(wrong[0])}{more}")
    row = found.parted
    if row is not None:
        lines.append(
            f"first tensor beyond its tolerance: {row.name} ({row.op}, {row.direction}), ρ = {number(row.rho)}, "
            f"distance {number(row.distance)}"
        )
        if not any(found.wrong):
            why = f" ({'; '.join(found.different)})" if found.different else ""
            lines.append(f"every operation is right by itself: the sides do not compute the same thing{why}")
    return lines


def described(one: Judgement) -> str:
    """An op that is wrong, in one line."""
    said = f": {one.message}" if one.message else ""
    return f"{one.op} ({one.direction}) at {one.name}, ρ = {number(one.rho)}{said}"


def number(x: float) -> str:
    """Three digits."""
    return "0" if x == 0 else f"{x:.3g}"
