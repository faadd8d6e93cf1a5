"""Numbers, arrays and calls as text, for the terminal and the documentation alike."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from refbert_inspection.explain.appearances import LAYERS, Appearance, appearances
from refbert_inspection.explain.catalogue import Entry, entries
from refbert_inspection.explain.worked_examples import Gradient

FOUND_BY = f"Seen in runs of a BERT of {LAYERS} layers with each of its heads; counts are per call of the innermost."
CALLED_BY_NOTHING = "Nothing in the model calls it: it is called from outside, or in its parts."
CHECKED_BY = "Beside each: (L(x + h) − L(x − h))/2h for L = Σ dy·y, h = 2^−17, entry by entry."
# What is left of numbers of size 1 when they cancel; shown as 0.
_NOISE = 1e-15


def number(x: Any) -> str:
    """Six digits; ∞ for infinity."""
    if isinstance(x, bool | np.bool_):
        return str(int(x))
    if isinstance(x, int | np.integer):
        return str(x).replace("-", "−")
    if math.isinf(x):
        return "−∞" if x < 0 else "∞"
    return f"{x:.6g}".replace("-", "−")


def value(x: Any, width: int = 10_000, indent: int = 0) -> str:
    """An input or a result; an array's later rows are indented so that they stand below its first."""
    if isinstance(x, np.ndarray):
        kept = np.where(np.abs(x) < _NOISE, 0, x) if np.issubdtype(x.dtype, np.floating) else x
        if not kept.ndim:
            return number(kept[()])
        return np.array2string(
            kept, separator=", ", max_line_width=max(width, indent + 30), prefix=" " * indent,
            formatter={"all": number},
        ).replace("\n\n", "\n")  # fmt: skip
    if isinstance(x, float | np.floating):
        return number(x)
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        return ", ".join(f"{f.name}={value(getattr(x, f.name))}" for f in dataclasses.fields(x))
    return repr(x)


def of(name: str) -> str:
    """The name of a gradient: "dx", "d(output.dense.weight)"."""
    plain = name.removeprefix("p: ")
    return f"d{plain}" if plain.isidentifier() else f"d({plain})"


def verdict(g: Gradient) -> str:
    """Whether a gradient is what the differences say, with the figures."""
    apart = f"{g.apart:.1e}" if g.apart else "0"
    return f"{'agree' if g.holds else 'DO NOT AGREE'}: {apart} apart, at most {g.allowed:.1e} allowed"


def calls(one: Appearance) -> str:
    """How often: "4 forward", "1 forward, 3 backward", "with some heads"; "" for a caller outside the model."""
    if "." in one.path[-1]:
        return ""
    counts = ((one.forward, "forward"), (one.backward, "backward"))
    parts = [f"{count:.0f} {direction}" for count, direction in counts if count]
    if any(count % 1 for count, _ in counts):
        parts = ["with some heads"]
    only = [f'with hidden_act "{one.only}"'] if one.only else []
    return ", ".join(parts + only)


def made_of(entry: Entry) -> list[tuple[str, str]]:
    """The entries that this one calls, and how often."""
    out = {}
    for other in entries():
        for one in appearances(other):
            if one.path[-1] == entry.name:
                out[other.name] = calls(one)
    return list(out.items())
