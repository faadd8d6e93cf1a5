"""The scoreboard: one or several reports as one self-contained HTML page.

No script, no font, no picture and no request: a style sheet (scoreboard.css) and inline SVG. Names, messages and cases
come from third parties; `Html` keeps them apart from what is HTML already, so that no text reaches the page unescaped.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from refbert.errors import InputError
from refbert_conformance.measure import ULPS
from refbert_conformance.properties import LEVELS
from refbert_conformance.report import FORMAT, OUTCOMES

Report = Mapping[str, Any]
Row = Mapping[str, Any]

STATES = (*OUTCOMES, "waived")
_MEANING = {
    "passed": "held on every example",
    "failed": "did not hold: a case, and a script that reproduces it",
    "unsupported": "the backend does not offer it, or its dtype cannot judge it",
    "unavailable": "could not be tried here",
    "waived": "fails, as expected by the adopter's file of waivers, for the reason given there",
}
# The ρ axis: from 10⁻⁴ to 10²; what lies outside is drawn at the edge.
_DECADES = (-4, 2)
_PLOT, _PAD = 168, 8  # its width and the margin at both ends, in pixels
_GROWN = 2.0  # ρ has changed if it has more than doubled
_OPEN = 12  # with more failures than this, each is folded to one line
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
    "unavailable": "M-2.6-2.2C-2.6-5.6 2.8-5.4 2.6-2.2C2.5-.6 0-.4 0 1.6M0 4V4.6", "waived": "M-3 5V-4.5H4L2-2L4 .5H-3",
}  # fmt: skip


# -- reading ---------------------------------------------------------------------------------------


def read(path: Path) -> dict[str, Any]:
    """A report of ``refbert conform --json``; raises `InputError` for a file that is missing or anything else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); {_AGAIN}") from None
    if not isinstance(data, dict) or not str(data.get("format")).startswith(_FAMILY):
        raise InputError(f"{path}: not a report of refbert conform; {_AGAIN}")
    if data["format"] != FORMAT:
        raise InputError(f'{path}: a report in format "{data["format"]}", but this refbert reads {FORMAT}; {_AGAIN}')
    try:
        _check_report(data)
    except _Wrong as wrong:
        raise InputError(f"{path}: {wrong}; {_AGAIN}") from None
    return data


_AGAIN = "write one with: refbert conform --json FILE"
_FAMILY = FORMAT.partition("/")[0] + "/"


class _Wrong(Exception):
    """What is wrong with a report, without the file's name."""


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "a text": lambda v: isinstance(v, str),
    "an object": lambda v: isinstance(v, dict),
    "a list": lambda v: isinstance(v, list),
    "a number": _is_number,
    "a whole number": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "a count": lambda v: isinstance(v, int) and _is_number(v) and v >= 0,
    # JSON has no infinity: the report writes it as text.
    "a real number": lambda v: _is_number(v) or isinstance(v, float) or v in ("inf", "-inf", "nan"),
    "an outcome": lambda v: v in OUTCOMES,
}
_OR_NULL = " or null"

_REPORT = {
    "created": "a text", "backend": "an object", "versions": "an object", "profile": "a text",
    "seed": "a whole number", "only": "a text or null", "model": "a text or null", "seconds": "a number",
    "verdict": "a text", "score": "a number", "counts": "an object", "properties": "a list",
}  # fmt: skip
_BACKEND = dict.fromkeys(("given", "name", "library", "dtype", "device"), "a text or null") | {
    "arithmetic": "an object or null"
}
_PROPERTY = {
    "id": "a text", "level": "a text", "op": "a text", "says": "a text", "outcome": "an outcome",
    "waived": "a text or null", "examples": "a count", "seconds": "a number", "rho": "a real number or null",
    "ulps": "an object or null",
    "unjudged": "a number", "message": "a text", "failure": "an object or null",
}  # fmt: skip
_FAILURE = {
    "case": "a text or null", "script": "a text or null", "worst": "an object or null", "looks_like": "a text or null",
    "first_divergence": "an object or null", "growth": "a list or null",
}  # fmt: skip
_WORST = {"output": "a text", "index": "a list"} | dict.fromkeys(
    ("got", "expected", "bound", "rho", "ulps"), "a real number or null"
)
_FIRST = dict.fromkeys(("where", "op", "direction"), "a text or null") | {"rho": "a real number or null"}
_PLACE = {"where": "a text", "error": "a real number or null", "rho": "a real number or null"}


def _check(where: str, value: Any, shape: Mapping[str, str], *, partial: bool = False) -> None:
    """Raise `_Wrong` unless value is an object with the shape's keys, each of its kind; ``partial``: some may lack."""
    if not isinstance(value, dict):
        raise _Wrong(f"{where} is not an object")
    lacks = sorted(set(shape) - set(value))
    if lacks and not partial:
        raise _Wrong(f"{where} lacks {', '.join(lacks)}")
    for key, kind in shape.items():
        if key not in value or (value[key] is None and kind.endswith(_OR_NULL)):
            continue
        if not _KINDS[kind.removesuffix(_OR_NULL)](value[key]):
            raise _Wrong(f'{where}: "{key}" is not {kind}')


