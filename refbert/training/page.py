"""A run as one HTML page: curves as SVG, settings as a table, nothing from the network.

The metrics are read twice, line by line, and gathered into a few hundred bins (least, mean and greatest of each), so a
run of a million updates needs no more memory than one of a thousand.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from refbert.pages import Axis, fill, number
from refbert.training.metrics import clock, read_metrics

_BINS = 300
_DRAWN = ("loss", "learning_rate", "gradient_norm", "tokens", "seconds")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 720, 220, 64, 28
# Updates that are drawn as one point: the first step, least, mean and greatest value.
_Bin = tuple[int, float, float, float]


def render(
    metrics: Path, *, title: str, settings: Mapping[str, Any], dev: Iterable[Mapping[str, Any]] = (),
    resumes: Iterable[Mapping[str, Any]] = (),
) -> str:  # fmt: skip
    """The page's HTML. dev: scores by name, with the "step" that they were made at; resumes: `RunDirectory.resumes`."""
    first = last = None
    total: Counter[str] = Counter()
    for entry in _updates(metrics):
        first, last = first or entry, entry
        total.update(updates=1, tokens=entry["tokens"], seconds=entry["seconds"], padding=entry.get("padding", 0.0))
    said, charts = "No update yet.", []
    if first is not None and last is not None:
        said = (
            f"{total['updates']:,} updates, {total['tokens']:,} tokens, "
            f"{total['padding'] / total['updates']:.0%} of the batches padding, {clock(total['seconds'])}; loss "
            f"{number(first['loss'], 4)} at step {first['step']}, {number(last['loss'], 4)} at step {last['step']}."
        )
        span = (first["step"], last["step"])
        curves = _curves(metrics, span)
        scored = _scored(dev, curves)
        charts = [_chart(name, curves.get(name, ()), scored.get(name, ()), span) for name in {**curves, **scored}]
    tables = {
        "Settings": [(name, _value(value)) for name, value in settings.items()],
        "Resumed": [(f"at step {entry.get('step')}", _resumed(entry)) for entry in resumes],
    }
    return fill("refbert.training", "run.html", title=title, said=said, charts=charts, tables=tables)


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


def _curves(metrics: Path, span: tuple[int, int]) -> dict[str, list[_Bin]]:
    """What is drawn of the updates, by its title."""
    out: dict[str, list[_Bin]] = {}
    width = max(1, math.ceil((span[1] - span[0] + 1) / _BINS))
    for place, entries in groupby(_updates(metrics), lambda entry: (entry["step"] - span[0]) // width):
        values: dict[str, list[float]] = {}
        for entry in entries:
            for name, value in _drawn(entry).items():
                values.setdefault(name, []).append(value)
        for name, found in values.items():
            out.setdefault(name, []).append((span[0] + place * width, min(found), sum(found) / len(found), max(found)))
    return out


def _drawn(entry: Mapping[str, Any]) -> dict[str, float]:
    """What is drawn of one update, by its title."""
    values = {"loss": entry["loss"]}
    heads = [name for name in entry if name.startswith("loss_")]
    if len(heads) > 1:
        values |= {f"loss, {name.removeprefix('loss_').replace('_', ' ')}": entry[name] for name in heads}
    values |= {"learning rate": entry["learning_rate"], "gradient norm": entry["gradient_norm"]}
    if entry["seconds"] > 0:
        values["tokens per second"] = entry["tokens"] / entry["seconds"]
    return values


def _scored(dev: Iterable[Mapping[str, Any]], curves: Mapping[str, object]) -> dict[str, list[tuple[int, float]]]:
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


def _chart(
    name: str, bins: Sequence[_Bin], scored: Sequence[tuple[int, float]], span: tuple[int, int]
) -> dict[str, Any]:
    """What the template draws."""
    ends = [value for _, least, _, greatest in bins for value in (least, greatest)]
    x = Axis(*span, _LEFT, _WIDTH)
    y = Axis.around([*ends, *(value for _, value in scored)], _HEIGHT - _BOTTOM, 8)
    above = [(x.at(step), y.at(greatest)) for step, _, _, greatest in bins]
    below = [(x.at(step), y.at(least)) for step, least, _, _ in reversed(bins)]
    return {
        "name": name, "width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "span": span, "ticks": y.ticks,
        "band": above + below, "mean": [(x.at(step), y.at(mean)) for step, _, mean, _ in bins],
        "scored": [(x.at(step), y.at(value), f"step {step:,}: {number(value, 5)}") for step, value in scored],
    }  # fmt: skip


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
