"""A comparison as one HTML page: the verdict, the plot of the error through the pass, and every tensor. No script."""

from __future__ import annotations

import math
from collections.abc import Sequence

from refbert import __version__
from refbert_inspection.tracing.difference import Difference, Row
from refbert_inspection.tracing.names import NUMBERING, layer_of
from refbert_inspection.tracing.page import document, text_of
from refbert_inspection.tracing.passes import GRADIENT
from refbert_inspection.tracing.wording import number, verdict

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 960, 240, 46, 34
_HIGHEST = 1  # the plot's last power of ten


def page(found: Difference) -> str:
    """The whole page."""
    one, other = found.sides
    lines = "".join(f'<p class="{"good" if found.within else "bad"}">{text_of(line)}</p>' for line in verdict(found))
    asked = "".join(f"<li>{text_of(line)}</li>" for line in found.different)
    asked = f"<p>The two sides are asked for different things:</p><ul>{asked}</ul>" if asked else ""
    B, S = one.setting.batch.shape
    parts = [
        f'<header><h1>refbert diff</h1><ul class="facts"><li><b>{text_of(one.label)}</b> against '
        f"<b>{text_of(other.label)}</b></li><li>batch <b>{B} × {S}</b></li><li>layers <b>{one.setting.choices.layers}"
        f"</b></li><li>tensors <b>{len(found.rows)}</b></li></ul>{lines}{asked}</header><main>"
    ]
    for way, title in (("forward", "Forward"), ("backward", "Backward")):
        rows = [row for row in found.rows if row.direction == way]
        if rows:
            parts.append(f'<section id="{way}"><h2>{title}</h2>{_plot(rows)}{_table(rows, found)}</section>')
    parts.append(
        '</main><footer class="small dim"><p>distance: ‖x − y‖/‖y‖ over the whole tensor. allowed: what rounding may '
        "do to it on its way, on the same scale. ρ: the worst row's error in such tolerances; above 1 it is not "
        "rounding. op by itself: the op's error on its own inputs against refbert.ops, in its derived bound; above 1 "
        f"the op is wrong. {NUMBERING} refbert {text_of(__version__)}.</p></footer>"
    )
    return document("refbert diff", "".join(parts))


def _plot(rows: Sequence[Row]) -> str:
    """Distance and tolerance through the pass, logarithmic; a row that is 0 is left out of the line."""
    logs = [math.log10(v) for row in rows for v in (row.distance, row.allowed) if 0 < v < math.inf]
    if not logs:
        return "<p>Every tensor is the same on both sides, to the last bit.</p>"
    # A gradient that is 0 in exact arithmetic (of a key's bias) is nothing but rounding, a billion times itself apart.
    low, high = math.floor(min(logs)), min(_HIGHEST, math.ceil(max(logs) + 1e-9))
    low = min(low, high - 1)
    step = (_WIDTH - _LEFT - 8) / max(1, len(rows) - 1)

    def x(i: int) -> float:
        return _LEFT + i * step

    def y(value: float) -> float:
        return 8 + max(0.0, high - math.log10(value)) / (high - low) * (_HEIGHT - 8 - _BOTTOM)

    def line(values: Sequence[float], css: str) -> str:
        points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(values) if 0 < v < math.inf)
        return f'<polyline class="{css}" points="{points}"/>'

    every = max(1, (high - low) // 8)
    grid = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y(10.0**e):.1f}" y2="{y(10.0**e):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{y(10.0**e) + 3:.1f}" text-anchor="end">1e{e}</text>'
        for e in range(low, high + 1, every)
    )
    dots = "".join(
        f'<circle class="{"beyond" if row.rho > 1 else "within"}" cx="{x(i):.1f}" cy="{y(row.distance):.1f}" r="'
        f'{4 if row.rho > 1 else 2.2}"><title>{text_of(row.name)}: distance {number(row.distance)}, allowed '
        f"{number(row.allowed)}, ρ {number(row.rho)}</title></circle>"
        for i, row in enumerate(rows)
        if 0 < row.distance < math.inf
    )
    return (
        f'<div class="wide"><svg class="growth" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="distance through the pass">{grid}{_ticks(rows, x)}'
        f"{line([row.allowed for row in rows], 'allowed')}{line([row.distance for row in rows], 'distance')}{dots}"
        "</svg></div>"
        '<p class="small"><span class="key distance"></span> distance &emsp;<span class="key allowed"></span> allowed '
        '&emsp;<span class="key beyond"></span> beyond'
        f"{' &emsp;above 10: drawn at the edge' if max(logs) > _HIGHEST else ''}</p>"
    )


def _ticks(rows: Sequence[Row], x: object) -> str:
    assert callable(x)
    ticks = ""
    last: int | str | None = None
    for i, row in enumerate(rows):
        here = layer_of(row.name.removeprefix(GRADIENT))
        if here != last:
            last = here
            ticks += (
                f'<line class="grid" x1="{x(i):.1f}" x2="{x(i):.1f}" y1="8" y2="{_HEIGHT - _BOTTOM}"/>'
                f'<text x="{x(i):.1f}" y="{_HEIGHT - 18}">{here}</text>'
            )
    return ticks


def _table(rows: Sequence[Row], found: Difference) -> str:
    titles = [("tensor", "name"), ("op", "aside"), ("shape", "aside"), ("distance", ""), ("allowed", ""), ("ρ", "")]
    titles += [(f"{side.label}: op by itself", "own") for side in found.sides]
    head = "".join(f'<th scope="col" class="{css}">{text_of(title)}</th>' for title, css in titles)
    body = "".join(
        f'<tr title="{text_of(row.name)}"><td class="name">{text_of(row.name).replace(".", ".<wbr>")}</td>'
        f'<td class="aside">{text_of(row.op)}</td>'
        f"<td class='aside'>{'×'.join(map(str, row.shape)) or 'number'}</td><td>{number(row.distance)}</td>"
        f"<td>{number(row.allowed)}</td>"
        f"{_rho(row.rho)}{''.join(_rho(own) for own in row.own)}</tr>"
        for row in rows
    )
    return (
        f'<details open><summary>{len(rows)} tensors</summary><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></details>"
    )


def _rho(rho: float | None) -> str:
    return "<td></td>" if rho is None else f"<td{' class=bad' if rho > 1 else ''}>{number(rho)}</td>"
