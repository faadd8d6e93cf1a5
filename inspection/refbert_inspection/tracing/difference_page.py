"""A comparison as one HTML page: the verdict, the plot of the error through the pass, and every tensor. No script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from refbert import __version__
from refbert.pages import Axis, LogAxis, fill
from refbert_inspection.tracing.difference import Difference, Row, verdict
from refbert_inspection.tracing.names import NUMBERING, layer_of
from refbert_inspection.tracing.passes import GRADIENT

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 960, 240, 46, 34
_HIGHEST = 1  # the plot's last power of ten


def page(found: Difference) -> str:
    """The whole page."""
    by_way = {way: [row for row in found.rows if row.direction == way] for way in ("forward", "backward")}
    return fill(
        "refbert_inspection.tracing", "difference.html",
        found=found, verdict=verdict(found), numbering=NUMBERING, version=__version__,
        ways=[(way, rows, _plot(rows)) for way, rows in by_way.items() if rows],
    )  # fmt: skip


def _plot(rows: Sequence[Row]) -> dict[str, Any] | None:
    """What the template draws of distance and tolerance; None if no row has either."""
    values = [value for row in rows for value in (row.distance, row.allowed) if 0 < value < math.inf]
    if not values:
        return None
    x, y = Axis(0, len(rows) - 1, _LEFT, _WIDTH - 8), LogAxis.around(values, _HEIGHT - _BOTTOM, 8)
    # A gradient that is 0 in exact arithmetic (of a key's bias) is nothing but rounding, a billion times itself apart.
    cut = max(values) > 10**_HIGHEST
    if cut:
        y = replace(y, low=min(y.low, _HIGHEST - 1), high=_HIGHEST)
    layers = [layer_of(row.name.removeprefix(GRADIENT)) for row in rows]
    drawn = [(x.at(i), row) for i, row in enumerate(rows)]
    return {
        "width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "bottom": _HEIGHT - _BOTTOM, "ticks": y.ticks, "cut": cut,
        "layers": [(x.at(i), here) for i, here in enumerate(layers) if i == 0 or here != layers[i - 1]],
        "allowed": [(at, y.at(row.allowed)) for at, row in drawn if 0 < row.allowed < math.inf],
        "distance": [(at, y.at(row.distance), row) for at, row in drawn if 0 < row.distance < math.inf],
    }  # fmt: skip
