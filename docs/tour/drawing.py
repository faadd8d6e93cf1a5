"""The tour's figures, as SVG text: curves and a heat map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import escape

FOLDER = Path("figures")  # relative to docs/tour, where the tour's code is run
COLOURS = ("#1f5fa8", "#c4542d", "#3c8c4a", "#7d4fa1")
_LEFT, _TOP, _WIDTH, _HEIGHT = 62, 34, 440, 220


def curves(title: str, series: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, x: str, y: str) -> str:
    """Line plot; ``series`` maps a label to (xs, ys), ``x`` and ``y`` name the axes."""
    across = _ticks([float(v) for points, _ in series.values() for v in points])
    up = _ticks([float(v) for _, values in series.values() for v in values])

    def place(u: float, v: float) -> tuple[float, float]:
        right, rise = (u - across[0]) / (across[-1] - across[0]), (v - up[0]) / (up[-1] - up[0])
        return _LEFT + _WIDTH * right, _TOP + _HEIGHT * (1 - rise)

    body = [f'<rect x="{_LEFT}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#999"/>']
    body += [_text(place(u, up[0])[0], _TOP + _HEIGHT + 18, f"{u:,.7g}", "middle") for u in across]
    for v in up:
        height = place(across[0], v)[1]
        body.append(_text(_LEFT - 6, height + 4, f"{v:.3g}", "end"))
        body.append(f'<path d="M{_LEFT} {height:.1f}h{_WIDTH}" stroke="#eee"/>')
    end = _LEFT + _WIDTH
    for i, (label, (points, values)) in enumerate(series.items()):
        path = " ".join("{:.1f},{:.1f}".format(*place(float(u), float(v))) for u, v in zip(points, values, strict=True))
        body.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[i]}" stroke-width="2"/>')
        body.append(_text(end, _TOP - 8, label, "end", COLOURS[i]))
        end -= 14 + 7 * len(label)
    body.append(_text(_LEFT + _WIDTH / 2, _TOP + _HEIGHT + 38, x, "middle"))
    body.append(_text(_LEFT, _TOP - 8, y, "start"))
    return _svg(title, 540, _TOP + _HEIGHT + 52, body)


def heat_map(title: str, table: Sequence[Sequence[float]], *, rows: Sequence[str], columns: Sequence[str]) -> str:
    """Square cells, from white (0) to blue (the largest entry), each with its number."""
    side, left, top = 52, 84, 58
    largest = max(max(row) for row in table)
    body = [_text(left + side * (j + 0.5), top - 8, name, "middle") for j, name in enumerate(columns)]
    for i, row in enumerate(table):
        body.append(_text(left - 8, top + side * (i + 0.5) + 4, rows[i], "end"))
        for j, value in enumerate(row):
            depth = float(value) / largest
            at = f'x="{left + side * j}" y="{top + side * i}" width="{side}" height="{side}"'
            # As a number, not mixed into the colour: run.py compares numbers up to their last digit.
            body.append(f'<rect {at} fill="{COLOURS[0]}" fill-opacity="{depth:.2f}" stroke="#fff"/>')
            ink = "#fff" if depth > 0.55 else "#222"
            body.append(_text(left + side * (j + 0.5), top + side * (i + 0.5) + 4, f"{value:.2f}", "middle", ink))
    return _svg(title, left + side * len(columns) + 12, top + side * len(rows) + 12, body)


def save(name: str, svg: str) -> None:
    """Write FOLDER/name."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / name).write_text(svg, encoding="utf-8")


def _ticks(values: Sequence[float]) -> list[float]:
    """Round numbers, three to seven of them, from below the smallest value to above the largest."""
    low, high = min(values), max(values)
    step = 10.0 ** math.floor(math.log10(high - low))
    step = next(step * f for f in (0.2, 0.25, 0.5, 1, 2) if (high - low) / (step * f) <= 5.01)
    return [step * i for i in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _svg(title: str, width: float, height: float, body: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    style = ' font-family="sans-serif" font-size="12" role="img">'
    return "\n".join([head + style, f"<title>{escape(title)}</title>",
                      f'<rect width="{width}" height="{height}" fill="#fff"/>', *body, "</svg>", ""])  # fmt: skip
