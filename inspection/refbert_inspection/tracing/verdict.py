"""What a comparison found, in sentences for the terminal and the page."""

from __future__ import annotations

from refbert_inspection.tracing.difference import Difference
from refbert_inspection.tracing.judging import Judgement


def verdict(found: Difference) -> list[str]:
    """What was found, the most telling first."""
    compared = f"{len(found.rows)} tensors compared"
    if found.within:
        worst = max(row.rho for row in found.rows)
        return [f"within the bounds: {compared}, the worst row at {number(worst)} of what rounding may do"]
    beyond = sum(row.rho > 1 for row in found.rows)
    lines = [
        f"beyond the bounds: {compared}, {beyond} beyond their tolerance; operations wrong by themselves: "
        f"{sum(map(len, found.wrong))}"
    ]
    if found.unlike:
        more = f" ({len(found.unlike) - 1} more)" if len(found.unlike) > 1 else ""
        lines.append(f"not compared, since its shape differs: {found.unlike[0]}{more}")
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
            why = ", and are asked for different things" if found.different else ""
            lines.append(f"every operation is right by itself: the sides do not compute the same thing{why}")
    return lines


def described(one: Judgement) -> str:
    """An op that is wrong, in one line."""
    said = f": {one.message}" if one.message else ""
    return f"{one.op} ({one.direction}) at {one.name}, ρ = {number(one.rho)}{said}"


def number(x: float) -> str:
    """Three digits."""
    return "0" if x == 0 else f"{x:.3g}"