def _check_report(data: dict[str, Any]) -> None:
    _check("the report", data, _REPORT)
    _check('"backend"', data["backend"], _BACKEND, partial=True)
    _check('"counts"', data["counts"], dict.fromkeys(STATES, "a count"))
    if not data["properties"]:
        raise _Wrong("the report has no properties")
    seen: set[str] = set()
    for number, row in enumerate(data["properties"], start=1):
        _check(f"property {number}", row, _PROPERTY)
        where = f'property "{row["id"]}"'
        if row["id"] in seen:
            raise _Wrong(f"{where} comes twice")
        seen.add(row["id"])
        _check_details(where, row)
    tally = Counter(_state(row) for row in data["properties"])
    if any(data["counts"][state] != tally[state] for state in STATES):
        raise _Wrong("its counts are not those of its properties")


def _check_details(where: str, row: Row) -> None:
    for edge, count in (row["ulps"] or {}).items():
        if not re.fullmatch(r">?[0-9]{1,9}(\.[0-9]{1,9})?", edge) or not _KINDS["a count"](count):
            raise _Wrong(f'{where}: "ulps" does not count entries by their distance')
    failure = row["failure"]
    if failure is None:
        return
    _check(f"{where}, failure", failure, _FAILURE, partial=True)
    for key, shape in (("worst", _WORST), ("first_divergence", _FIRST)):
        if failure.get(key) is not None:
            _check(f"{where}, {key}", failure[key], shape)
    for place in failure.get("growth") or ():
        _check(f"{where}, growth", place, _PLACE)


# -- HTML ------------------------------------------------------------------------------------------


class Html(str):
    """Text that is HTML already. Every other text is escaped on its way into the page."""

    __slots__ = ()


_VOID = frozenset({"meta", "link", "input", "br"})
# The page asks for nothing and runs nothing, whatever a report may hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
# What HTML or UTF-8 cannot hold, and what would reverse the text around it.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def _html(value: object) -> Html:
    return value if isinstance(value, Html) else Html(escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(value))))


def _join(parts: Iterable[object], between: str = "") -> Html:
    return Html(_html(between).join(_html(part) for part in parts if part is not None))


