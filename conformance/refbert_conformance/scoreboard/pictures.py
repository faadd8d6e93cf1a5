"""Inline SVG: signs and marks, ρ on its axis, ULPs, shares of outcomes, and how an error grows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from refbert_conformance.engine.measure import ULPS
from refbert_conformance.scoreboard.html import Html, join, soft, tag
from refbert_conformance.scoreboard.numbers import real, show
from refbert_conformance.scoreboard.runs import STATES, Row, Run

# The ρ axis: from 10⁻⁴ to 10²; what lies outside is drawn at the edge.
_DECADES = (-4, 2)
_PLOT, _PAD = 168, 8  # its width and the margin at both ends, in pixels


# Series of a plot differ in colour and in shape.
_COLOURS = 8
_SHAPES = (
    "M4 0A4 4 0 1 1-4 0A4 4 0 1 1 4 0Z", "M-3.5-3.5H3.5V3.5H-3.5Z", "M0-4.6L4.4 3.4H-4.4Z", "M0-5L5 0L0 5L-5 0Z",
    "M0 4.6L4.4-3.4H-4.4Z", "M-1.5-4.5H1.5V-1.5H4.5V1.5H1.5V4.5H-1.5V1.5H-4.5V-1.5H-1.5Z",
    "M-4.5-2.5L-2.5-4.5L0-2L2.5-4.5L4.5-2.5L2 0L4.5 2.5L2.5 4.5L0 2L-2.5 4.5L-4.5 2.5L-2 0Z",
    "M0-4.6L4-2.3V2.3L0 4.6L-4 2.3V-2.3Z",
)  # fmt: skip
# Outcomes differ in colour, in sign and in word.
_SIGNS = {
    "passed": "M-4.5.5L-1.5 3.5L4.5-3.5", "failed": "M-3.5-3.5L3.5 3.5M3.5-3.5L-3.5 3.5", "unsupported": "M-4 0H4",
    "inconclusive": "M-4.5 1.5C-3-3-1.5-2.5 0 0S3 3 4.5-1.5",
    "unavailable": "M-2.6-2.2C-2.6-5.6 2.8-5.4 2.6-2.2C2.5-.6 0-.4 0 1.6M0 4V4.6", "waived": "M-3 5V-4.5H4L2-2L4 .5H-3",
}  # fmt: skip


def symbols() -> Html:
    """Drawn once, used everywhere."""
    shapes = [tag("symbol", tag("path", d=d), id=f"mark-{i}", viewBox="-6 -6 12 12") for i, d in enumerate(_SHAPES)]
    signs = [tag("symbol", tag("path", d=d), id=f"sign-{state}", viewBox="-6 -6 12 12") for state, d in _SIGNS.items()]
    return tag("svg", *shapes, *signs, class_="unseen", aria_hidden="true")


def sign(state: str) -> Html:
    """An outcome's sign."""
    return tag(
        "svg", tag("use", href=f"#sign-{state}"), class_=f"sign {state}", viewBox="0 0 12 12", aria_hidden="true"
    )


def mark(run: Run) -> Html:
    """A run's shape in its colour."""
    # Its own path: browsers may print no <use> in the head of a table that they repeat on every page.
    path = tag("path", d=_SHAPES[_shape(run)])
    return tag("svg", path, class_=f"mark {_colour(run)}", viewBox="-6 -6 12 12", aria_hidden="true")


