"""A page for a terminal: plain Unicode, no wider than asked for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from refbert_inspection.explain.appearances import LAYERS, Appearance, appearances
from refbert_inspection.explain.catalogue import Entry, entries, find
from refbert_inspection.explain.examples import worked
from refbert_inspection.explain.layout import beside, columns, filled, fold_code, prose, wrap
from refbert_inspection.explain.sources import code
from refbert_inspection.explain.worked_examples import Gradient, Worked

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


# With more gradients than this the differences are not printed beside them.
_MANY = 8


def terminal(name: str, *, width: int = 100) -> str:
    """The page of an op or block; raises `InputError`, with near names, for one that there is not."""
    return page(find(name), list(worked(find(name))), width)


def page(entry: Entry, examples: Sequence[Worked], width: int) -> str:
    """The page, with its examples worked through already."""
    return "\n".join(_lines(entry, examples, width)) + "\n"


def listing(width: int | None = None) -> str:
    """Every op and block, one line each, folded at ``width`` columns where that is given."""
    longest = max(len(e.name) for e in entries())
    lines = [f"{e.name:{longest}}  {e.kind:5}  {e.summary}" for e in entries()]
    return "".join(f"{part}\n" for line in lines for part in (filled(line, width, "", "    ") if width else [line]))


def _lines(entry: Entry, examples: Sequence[Worked], width: int) -> Iterator[str]:
    yield from _between(f"{entry.name}  ({entry.kind})", entry.file, width)
    yield ""
    yield from prose(entry.summary, width, 0)
    yield ""
    yield entry.signature if columns(entry.signature) <= width else "\n".join(fold_code(entry.signature, width))
    yield from prose(entry.says, width)
    for section in entry.sections:
        yield ""
        yield from prose(section.title or "Note", width, 0)
        yield from wrap(section.text, width)
    yield ""
    yield from _code(entry, width)
    yield from _places(entry, width)
    for i, example in enumerate(examples, 1):
        yield ""
        yield f"Example {i}" if len(examples) > 1 else "Example"
        yield from prose(example.note, width)
        yield from _numbers(example, width)


def _between(left: str, right: str, width: int) -> list[str]:
    gap = width - columns(left) - columns(right)
    return [f"{left}{' ' * gap}{right}"] if gap > 1 else [left, right]


def _code(entry: Entry, width: int) -> Iterator[str]:
    for part in code(entry):
        pair = beside(part.forward, part.pullback, width - 4) if part.pullback else None
        if pair is not None:
            pieces = [("Code: forward │ its pullback", pair)]
        else:
            pieces = [("Code: forward" if part.pullback else "Code", fold_code(part.forward, width - 4))]
            if part.pullback:
                pieces.append(("Code: the pullback under it", fold_code(part.pullback, width - 4)))
        for title, lines in pieces:
            yield title
            yield from ("    " + line if line else "" for line in lines)
            yield ""


def _places(entry: Entry, width: int) -> Iterator[str]:
    yield "Where in BERT"
    found = appearances(entry)
    for one in found:
        path, count = " › ".join(one.path), calls(one)
        yield from wrap(f"{path}   {count}" if count else path, width)
    yield from prose(FOUND_BY if found else CALLED_BY_NOTHING, width)
    parts = ", ".join(f"{name} ({count})" for name, count in made_of(entry))
    if parts:
        yield ""
        yield "Made of"
        yield from prose(parts, width)


def _numbers(example: Worked, width: int) -> Iterator[str]:
    parameters = {name[3:]: x for name, x in example.inputs.items() if name.startswith("p: ")}
    inputs = {name: x for name, x in example.inputs.items() if not name.startswith("p: ")}
    yield from _values("the parameters p", parameters, width)
    yield from _values("the arguments", inputs, width)
    yield from _values("forward, named as in the code", example.on_the_way | example.outputs, width)
    if not example.gradients:
        return
    yield from _values("given to the pullback", example.cotangents, width)
    yield from _values("backward, named as in the code", example.on_the_way_back, width)
    yield ""
    yield "  the gradient, by the pullback and by differences"
    yield from prose(CHECKED_BY, width)
    for g in example.gradients:
        shown = {of(g.name): g.value}
        if len(example.gradients) <= _MANY:
            shown["by differences"] = g.differences
        yield from _values("", shown, width)
        yield f"        {verdict(g)}"


def _values(title: str, values: Mapping[str, Any], width: int) -> Iterator[str]:
    if not values:
        return
    yield ""
    if title:
        yield f"  {title}"
    longest = max([columns(name) for name in values if columns(name) <= width // 2], default=0)
    for name, x in values.items():
        short = columns(name) <= width // 2
        start = f"    {name:{longest}} = " if short else f"    {name} =\n        "
        indent = columns(start.rsplit("\n", 1)[-1])
        text = value(x, width, indent)
        if max(indent + columns(line) if not i else columns(line) for i, line in enumerate(text.split("\n"))) > width:
            start, indent = f"    {name} =\n        ", 8
            text = value(x, width, indent)
            if columns(text) + indent > width and "\n" not in text:
                text = "\n".join(prose(text, width, indent)).strip()
        yield start + text


def example_text(example: Worked, width: int) -> str:
    """One example without its title and note, as a block of text."""
    return "\n".join(_numbers(example, width)).strip("\n")
