"""What `templates/charts.html` draws: bars with whiskers, a roofline, lines, stacked shares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from refbert.benchmark import quartiles
from refbert.pages import Axis, LogAxis

WIDTH = 860
LABEL = 230  # where bars begin
LEFT, RIGHT, TOP = 80, 620, 20  # of a plot with two axes


def colour(name: str) -> str:
    """The style class of a contender: refbert, Hugging Face and sentence-transformers, onnxruntime, products."""
    if name.startswith("refbert"):
        return "ours"
    if name.startswith(("Hugging", "sentence")):
        return "peer"
    return "runtime" if name.startswith("onnx") else "bare"


def bars(values: Mapping[str, Sequence[float]], scale: float, unit: str) -> dict[str, Any]:
    """A horizontal bar for each name: the median, with a line over the middle half of the runs."""
    spread = {name: tuple(x * scale for x in quartiles(runs)) for name, runs in values.items()}
    axis = Axis(0, max(high for _, _, high in spread.values()) or 1.0, LABEL, WIDTH - 110)
    rows = [
        {"name": name, "colour": colour(name), "y": 8 + 26 * i, "low": axis.at(low), "median": axis.at(median),
         "high": axis.at(high), "words": f"{median:,.1f} {unit}"}
        for i, (name, (low, median, high)) in enumerate(spread.items())
    ]  # fmt: skip
    return _chart("bars", 16 + 26 * len(rows), "medians", left=LABEL, rows=rows)


def roofline(points: Sequence[tuple[str, str, float, float]], flops: float, bandwidth: float) -> dict[str, Any]:
    """Points (name, contender, operations per byte, operations per second) under the machine's roof, both axes log."""
    bottom, corner = 330, flops / bandwidth
    xs = [point[2] for point in points] + [corner]
    ys = [point[3] for point in points] + [flops]
    x = LogAxis(math.log10(min(xs)) - 0.2, math.log10(max(xs)) + 0.2, LEFT, RIGHT)
    y = LogAxis(math.log10(min(ys)) - 0.2, math.log10(max(ys)) + 0.15, bottom, TOP)
    start = max(10**x.low, 10**y.low / bandwidth)
    names = list(dict.fromkeys(point[0] for point in points))
    drawn = [
        (x.at(intensity), y.at(speed), colour(contender),
         f"{name}, {contender}: {speed / 1e9:.1f} GFLOP/s at {intensity:.0f} per byte", names.index(name) + 1)
        for name, contender, intensity, speed in points
    ]  # fmt: skip
    return _chart(
        "roofline", bottom + 50, "speed under the machine's roof",
        roof=[(x.at(a), y.at(b)) for a, b in ((start, start * bandwidth), (corner, flops), (10**x.high, flops))],
        most=f"{flops / 1e9:,.0f} GFLOP/s in products", points=drawn, names=names,
        x_ticks=_ticks(x), y_ticks=[(value / 1e9, at) for value, at in _ticks(y)],
        x_name="operations per byte that must move", y_name="GFLOP/s", bottom=bottom,
    )  # fmt: skip


def lines(series: Mapping[str, Mapping[float, float]], x_name: str, unit: str) -> dict[str, Any]:
    """A line for each name through its (x, y), both axes log."""
    bottom = 260
    xs = sorted({x for line in series.values() for x in line})
    ys = [y for line in series.values() for y in line.values()]
    x = LogAxis(math.log10(xs[0]), math.log10(xs[-1]), LEFT, RIGHT)
    y = LogAxis(math.log10(min(ys)) - 0.1, math.log10(max(ys)) + 0.1, bottom, TOP)
    drawn = [(name, colour(name), [(x.at(a), y.at(line[a])) for a in sorted(line)]) for name, line in series.items()]
    ends, last = [], -math.inf
    for at, name in sorted((points[-1][1], name) for name, _, points in drawn):  # in their order, none over another
        last = max(at, last + 14)
        ends.append((name, colour(name), last))
    return _chart(
        "lines", bottom + 50, f"{unit} by {x_name}", series=drawn, ends=ends, bottom=bottom,
        x_ticks=[(value, x.at(value)) for value in xs], y_ticks=_ticks(y), x_name=x_name, y_name=unit,
    )  # fmt: skip


def shares(rows: Sequence[tuple[str, Mapping[str, float]]], parts: Sequence[str]) -> dict[str, Any]:
    """Stacked bars of parts that add up to 1; a part below 0 is drawn as nothing."""
    room = WIDTH - LABEL - 20
    legend, x = [], float(LABEL)
    for part in parts:
        legend.append((part, round(x, 1)))
        x += 36 + 6.5 * len(part)
    drawn = []
    for name, share in rows:
        x, found = float(LABEL), []
        whole = sum(max(0.0, value) for value in share.values()) or 1.0
        for i, part in enumerate(parts):
            width = room * max(0.0, share.get(part, 0.0)) / whole
            if width:
                found.append((i, part, round(x, 1), round(width, 1), f"{share[part]:.0%}"))
            x += width
        drawn.append((name, found))
    return _chart("shares", 30 + 22 * len(rows), "shares", left=LABEL, legend=legend, rows=drawn)


def _ticks(axis: LogAxis) -> list[tuple[float, float]]:
    """1, 2 and 5 times powers of ten on the axis, with their pixels; only the powers where those are many."""
    decades = range(math.floor(axis.low), math.ceil(axis.high) + 1)
    values = [step * 10.0**decade for decade in decades for step in ((1, 2, 5) if len(decades) <= 4 else (1,))]
    return [(value, axis.at(value)) for value in values if axis.low <= math.log10(value) <= axis.high]


def _chart(kind: str, height: float, label: str, **drawn: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "width": WIDTH,
        "height": height,
        "label": label,
        "left": LEFT,
        "right": RIGHT,
        "top": TOP,
    } | drawn
