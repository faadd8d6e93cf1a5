"""What the templates draw and say of a report's numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from refbert.pages import LogAxis, number
from refbert_conformance.engine.divergence import Place
from refbert_conformance.engine.measure import ULPS_LABELS
from refbert_conformance.engine.suspicion import Errors
from refbert_conformance.scoreboard.runs import STATES
from refbert_conformance.tolerances.functions import functions_said

WIDTH = 168  # of a plot of ρ, with a margin of 8 at both ends
RHO = LogAxis(-4, 2, 8, WIDTH - 8)


def shares(counts: Mapping[str, int]) -> list[tuple[str, float, float]]:
    """(outcome, where it begins, its width) of a bar of 100."""
    total, x, parts = sum(counts.values()) or 1, 0.0, []
    for state in STATES:
        if counts[state]:
            width = 100 * counts[state] / total
            parts.append((state, round(x, 3), round(width, 3)))
            x += width
    return parts


def ulps(histogram: Mapping[str, int]) -> dict[str, Any]:
    """Bars for how many entries lie how many ULPs off: (x, height), on a log scale, the same edges everywhere."""
    edges = sorted({*ULPS_LABELS, *histogram}, key=lambda edge: (float(edge.lstrip(">")), edge.startswith(">"), edge))
    counts = [histogram.get(edge, 0) for edge in edges]
    highest = math.log1p(max(counts)) or 1.0
    bars = [(6 * i, round(max(1.0, 15 * math.log1p(n) / highest), 1)) for i, n in enumerate(counts) if n]
    label = "ULPs off: " + "; ".join(f"{edge}: {n}" for edge, n in zip(edges, counts, strict=True) if n)
    return {"label": label, "width": 6 * len(edges), "bars": bars}


def errors(one: Errors) -> dict[str, Any]:
    """Bars for how many entries have which error: (x, height)."""
    highest = max(*one.bars, 1)
    bars = [(6 * i, max(1.0, round(31 * n / highest, 1))) for i, n in enumerate(one.bars) if n]
    label = (
        f"entries by their error, in equal parts from {-one.edge:g} to {one.edge:g}: {', '.join(map(str, one.bars))}"
    )
    return {"label": label, "width": 6 * len(one.bars), "bars": bars, "edge": one.edge}


def growth(places: Sequence[Place]) -> dict[str, Any]:
    """Error by place, from the input on: a line down the page, log axis."""
    by_rho = all(place.rho is not None for place in places)
    values = [place.rho if by_rho else place.error for place in places]
    axis = LogAxis.around([value for value in values if value is not None] + [1.0] * by_rho, 198, 422)
    named = [(place.where, value, 20 * i + 10) for i, (place, value) in enumerate(zip(places, values, strict=True))]
    what = "ρ" if by_rho else "relative distance from the reference"
    return {
        "axis": axis, "one": axis.at(1.0) if by_rho else None, "width": 490, "bottom": 20 * len(places),
        "points": [(axis.at(value), y) for _, value, y in named if value is not None], "places": named, "what": what,
        "label": f"{what}, place by place: " + "; ".join(f"{where}: {number(value, 2)}" for where, value, _ in named),
    }  # fmt: skip


def arithmetic(declared: Mapping[str, Any] | None) -> list[tuple[str, Any, int | None]]:
    """(word, value, n if the value is 2⁻ⁿ) of what a backend declares; what is off or nothing is left out."""
    found = []
    for name, value in (declared or {}).items():
        if name == "functions":
            value = functions_said(value)
        if value in (None, False, 0, "", [], {}) or isinstance(value, Mapping):
            continue
        power = None
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        elif isinstance(value, float):
            mantissa, exponent = math.frexp(value)
            power = 1 - exponent if mantissa == 0.5 else None
            value = number(value)
        found.append((name.removeprefix("u_").replace("_", " "), "" if value is True else value, power))
    return found
