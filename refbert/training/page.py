"""A run as one HTML page: curves as SVG, settings as a table, nothing from the network.

The metrics are read twice, line by line, and gathered into a few hundred bins (mean, least and greatest of each), so a
run of a million updates needs no more memory than one of a thousand.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refbert.errors import InputError
from refbert.files.writing import write_whole
from refbert.training.metrics import clock, read_metrics

_BINS = 300
_DRAWN = ("loss", "learning_rate", "gradient_norm", "tokens", "seconds")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 720, 220, 64, 28
_STYLE = """
:root { color-scheme: light dark; --line: #0b6bcb; --band: #0b6bcb33; --dev: #d9480f; --rule: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1rem; margin: 1.6rem 0 .2rem; }
svg { width: 100%; min-width: 36rem; height: auto; font-size: 11px; fill: currentColor; }
.chart { overflow-x: auto; } .legend { margin: 0; font-size: .8rem; }
.line { color: var(--line); } .dev { color: var(--dev); }
table { border-collapse: collapse; font-size: .85rem; } td { padding: .1rem 1rem .1rem 0; vertical-align: top; }
td + td { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
"""


@dataclass
class _Bin:
    """Updates that are drawn as one point."""

    count: int = 0
    total: float = 0.0
    least: float = math.inf
    greatest: float = -math.inf

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.least, self.greatest = min(self.least, value), max(self.greatest, value)


@dataclass
class _Curve:
    bins: dict[int, _Bin] = field(default_factory=dict)
    scored: list[tuple[int, float]] = field(default_factory=list)  # of the development text


def write_page(path: Path, metrics: Path, **what: Any) -> None:
    """The page of a metrics file, as `render`; raises `InputError` if it cannot be written."""
    try:
        write_whole(path, render(metrics, **what))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def render(
    metrics: Path,
    *,
    title: str,
    settings: Mapping[str, Any],
    dev: Iterable[Mapping[str, Any]] = (),
    resumes: Iterable[Mapping[str, Any]] = (),
) -> str:
    """The page's HTML. dev: scores by name, with the "step" that they were made at; resumes: `RunDirectory.resumes`."""
    first = last = None
    updates, tokens, seconds, padding = 0, 0, 0.0, 0.0
    for entry in _updates(metrics):
        first, last = first or entry, entry
        updates += 1
        tokens += entry["tokens"]
        seconds += entry["seconds"]
        padding += entry.get("padding", 0.0)
    parts = [f"<h1>{html.escape(title)}</h1>"]
    if first is None or last is None:
        parts.append("<p>No update yet.</p>")
    else:
        parts.append(
            f"<p>{updates:,} updates, {tokens:,} tokens, {padding / updates:.0%} of the batches padding, "
            f"{clock(seconds)}; "
            f"loss {first['loss']:.4g} at step {first['step']}, {last['loss']:.4g} at step {last['step']}.</p>"
        )
        span = (first["step"], last["step"])
        curves = _curves(metrics, span)
        for name, points in _scored(dev, curves).items():
            curves.setdefault(name, _Curve()).scored = points
        parts += [_chart(name, curve, span) for name, curve in curves.items()]
    parts.append(_table("Settings", settings.items()))
    gone_on = [(f"at step {entry.get('step')}", _resumed(entry)) for entry in resumes]
    if gone_on:
        parts.append(_table("Resumed", gone_on))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        + "\n".join(parts)
        + "</body></html>\n"
    )


def _table(title: str, rows: Iterable[tuple[str, Any]]) -> str:
    cells = "".join(f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(_value(v))}</td></tr>" for k, v in rows)
    return f"<h2>{html.escape(title)}</h2><table>{cells}</table>"


def _resumed(entry: Mapping[str, Any]) -> str:
    again = entry.get("made_again")
    changed = entry.get("changed") or {}
    parts = [str(entry.get("at", "")), f"{again:,} updates made again" if isinstance(again, int) and again else ""]
    if isinstance(changed, dict):
        parts += [f"{name} {_value(value) or 'none'}" for name, value in changed.items()]
    return "; ".join(part for part in parts if part)


def _updates(metrics: Path) -> Iterator[dict[str, Any]]:
    """The lines that have what is drawn, whoever wrote them."""
    for entry in read_metrics(metrics):
        if all(isinstance(entry.get(name), int | float) for name in _DRAWN):
            yield entry


def _curves(metrics: Path, span: tuple[int, int]) -> dict[str, _Curve]:
    """What is drawn of the updates, by its title."""
    out: dict[str, _Curve] = {}
    width = max(1, math.ceil((span[1] - span[0] + 1) / _BINS))
    for entry in _updates(metrics):
        values = {"loss": entry["loss"]}
        heads = [name for name in entry if name.startswith("loss_")]
        if len(heads) > 1:
            values |= {f"loss, {name.removeprefix('loss_').replace('_', ' ')}": entry[name] for name in heads}
        values |= {"learning rate": entry["learning_rate"], "gradient norm": entry["gradient_norm"]}
        if entry["seconds"] > 0:
            values["tokens per second"] = entry["tokens"] / entry["seconds"]
        for name, value in values.items():
            number = (entry["step"] - span[0]) // width
            out.setdefault(name, _Curve()).bins.setdefault(number, _Bin()).add(value)
    for curve in out.values():
        curve.bins = {span[0] + number * width: found for number, found in curve.bins.items()}
    return out


def _scored(dev: Iterable[Mapping[str, Any]], curves: Mapping[str, _Curve]) -> dict[str, list[tuple[int, float]]]:
    """Scores of the development text, by the title of their chart: the training loss's, or one of their own."""
    out: dict[str, list[tuple[int, float]]] = {}
    both = "loss, masked lm" in curves
    for entry in dev:
        values = {name: x for name, x in entry.items() if name != "step" and isinstance(x, int | float)}
        if both and {"loss", "next_sentence_loss"} <= values.keys():
            words, pairs = values.pop("loss"), values.pop("next_sentence_loss")
            values |= {"loss": words + pairs, "loss, masked lm": words, "loss, next sentence": pairs}
        for name, value in values.items():
            title = name if name in curves else f"development: {name.replace('_', ' ')}"
            out.setdefault(title, []).append((int(entry["step"]), float(value)))
    return out


def _chart(name: str, curve: _Curve, span: tuple[int, int]) -> str:
    points = sorted(curve.bins.items())
    low = min([*(found.least for _, found in points), *(value for _, value in curve.scored)])
    high = max([*(found.greatest for _, found in points), *(value for _, value in curve.scored)])
    if low == high:
        low, high = low - abs(low) / 2 - 1e-9, high + abs(high) / 2 + 1e-9

    def x(step: int) -> float:
        return _LEFT + (_WIDTH - _LEFT) * (min(step, span[1]) - span[0]) / max(1, span[1] - span[0])

    def y(value: float) -> float:
        return 8 + (_HEIGHT - 8 - _BOTTOM) * (high - value) / (high - low)

    def path(values: list[tuple[int, float]]) -> str:
        return " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in values)

    band = [(s, b.greatest) for s, b in points] + [(s, b.least) for s, b in reversed(points)]
    ticks = "".join(
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="var(--rule)"/>'
        f'<text x="{_LEFT - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{_number(v)}</text>'
        for v in (low, (low + high) / 2, high)
    )
    mean = path([(s, b.total / b.count) for s, b in points])
    drawn = f'<polygon points="{path(band)}" fill="var(--band)"/>' if points else ""
    drawn += f'<polyline points="{mean}" fill="none" stroke="var(--line)" stroke-width="1.5"/>' if points else ""
    legend = ""
    if curve.scored:
        drawn += f'<polyline points="{path(curve.scored)}" fill="none" stroke="var(--dev)" stroke-width="1.5"/>'
        drawn += "".join(
            f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="2.5" fill="var(--dev)">'
            f"<title>step {s:,}: {v:.5g}</title></circle>"
            for s, v in curve.scored
        )
    if curve.scored and points:
        legend = '<p class="legend"><b class="line">—</b> training <b class="dev">—</b> development text</p>'
    return (
        f"<h2>{html.escape(name)}</h2>{legend}"
        f'<div class="chart"><svg viewBox="0 0 {_WIDTH + 4} {_HEIGHT}" role="img" '
        f'aria-label="{html.escape(name)} by step">{ticks}{drawn}'
        f'<text x="{_LEFT}" y="{_HEIGHT - 8}">step {span[0]:,}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 8}" text-anchor="end">{span[1]:,}</text></svg></div>'
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