def _tag(name: str, /, *children: object, **attributes: object) -> Html:
    """One element: ``class_`` is class, ``aria_label`` is aria-label; what is None is left out."""
    words = (
        f' {key.rstrip("_").replace("_", "-")}="{_html(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    opening = f"<{name}{''.join(words)}>"
    return Html(opening if name in _VOID else f"{opening}{_join(children)}</{name}>")


def _soft(*children: object) -> Html:
    return _tag("span", *children, class_="soft")


def _sign(state: str) -> Html:
    return _tag(
        "svg", _tag("use", href=f"#sign-{state}"), class_=f"sign {state}", viewBox="0 0 12 12", aria_hidden="true"
    )


def _outcome(state: str, words: object = None) -> Html:
    return _tag("span", _sign(state), " ", words or state, class_=f"outcome {state}")


def _table(head: Sequence[object], body: Iterable[Html], label: str, class_: str | None = None) -> Html:
    """A table that scrolls by itself where the screen is narrow. body: its <tbody> elements."""
    columns = (
        cell if isinstance(cell, Html) and cell.startswith("<th") else _tag("th", cell, scope="col") for cell in head
    )
    caption = _tag("caption", label, class_="unseen")
    table = _tag("table", caption, _tag("thead", _tag("tr", *columns)), *body)
    # Focusable, so that it can be scrolled with the keyboard.
    return _tag("div", table, class_=f"scroll {class_ or ''}".strip(), tabindex="0", role="region", aria_label=label)


# -- numbers ---------------------------------------------------------------------------------------


def _real(value: Any) -> float | None:
    return None if value is None else float(value)


def _show(value: Any, digits: int = 2) -> str:
    """A number, shortly: 0.43, 170, 1.2e-5, ∞."""
    x = _real(value)
    if x is None:
        return "–"
    if math.isnan(x):
        return "NaN"
    if math.isinf(x):
        return "∞" if x > 0 else "-∞"
    if 10**digits <= abs(x) < 1e5:
        return f"{x:.0f}"
    return re.sub(r"e([+-])0*(\d)", lambda m: f"e{m[1].strip('+')}{m[2]}", f"{x:.{digits}g}")


def _percent(share: float) -> str:
    """Rounded down: 100 % is all, not nearly all."""
    return f"{math.floor(1000 * share + 1e-9) / 10:.1f} %"


def _time(seconds: float) -> str:
    if seconds < 120:
        return "<0.01 s" if 0 < seconds < 0.01 else f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _date(text: str) -> str:
    found = _moment(text)
    return text if found.year == 1 or found.utcoffset() else f"{found:%Y-%m-%d %H:%M} UTC"


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


# -- what is shown ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One report and its place on the page. number: 0, 1, …; name: the backend; label: unlike every other run's."""

    report: Report
    number: int
    name: str
    label: str
    rows: Mapping[str, Row]

    @property
    def kind(self) -> str:
        """The label without the name."""
        return self.label.removeprefix(self.name).strip()


def _runs(reports: Sequence[Report]) -> list[Run]:
    keys = [_key(report) for report in reports]
    total, seen = Counter(keys), Counter[tuple[str, ...]]()
    runs = []
    for number, (report, key) in enumerate(zip(reports, keys, strict=True)):
        seen[key] += 1
        label = " ".join(word for word in key if word) + (f" #{seen[key]}" if total[key] > 1 else "")
        runs.append(Run(report, number, key[0], label, {row["id"]: row for row in report["properties"]}))
    return runs


def _key(report: Report) -> tuple[str, ...]:
    """What makes two reports ones of the same thing: backend, dtype, device."""
    backend = report["backend"]
    name = backend.get("given") or backend.get("name") or "unnamed backend"
    return (str(name), str(backend.get("dtype") or ""), str(backend.get("device") or ""))


def _state(row: Row) -> str:
    return "waived" if row["waived"] else str(row["outcome"])


@dataclass(frozen=True)
class Line:
    """A property, as all runs together know it. slug: names its anchor; rows: by run, None where it was not asked."""

    id: str
    level: str
    op: str
    says: str
    slug: str
    rows: tuple[Row | None, ...]


def _lines(runs: Sequence[Run]) -> dict[str, list[Line]]:
    """level -> its properties, those of one op together, otherwise in the order of the reports."""
    first = {id: row for run in reversed(runs) for id, row in run.rows.items()}
    slugs: dict[str, str] = {}
    by_level: dict[str, dict[str, list[Line]]] = {level: {} for level in LEVELS}
    for id in dict.fromkeys(id for run in runs for id in run.rows):
        row = first[id]
        slug = base = re.sub(r"[^a-z0-9_./]+", "-", id.lower()).strip("-") or "property"
        while slug in slugs:
            slug = f"{base}-{len(slugs)}"
        slugs[slug] = id
        rows = tuple(run.rows.get(id) for run in runs)
        line = Line(id, row["level"], row["op"], row["says"], slug, rows)
        by_level.setdefault(line.level, {}).setdefault(line.op, []).append(line)
    return {level: [line for op in ops.values() for line in op] for level, ops in by_level.items() if ops}


def _named(line: Line) -> Html:
    """A property's id with its op in bold, without the level."""
    rest = line.id.removeprefix(f"{line.level}/").removeprefix(line.op).lstrip("/")
    return _join([_tag("b", line.op), _tag("span", "/", class_="slash"), rest] if rest else [_tag("b", line.op)])


def _link(line: Line) -> Html:
    return _tag("a", line.id, href=f"#{quote(line.slug)}", class_="id")


def _who(run: Run) -> Html:
    return _tag("span", _mark(run), " ", _tag("b", run.name), " ", _soft(run.kind), class_="who")


def _head(run: Run) -> Html:
    return _tag("th", _who(run), scope="col")


def page(reports: Sequence[Report], *, earlier: Sequence[Report] = ()) -> str:
    """The page, side by side for several reports; ``earlier`` ones of the same backend, dtype, device give the trend.

    The same reports give the same page. Raises `InputError` without a report.
    """
    if not reports:
        raise InputError("no report to show: name at least one file that refbert conform --json wrote")
    runs = _runs(reports)
    levels = _lines(runs)
    lines = [line for level in levels.values() for line in level]
    failed = sum(_state(row) == "failed" for line in lines for row in line.rows if row)
    summary = ", ".join((
        _plural(len(runs), "backend", "backends"), _plural(len(lines), "property", "properties"),
        _plural(failed, "failure", "failures"),
    ))  # fmt: skip
    sections = [
        ("backends", "Backends", _tag("div", *map(_card, runs), class_="cards")),
        ("levels", "Levels", _matrix(runs, levels)),
        ("trend", "Trend", _trend(runs, earlier, lines) if earlier else None),
        ("failures", "Failures", _failures(runs, lines)),
        ("waivers", "Waivers", _waivers(runs, lines)),
        ("properties", "Properties", _properties(runs, levels)),
    ]
    shown = [(id, title, body) for id, title, body in sections if body]
    nav = _tag("nav", *(_tag("a", title, href=f"#{id}") for id, title, _ in shown), aria_label="Sections")
    header = _tag(
        "header",
        _tag("p", "refbert", class_="brand"),
        _tag("h1", "Conformance scoreboard"),
        _tag(
            "p", _tag("b", summary), ". Each property is held to refbert’s own mathematics in float64. ρ is the worst "
            "error as a multiple of the bound that rounding alone may reach in the arithmetic that the backend "
            "declares; above 1, rounding does not explain it.", class_="lead",
        ),
        nav, _legend(),
    )  # fmt: skip
    main = _tag("main", *(_tag("section", _tag("h2", t), body, id=i, aria_label=t) for i, t, body in shown))
    style = files("refbert_conformance").joinpath("scoreboard.css").read_text(encoding="utf-8") + _widths(len(runs))
    title = f"Conformance: {', '.join(run.label for run in runs)}"
    head = _tag(
        "head",
        _tag("meta", charset="utf-8"),
        _tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        _tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _tag("meta", name="color-scheme", content="light dark"),
        _tag("link", rel="icon", href="data:,"),
        _tag("title", title),
        _tag("style", Html(style)),
    )  # fmt: skip
    return f"<!doctype html>\n{_tag('html', head, _tag('body', _symbols(), header, main), lang='en')}\n"


def _widths(count: int) -> str:
    """Tables scroll by themselves, heads in sight, where the screen is narrower than they are; else the page does."""
    plot, column = 12, 12.5
    widths = {"properties": 17 + plot + column * count, "levels": 8 + column * count}
    return "".join(
        f"\n:root{{--{name}:{width:g}rem}}"
        f"\n@media screen and (min-width:{width + 4:g}rem){{.of-{name}{{overflow:visible;max-height:none}}}}\n"
        for name, width in widths.items()
    )


def _symbols() -> Html:
    """Drawn once, used everywhere."""
    shapes = [_tag("symbol", _tag("path", d=d), id=f"mark-{i}", viewBox="-6 -6 12 12") for i, d in enumerate(_SHAPES)]
    signs = [
        _tag("symbol", _tag("path", d=d), id=f"sign-{state}", viewBox="-6 -6 12 12") for state, d in _SIGNS.items()
    ]
    return _tag("svg", *shapes, *signs, class_="unseen", aria_hidden="true")


def _legend() -> Html:
    outcomes = _tag(
        "dl",
        *(_tag("div", _tag("dt", _outcome(state)), _tag("dd", meaning)) for state, meaning in _MEANING.items()),
        class_="legend",
    )
    return _tag(
        "details", _tag("summary", "How to read this page"), outcomes,
        _tag(
            "p", "ρ is drawn on a log axis from 10", _tag("sup", "−4"), " to 10", _tag("sup", "2"), "; the line is at "
            "ρ = 1, and what lies outside is drawn at the edge. A property that asks for equality "
            "has no ρ: it is exact.",
        ),
        _tag(
            "p", "Bars count entries by their distance from the truth in units in the last place, on a log scale: ",
            ", ".join(f"{'up to ' if edge else ''}{edge:g}" for edge in ULPS), f", more than {ULPS[-1]:g}. ρ, not the "
            "distance in ULPs, decides: where terms cancel, many ULPs may be rounding.",
        ),
        _tag(
            "p", "The score is the share of properties that passed of all that were asked for; waived, unsupported and "
            "unavailable ones lower it. Entries without a finite bound are not judged; their share is given.",
        ), class_="how",
    )  # fmt: skip


# -- pictures --------------------------------------------------------------------------------------


def _mark(run: Run) -> Html:
    # Its own path: browsers may print no <use> in the head of a table that they repeat on every page.
    path = _tag("path", d=_SHAPES[_shape(run)])
    return _tag("svg", path, class_=f"mark {_colour(run)}", viewBox="-6 -6 12 12", aria_hidden="true")


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
    return _join([_tag("path", d=decades, class_="grid"), _tag("path", d=f"M{_x(1.0):g} 0V{height}", class_="one")])


def _axis() -> Html:
    """The scale above the plots."""
    texts = [
        _tag("text", "10", _tag("tspan", str(d).replace("-", "−"), dy="-4", class_="power"), x=_x(10.0**d), y=13)
        for d in range(_DECADES[0], _DECADES[1], 2)
        if d
    ]
    texts += [_tag("text", "1", x=_x(1.0), y=13, class_="unit"), _tag("text", "100", x=_x(100.0), y=13)]
    return _tag("svg", *texts, class_="axis", width=_PLOT, height=16, aria_hidden="true")


def _plot(runs: Sequence[Run], rows: Sequence[Row | None]) -> Html:
    """ρ of every run, each on a lane of its own."""
    found = [(run, rho) for run, row in zip(runs, rows, strict=True) if row and (rho := _real(row["rho"])) is not None]
    if not found:
        return _soft("exact") if any(row and row["outcome"] in ("passed", "failed") for row in rows) else _soft("–")
    lane = 10
    height = lane * max(len(found), 2)
    top = (height - lane * len(found)) / 2
    marks = [
        _tag(
            "use", _tag("title", f"{run.label}: ρ = {_show(rho)}"), href=f"#mark-{_shape(run)}", class_=_colour(run),
            x=_x(rho) - 5, y=top + lane * i, width=lane, height=lane,
        )
        for i, (run, rho) in enumerate(found)
    ]  # fmt: skip
    label = "; ".join(f"{run.label}: ρ = {_show(rho)}" for run, rho in found)
    return _tag("svg", _grid(height), *marks, class_="plot", width=_PLOT, height=height, role="img", aria_label=label)


def _ulps(histogram: Mapping[str, int] | None) -> Html | None:
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
    base = _tag("path", d=f"M0 16.5H{width}", class_="base")
    drawn = _tag("path", d=bars, class_="bars")
    return _tag(
        "svg", _tag("title", label), base, drawn, class_="ulps", width=width, height=17, role="img", aria_label=label
    )


def _shares(counts: Mapping[str, int]) -> Html:
    """The outcomes as one bar; its words stand beside it."""
    total, x, parts = sum(counts.values()) or 1, 0.0, []
    for state in STATES:
        if counts[state]:
            width = 100 * counts[state] / total
            parts.append(_tag("rect", x=f"{x:.3f}", width=f"{width:.3f}", height=6, class_=state))
            x += width
    return _tag("svg", *parts, class_="shares", viewBox="0 0 100 6", preserveAspectRatio="none", aria_hidden="true")


def _growth(places: Sequence[Mapping[str, Any]]) -> Html:
    """Error by place, from the input on: a line down the page, log axis."""
    by_rho = all(_real(place["rho"]) is not None for place in places)
    values = [_real(place["rho"] if by_rho else place["error"]) for place in places]
    ends = [math.log10(v) for v in values if v is not None and 0 < v < math.inf] + [0.0] * by_rho
    low, high = (math.floor(min(ends)), math.ceil(max(ends))) if ends else (-1, 0)
    high = max(high, low + 1)
    lane, names, width = 20, 190, 240
    bottom = lane * len(places)
    step = -(-(high - low) // 6)  # at most seven ticks
    ticks = range(low, high + 1, step)
    grid = "".join(f"M{names + _x(10.0**d, low, high, width):g} 0V{bottom}" for d in ticks)
    parts = [_tag("path", d=grid, class_="grid")]
    if by_rho:
        parts.append(_tag("path", d=f"M{names + _x(1.0, low, high, width):g} 0V{bottom}", class_="one"))
    points, texts = [], []
    for i, (place, value) in enumerate(zip(places, values, strict=True)):
        y = lane * i + lane // 2
        where = str(place["where"])
        short = where if len(where) <= 30 else f"{where[:29]}…"
        texts.append(_tag("text", _tag("title", where), short, x=names - 6, y=y + 4, class_="end"))
        if value is not None:
            points.append((names + _x(value, low, high, width), y))
            texts.append(_tag("text", _show(value), x=names + width + 4, y=y + 4))
    parts.append(
        _tag("path", d="M" + "L".join(f"{x:g} {y}" for x, y in points), class_="trace") if points else Html("")
    )
    parts += [_tag("circle", cx=f"{x:g}", cy=y, r=3.5) for x, y in points]
    texts += [
        _tag("text", "10", _tag("tspan", str(d).replace("-", "−"), dy="-4", class_="power"), class_="middle",
             x=names + _x(10.0**d, low, high, width), y=bottom + 15)
        for d in ticks
    ]  # fmt: skip
    what = "ρ" if by_rho else "relative distance from the truth"
    label = f"{what}, place by place: " + "; ".join(
        f"{place['where']}: {_show(value)}" for place, value in zip(places, values, strict=True)
    )
    size = {"width": names + width + 60, "height": bottom + 22}
    chart = _tag("svg", *parts, *texts, class_="growth", role="img", aria_label=label, **size)
    return _tag(
        "figure", _tag("figcaption", f"How it grows: {what}, place by place"), _tag("div", chart, class_="wide")
    )


# -- sections --------------------------------------------------------------------------------------


def _card(run: Run) -> Html:
    report, backend = run.report, run.report["backend"]
    good = report["verdict"] == "conformant"
    verdict = _outcome("passed" if good else "failed", report["verdict"])
    counts = report["counts"]
    share = f"{counts['passed']} of {sum(counts[state] for state in STATES)}"
    facts = [
        ("library", backend.get("library")), ("dtype", backend.get("dtype")), ("device", backend.get("device")),
        ("arithmetic", _arithmetic(backend.get("arithmetic"))), ("profile", report["profile"]),
        ("seed", report["seed"]), ("only", report["only"]), ("model", report["model"]),
        ("time", _time(report["seconds"])), ("run", _date(report["created"])),
        ("versions", _join((f"{name}\u00a0{version}" for name, version in report["versions"].items()), ", ")),
    ]  # fmt: skip
    listed = (_tag("div", _tag("dt", name), _tag("dd", value)) for name, value in facts if value not in (None, ""))
    return _tag(
        "article",
        _tag("h3", _who(run)),
        _tag(
            "div", _tag("p", verdict, class_="verdict"),
            _tag("p", _tag("b", _percent(report["score"])), " ", _soft(share), class_="score"),
            class_="result",
        ),
        _shares(counts),
        _tag("ul", *(_tag("li", _outcome(s, f"{counts[s]} {s}"), class_=None if counts[s] else "none") for s in STATES),
             class_="counts"),
        _tag("dl", *listed), class_="card",
    )  # fmt: skip


def _arithmetic(declared: Mapping[str, Any] | None) -> Html | None:
    """What the backend declares, roundoffs as powers of two; what is off or nothing is left out."""
    if not declared:
        return None
    parts = []
    for name, value in declared.items():
        if value in (None, False, 0, "", [], {}):
            continue
        text: object = ", ".join(map(str, value)) if isinstance(value, list) else value
        if isinstance(value, float):
            power = math.isfinite(value) and math.frexp(value)
            text = _join(["2", _tag("sup", f"−{1 - power[1]}")]) if power and power[0] == 0.5 else _show(value, 3)
        word = _tag("i", "u") if name == "u" else name.removeprefix("u_").replace("_", " ")
        parts.append(
            _tag("span", word, *([] if value is True else [" = " if name == "u" else " ", text]), class_="whole")
        )
    return _join(parts, ", ")


def _matrix(runs: Sequence[Run], levels: Mapping[str, Sequence[Line]]) -> Html:
    body = []
    for level, lines in levels.items():
        cells = [_level_cell([line.rows[run.number] for line in lines]) for run in runs]
        link = _tag("a", level, href=f"#level-{quote(_level_slug(level))}")
        body.append(_tag("tr", _tag("th", link, scope="row"), *cells))
    return _table(["level", *map(_head, runs)], [_tag("tbody", *body)], "Outcomes by level", "of-levels")


def _level_cell(rows: Sequence[Row | None]) -> Html:
    here = [row for row in rows if row]
    if not here:
        return _tag("td", _soft("not asked"))
    counts = Counter(_state(row) for row in here)
    worst = _worst(row["rho"] for row in here)
    words = _join((_outcome(state, f"{counts[state]} {state}") for state in STATES if counts[state]), " ")
    tried = counts["passed"] + counts["failed"] + counts["waived"]
    text = _join(["worst ρ ", _rho(worst)]) if worst is not None else "all exact" if tried else ""
    return _tag("td", _shares(counts), _tag("div", words, class_="words"), _soft(text))


def _worst(values: Iterable[Any]) -> float | None:
    found = [x for value in values if (x := _real(value)) is not None]
    return math.nan if any(math.isnan(x) for x in found) else max(found, default=None)


def _rho(value: float) -> Html:
    return _tag("span", _show(value), class_=None if value <= 1 else "over")


def _level_slug(level: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", level.lower()).strip("-") or "other"


def _properties(runs: Sequence[Run], levels: Mapping[str, Sequence[Line]]) -> Html:
    choices = (
        ("all", "all", ""),
        ("not-passed", "not passed everywhere", None),
        ("failed", "failed or waived somewhere", None),
    )
    filters = _tag(
        "fieldset", _tag("legend", "Show"),
        *(
            _tag("label", _tag("input", type="radio", name="show", id=f"show-{id}", checked=checked), words)
            for id, words, checked in choices
        ), class_="filter",
    )  # fmt: skip
    parts = [filters]
    for level, lines in levels.items():
        head = ["property", _tag("th", "ρ ", _axis(), scope="col", class_="plots"), *map(_head, runs)]
        body, group = [], list[Html]()
        for i, line in enumerate(lines):
            group.append(_property(runs, line))
            if i + 1 == len(lines) or lines[i + 1].op != line.op:
                body.append(_tag("tbody", *group))
                group = []
        title = _tag("h3", level.capitalize() if level in LEVELS else level, " ",
                     _soft(_plural(len(lines), "property", "properties")))  # fmt: skip
        table = _table(head, body, f"Properties of the level {level}", "of-properties")
        parts.append(_tag("div", title, table, id=f"level-{_level_slug(level)}", class_="level"))
    return _join(parts)


def _property(runs: Sequence[Run], line: Line) -> Html:
    states = {_state(row) if row else "passed" for row in line.rows}
    kind = "bad" if states & {"failed", "waived"} else "clean" if states == {"passed"} else "lacking"
    anchor = _tag("a", "#", href=f"#{quote(line.slug)}", class_="anchor", aria_label=f"Link to {line.id}")
    name = _tag(
        "th", _tag("span", _named(line), class_="id"), " ", anchor, _tag("span", line.says, class_="says"), scope="row"
    )
    cells = (_cell(run, line) for run in runs)
    return _tag("tr", name, _tag("td", _plot(runs, line.rows), class_="plots"), *cells, id=line.slug, class_=kind)


def _cell(run: Run, line: Line) -> Html:
    row = line.rows[run.number]
    if row is None:
        return _tag("td", _soft("not asked"))
    state = _state(row)
    word = _outcome(state)
    if row["outcome"] == "failed":
        word = _tag("a", word, href=f"#{quote(_failure_slug(run, line))}")
    rho = _real(row["rho"])
    first = [word, _tag("span", "ρ ", _rho(rho), class_="value") if rho is not None else None]
    facts = [f"{row['examples']} ex · {_time(row['seconds'])}" if row["examples"] else None]
    if row["unjudged"]:
        facts.append(f"{_show(100 * row['unjudged'])} % unjudged")
    said = row["waived"] or row["message"]
    return _tag(
        "td",
        _tag("div", *first, class_="first"),
        _tag(
            "div",
            _ulps(row["ulps"]),
            _soft(_join((_tag("span", f, class_="whole") for f in facts if f), " · ")),
            class_="facts",
        )
        if any(facts)
        else None,
        _tag("p", said, class_="said") if said and state != "passed" else None,
        class_=f"cell is-{state}",
    )


def _failure_slug(run: Run, line: Line) -> str:
    return f"failure-{run.number + 1}-{line.slug}"


def _failures(runs: Sequence[Run], lines: Sequence[Line]) -> Html:
    found = [(run, line, row) for line in lines for run in runs if (row := line.rows[run.number])]
    found = [one for one in found if one[2]["outcome"] == "failed"]
    if not found:
        return _tag("p", _sign("passed"), " No property failed.", class_="none")
    # Waived ones last: they are expected.
    ordered = sorted(found, key=lambda one: _state(one[2]) == "waived")
    return _join(_failure(run, line, row, unfolded=len(found) <= _OPEN) for run, line, row in ordered)


def _failure(run: Run, line: Line, row: Row, *, unfolded: bool) -> Html:
    failure = row["failure"] or {}
    worst, first = failure.get("worst"), failure.get("first_divergence")
    summary = _tag(
        "summary", _outcome(_state(row)), " ", _tag("span", line.id, class_="id"), " ", _who(run),
        _tag("span", row["message"], class_="message"),
    )  # fmt: skip
    clues: list[Html | None] = [
        _tag("p", line.says, " ", _tag("a", "All backends", href=f"#{quote(line.slug)}")),
        _tag("p", _tag("b", "Waived: "), row["waived"], class_="waived-for") if row["waived"] else None,
        _tag("p", "Behaves like ", _tag("strong", failure["looks_like"]), ".") if failure.get("looks_like") else None,
    ]
    if first:
        rho = _join([", ρ = ", _show(first["rho"])]) if first["rho"] is not None else None
        op = _tag("strong", first["op"] or "?")
        clues.append(_tag("p", "First to diverge: ", op, f" ({first['direction']}) in {first['where']}", rho, "."))
    if failure.get("case"):
        clues.append(
            _tag("figure", _tag("figcaption", "Smallest case found"), _tag("pre", failure["case"], tabindex="0"))
        )
    if worst:
        clues.append(_worst_element(worst, line))
    if failure.get("growth"):
        clues.append(_growth(failure["growth"]))
    if failure.get("script"):
        clues.append(_tag("p", "Reproduce: ", _tag("code", f"python {failure['script']}")))
    return _tag(
        "details",
        summary,
        _tag("div", *clues, class_="clues"),
        id=_failure_slug(run, line),
        open="" if unfolded else None,
    )


def _worst_element(worst: Mapping[str, Any], line: Line) -> Html:
    place = f"{worst['output']}[{', '.join(map(str, worst['index']))}]" if worst["index"] else worst["output"]
    values = (_show(worst["got"], 9), _show(worst["expected"], 9), _show(worst["bound"], 3), _show(worst["rho"], 3),
              _show(worst["ulps"], 3))  # fmt: skip
    cells = [_tag("th", _tag("code", place), scope="row"), *(_tag("td", value, class_="number") for value in values)]
    head = [
        "worst element",
        *(_tag("th", h, scope="col", class_="number") for h in ("got", "expected", "bound", "ρ", "ULPs")),
    ]
    return _table(head, [_tag("tbody", _tag("tr", *cells))], f"Worst element of {line.id}", "compact")


def _waivers(runs: Sequence[Run], lines: Sequence[Line]) -> Html | None:
    found = [
        _tag(
            "tr", _tag("th", _link(line), scope="row"), _tag("td", _who(run)), _tag("td", row["waived"]),
            _tag("td", row["message"]),
        )
        for line in lines
        for run in runs
        if (row := line.rows[run.number]) and row["waived"]
    ]  # fmt: skip
    if not found:
        return None
    return _table(["property", "backend", "reason", "what fails"], [_tag("tbody", *found)], "Waivers", "compact prose")


# -- trend -----------------------------------------------------------------------------------------


def _trend(runs: Sequence[Run], earlier: Sequence[Report], lines: Sequence[Line]) -> Html:
    """What changed since the newest earlier report of the same backend, dtype and device."""
    by_id = {line.id: line for line in lines}
    parts = []
    for run in runs:
        past = sorted((e for e in earlier if _same(e, run.report)), key=lambda e: _moment(e["created"]))
        parts.append(_tag("h3", _who(run)))
        if past:
            parts.append(_since(run, past, by_id))
        else:
            parts.append(_tag("p", "No earlier report of this backend, dtype and device.", class_="none"))
    alone = [e for e in earlier if not any(_same(e, run.report) for run in runs)]
    if alone:
        names = "; ".join(run.label for run in _runs(alone))
        parts.append(_tag("p", f"Earlier reports that belong to none of these backends: {names}.", class_="soft"))
    return _join(parts)


def _same(a: Report, b: Report) -> bool:
    names = [{r["backend"].get(key) for key in ("given", "name")} - {None, ""} for r in (a, b)]
    return _key(a)[1:] == _key(b)[1:] and (_key(a)[0] == _key(b)[0] or bool(names[0] & names[1]))


_CHANGES = ("newly failing", "newly passing", "other outcome", "ρ more than doubled", "added", "gone")


def _changes(now: Mapping[str, Row], was: Mapping[str, Row]) -> list[tuple[str, str, Html, Html]]:
    """(kind of change, id, before, after), by kind."""
    found: list[tuple[str, str, Html, Html]] = []
    nothing = _soft("–")
    for id, row in now.items():
        if id not in was:
            found.append(("added", id, nothing, _outcome(_state(row))))
            continue
        before, after = _state(was[id]), _state(row)
        if before != after:
            kind = {"failed": "newly failing", "passed": "newly passing"}.get(after, "other outcome")
            found.append((kind, id, _outcome(before), _outcome(after)))
        a, b = _real(was[id]["rho"]), _real(row["rho"])
        if a is not None and b is not None and not math.isnan(a) and (b > _GROWN * a or math.isnan(b)):
            found.append(("ρ more than doubled", id, _rho(a), _rho(b)))
    found += [("gone", id, _outcome(_state(row)), nothing) for id, row in was.items() if id not in now]
    return sorted(found, key=lambda change: _CHANGES.index(change[0]))


def _since(run: Run, past: Sequence[Report], by_id: Mapping[str, Line]) -> Html:
    now, was = run.report, past[-1]
    changes = _changes(run.rows, {row["id"]: row for row in was["properties"]})
    counts = Counter(kind for kind, *_ in changes)
    ratio = f" (×{_show(now['seconds'] / was['seconds'])})" if was["seconds"] > 0 else ""
    tiles = [
        _tag("li", _tag("b", counts[kind]), " ", kind, class_=None if counts[kind] else "none")
        for kind in _CHANGES
        if counts[kind] or kind != "other outcome"
    ]
    tiles.append(_tag("li", "score ", _tag("b", f"{_percent(was['score'])} → {_percent(now['score'])}")))
    tiles.append(_tag("li", "time ", _tag("b", f"{_time(was['seconds'])} → {_time(now['seconds'])}{ratio}")))
    unlike = [key for key in ("profile", "seed", "only", "model") if now[key] != was[key]]
    caution = f" Other {' and '.join(unlike)}: outcomes and ρ may differ for that alone." if unlike else ""
    parts = [
        _tag("p", f"Since {_date(was['created'])}, with {_software(was)}.", caution, class_="soft"),
        _tag("ul", *tiles, class_="tiles"),
    ]
    if changes:
        body = []
        for kind, id, before, after in changes:
            name = _link(by_id[id]) if id in by_id else _tag("span", id, class_="id")
            body.append(
                _tag("tr", _tag("td", kind), _tag("th", name, scope="row"), _tag("td", before), _tag("td", after))
            )
        head = ["change", "property", "before", "now"]
        parts.append(_table(head, [_tag("tbody", *body)], f"Changes of {run.label}", "compact"))
    if len(past) > 1:
        parts.append(_history(run, past))
    return _join(parts)


def _software(report: Report) -> str:
    versions = report["versions"]
    known = [report["backend"].get("library"), f"refbert {versions['refbert']}" if "refbert" in versions else None]
    return ", ".join(str(name) for name in known if name) or "unknown versions"


def _history(run: Run, past: Sequence[Report]) -> Html:
    body = []
    for report in (*past, run.report):
        counts = report["counts"]
        body.append(
            _tag(
                "tr", _tag("th", _date(report["created"]), scope="row"), _tag("td", _shares(counts)),
                _tag("td", _percent(report["score"]), class_="number"),
                *(_tag("td", counts[state] or "·", class_="number") for state in STATES),
                _tag("td", _time(report["seconds"]), class_="number"), _tag("td", _software(report)),
            )
        )  # fmt: skip
    head = ["run", "", *(_tag("th", name, scope="col", class_="number") for name in ("score", *STATES, "time")), "with"]
    return _table(head, [_tag("tbody", *body)], f"All runs of {run.label}", "compact history")