def _shape(run: Run) -> int:
    return (run.number + run.number // _COLOURS) % len(_SHAPES)


def _colour(run: Run) -> str:
    return f"c{run.number % _COLOURS}"


def _x(value: float, low: int = _DECADES[0], high: int = _DECADES[1], width: int = _PLOT) -> float:
    """Where a value lies on the log axis; outside it, at the edge."""
    if math.isnan(value):
        value = math.inf
    at = low if value <= 0 else high if math.isinf(value) else min(max(math.log10(value), low), high)
    return round(_PAD + (at - low) / (high - low) * (width - 2 * _PAD), 1)


def _grid(height: int) -> Html:
    decades = "".join(f"M{_x(10.0**d):g} 0V{height}" for d in range(_DECADES[0], _DECADES[1] + 1) if d)
    return join([tag("path", d=decades, class_="grid"), tag("path", d=f"M{_x(1.0):g} 0V{height}", class_="one")])


def axis() -> Html:
    """The scale above the plots."""
    texts = [
        tag("text", "10", tag("tspan", str(d).replace("-", "−"), dy="-4", class_="power"), x=_x(10.0**d), y=13)
        for d in range(_DECADES[0], _DECADES[1], 2)
        if d
    ]
    texts += [tag("text", "1", x=_x(1.0), y=13, class_="unit"), tag("text", "100", x=_x(100.0), y=13)]
    return tag("svg", *texts, class_="axis", width=_PLOT, height=16, aria_hidden="true")


def plot(runs: Sequence[Run], rows: Sequence[Row | None]) -> Html:
    """ρ of every run, each on a lane of its own."""
    found = [(run, rho) for run, row in zip(runs, rows, strict=True) if row and (rho := real(row["rho"])) is not None]
    if not found:
        return soft("exact") if any(row and row["outcome"] in ("passed", "failed") for row in rows) else soft("–")
    lane = 10
    height = lane * max(len(found), 2)
    top = (height - lane * len(found)) / 2
    marks = [
        tag(
            "use", tag("title", f"{run.label}: ρ = {show(rho)}"), href=f"#mark-{_shape(run)}", class_=_colour(run),
            x=_x(rho) - 5, y=top + lane * i, width=lane, height=lane,
        )
        for i, (run, rho) in enumerate(found)
    ]  # fmt: skip
    label = "; ".join(f"{run.label}: ρ = {show(rho)}" for run, rho in found)
    return tag("svg", _grid(height), *marks, class_="plot", width=_PLOT, height=height, role="img", aria_label=label)


def ulps(histogram: Mapping[str, int] | None) -> Html | None:
    """How many entries lie how many ULPs off: bars on a log scale, the same edges everywhere."""
    if not histogram:
        return None
    edges = [*(f"{edge:g}" for edge in ULPS), f">{ULPS[-1]:g}"]
    edges = sorted({*edges, *histogram}, key=lambda edge: (float(edge.lstrip(">")), edge.startswith(">"), edge))
    highest = math.log1p(max(histogram.values())) or 1.0
    bars = ""
    for place, edge in enumerate(edges):
        count = histogram.get(edge, 0)
        if count:
            size = max(1.0, 15 * math.log1p(count) / highest)
            bars += f"M{6 * place} 16v-{size:.1f}h5v{size:.1f}z"
    label = "ULPs off: " + "; ".join(f"{edge}: {histogram[edge]}" for edge in edges if histogram.get(edge))
    width = 6 * len(edges)
    base = tag("path", d=f"M0 16.5H{width}", class_="base")
    drawn = tag("path", d=bars, class_="bars")
    return tag(
        "svg", tag("title", label), base, drawn, class_="ulps", width=width, height=17, role="img", aria_label=label
    )


def shares(counts: Mapping[str, int]) -> Html:
    """The outcomes as one bar; its words stand beside it."""
    total, x, parts = sum(counts.values()) or 1, 0.0, []
    for state in STATES:
        if counts[state]:
            width = 100 * counts[state] / total
            parts.append(tag("rect", x=f"{x:.3f}", width=f"{width:.3f}", height=6, class_=state))
            x += width
    return tag("svg", *parts, class_="shares", viewBox="0 0 100 6", preserveAspectRatio="none", aria_hidden="true")


def growth(places: Sequence[Mapping[str, Any]]) -> Html:
    """Error by place, from the input on: a line down the page, log axis."""
    by_rho = all(real(place["rho"]) is not None for place in places)
    values = [real(place["rho"] if by_rho else place["error"]) for place in places]
    ends = [math.log10(v) for v in values if v is not None and 0 < v < math.inf] + [0.0] * by_rho
    low, high = (math.floor(min(ends)), math.ceil(max(ends))) if ends else (-1, 0)
    high = max(high, low + 1)
    lane, names, width = 20, 190, 240
    bottom = lane * len(places)
    step = -(-(high - low) // 6)  # at most seven ticks
    ticks = range(low, high + 1, step)
    grid = "".join(f"M{names + _x(10.0**d, low, high, width):g} 0V{bottom}" for d in ticks)
    parts = [tag("path", d=grid, class_="grid")]
    if by_rho:
        parts.append(tag("path", d=f"M{names + _x(1.0, low, high, width):g} 0V{bottom}", class_="one"))
    points, texts = [], []
    for i, (place, value) in enumerate(zip(places, values, strict=True)):
        y = lane * i + lane // 2
        where = str(place["where"])
        short = where if len(where) <= 30 else f"{where[:29]}…"
        texts.append(tag("text", tag("title", where), short, x=names - 6, y=y + 4, class_="end"))
        if value is not None:
            points.append((names + _x(value, low, high, width), y))
            texts.append(tag("text", show(value), x=names + width + 4, y=y + 4))
    parts.append(tag("path", d="M" + "L".join(f"{x:g} {y}" for x, y in points), class_="trace") if points else Html(""))
    parts += [tag("circle", cx=f"{x:g}", cy=y, r=3.5) for x, y in points]
    texts += [
        tag("text", "10", tag("tspan", str(d).replace("-", "−"), dy="-4", class_="power"), class_="middle",
             x=names + _x(10.0**d, low, high, width), y=bottom + 15)
        for d in ticks
    ]  # fmt: skip
    what = "ρ" if by_rho else "relative distance from the reference"
    label = f"{what}, place by place: " + "; ".join(
        f"{place['where']}: {show(value)}" for place, value in zip(places, values, strict=True)
    )
    size = {"width": names + width + 60, "height": bottom + 22}
    chart = tag("svg", *parts, *texts, class_="growth", role="img", aria_label=label, **size)
    return tag("figure", tag("figcaption", f"How it grows: {what}, place by place"), tag("div", chart, class_="wide"))
