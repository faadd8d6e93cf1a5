"""Charts as SVG text: bars with whiskers, a roofline, lines, stacked shares. Colours come from the page's style."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

from refbert.benchmark import quartiles

WIDTH = 860
LABEL = 230  # where bars begin


def colour(name: str) -> str:
    """The style class of a contender: refbert, Hugging Face and sentence-transformers, onnxruntime, products."""
    if name.startswith("refbert"):
        return "ours"
    if name.startswith(("Hugging", "sentence")):
        return "peer"
    return "runtime" if name.startswith("onnx") else "bare"


def bars(values: Mapping[str, Sequence[float]], scale: float, unit: str) -> str:
    """A horizontal bar for each name: the median, with a line over the middle half of the runs."""
    spread = {name: tuple(x * scale for x in quartiles(runs)) for name, runs in values.items()}
    most = max(high for _, _, high in spread.values()) or 1.0
    room = WIDTH - LABEL - 110
    out = []
    for i, (name, (low, median, high)) in enumerate(spread.items()):
        y = 8 + 26 * i
        x = [LABEL + room * value / most for value in (low, median, high)]
        out.append(
            f"{text(LABEL - 8, y + 13, name, 'end')}"
            f'<rect class="{colour(name)}" x="{LABEL}" y="{y}" width="{x[1] - LABEL:.1f}" height="18" rx="2"/>'
            f'<path class="ink" d="M{x[0]:.1f} {y + 9}H{x[2]:.1f}M{x[0]:.1f} {y + 5}v8M{x[2]:.1f} {y + 5}v8"/>'
            f"{text(max(x[1], x[2]) + 8, y + 13, f'{median:,.1f} {unit}')}"
        )
    return svg(16 + 26 * len(spread), "".join(out))


def roofline(points: Sequence[tuple[str, str, float, float]], flops: float, bandwidth: float) -> str:
    """Points (name, contender, operations per byte, operations per second) under the machine's roof, both axes log."""
    left, right, top, bottom = 80, 620, 20, 330
    xs = [point[2] for point in points] + [flops / bandwidth]
    ys = [point[3] for point in points] + [flops]
    x0, x1 = math.log10(min(xs)) - 0.2, math.log10(max(xs)) + 0.2
    y0, y1 = math.log10(min(ys)) - 0.2, math.log10(max(ys)) + 0.15

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (right - left) * (math.log10(x) - x0) / (x1 - x0),
            bottom - (bottom - top) * (math.log10(y) - y0) / (y1 - y0),
        )

    corner = flops / bandwidth
    start = max(10**x0, 10**y0 / bandwidth)
    roof = [at(start, start * bandwidth), at(corner, flops), at(10**x1, flops)]
    out = [f'<polyline class="roof" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in roof)}"/>']
    out.append(text(right, roof[2][1] - 6, f"{flops / 1e9:,.0f} GFLOP/s in products", "end"))
    for value in _ticks(10**x0, 10**x1):
        x, _ = at(value, 10**y0)
        out.append(f'<path class="grid" d="M{x:.1f} {top}V{bottom}"/>{text(x, bottom + 16, f"{value:g}", "middle")}')
    for value in _ticks(10**y0, 10**y1):
        _, y = at(10**x0, value)
        out.append(
            f'<path class="grid" d="M{left} {y:.1f}H{right}"/>{text(left - 8, y + 4, f"{value / 1e9:g}", "end")}'
        )
    names = list(dict.fromkeys(point[0] for point in points))
    for name, contender, intensity, speed in points:
        x, y = at(intensity, speed)
        number = names.index(name) + 1
        label = f"{name}, {contender}: {speed / 1e9:.1f} GFLOP/s at {intensity:.0f} per byte"
        out.append(
            f'<circle class="{colour(contender)}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{html.escape(label)}</title>'
            f"</circle>{text(x + 7, y + 4, str(number))}"
        )
    out += [text(right + 24, top + 10 + 17 * i, f"{i + 1}  {name}") for i, name in enumerate(names)]
    out.append(text((left + right) / 2, bottom + 38, "operations per byte that must move", "middle"))
    out.append(text(left, top - 8, "GFLOP/s", "middle"))
    return svg(bottom + 50, "".join(out))


def lines(series: Mapping[str, Mapping[float, float]], x_name: str, unit: str) -> str:
    """A line for each name through its (x, y), both axes log."""
    left, right, top, bottom = 80, 620, 20, 260
    xs = sorted({x for line in series.values() for x in line})
    ys = [y for line in series.values() for y in line.values()]
    low, high = math.log10(min(ys)) - 0.1, math.log10(max(ys)) + 0.1
    wide = math.log2(xs[-1] / xs[0]) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (right - left) * math.log2(x / xs[0]) / wide,
            bottom - (bottom - top) * (math.log10(y) - low) / (high - low),
        )

    out = [text(at(x, ys[0])[0], bottom + 18, f"{x:g}", "middle") for x in xs]
    for value in _ticks(10**low, 10**high):
        y = at(xs[0], value)[1]
        out.append(f'<path class="grid" d="M{left} {y:.1f}H{right}"/>{text(left - 8, y + 4, f"{value:g}", "end")}')
    ends = []
    for name, line in series.items():
        points = [at(x, line[x]) for x in sorted(line)]
        kind = colour(name)
        out.append(f'<polyline class="line {kind}-line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
        out += [f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in points]
        ends.append((points[-1][1], name))
    last = -math.inf
    for y, name in sorted(ends):  # in the order of the lines, none over another
        last = max(y, last + 14)
        out.append(text(right + 12, last + 4, name, style=colour(name)))
    out.append(text((left + right) / 2, bottom + 38, x_name, "middle"))
    out.append(text(left, top - 8, unit, "middle"))
    return svg(bottom + 50, "".join(out))


def shares(rows: Sequence[tuple[str, Mapping[str, float]]], parts: Sequence[str]) -> str:
    """Stacked bars of parts that add up to 1; a part below 0 is drawn as nothing."""
    room = WIDTH - LABEL - 20
    out, x = [], float(LABEL)
    for i, part in enumerate(parts):
        out.append(f'<rect class="part{i}" x="{x:.1f}" y="4" width="12" height="12"/>{text(x + 16, 14, part)}')
        x += 36 + 6.5 * len(part)
    for row, (name, share) in enumerate(rows):
        y, x = 26 + 22 * row, float(LABEL)
        out.append(text(LABEL - 8, y + 12, name, "end"))
        whole = sum(max(0.0, value) for value in share.values()) or 1.0
        for i, part in enumerate(parts):
            width = room * max(0.0, share.get(part, 0.0)) / whole
            if width:
                title = f"<title>{html.escape(part)}: {share[part]:.0%}</title>"
                out.append(f'<rect class="part{i}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="16">{title}</rect>')
                if width > 34:
                    out.append(text(x + width / 2, y + 12, f"{share[part]:.0%}", "middle", "on"))
            x += width
    return svg(30 + 22 * len(rows), "".join(out))


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between the two; only the powers where those are many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(decades) <= 4 else (1,)
    return [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]


def text(x: float, y: float, what: str, anchor: str = "start", style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(what)}</text>'


def svg(height: float, inside: str) -> str:
    """A chart in a box that scrolls where it would become too small to read."""
    return f'<div class="wide"><svg viewBox="0 0 {WIDTH} {height:.0f}" role="img">{inside}</svg></div>'
