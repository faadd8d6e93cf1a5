"""The page itself: its head, its legend, and its sections in their order."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from refbert.errors import InputError
from refbert_conformance.engine.measure import ULPS
from refbert_conformance.scoreboard.failures import failures, waivers
from refbert_conformance.scoreboard.html import Html, tag
from refbert_conformance.scoreboard.labels import outcome
from refbert_conformance.scoreboard.numbers import plural
from refbert_conformance.scoreboard.pictures import symbols
from refbert_conformance.scoreboard.runs import Report, lines_of, runs_of, state_of
from refbert_conformance.scoreboard.sections import card, matrix, properties
from refbert_conformance.scoreboard.trend import trend

_MEANING = {
    "passed": "held on every example",
    "failed": "did not hold: a case, and a script that reproduces it",
    "inconclusive": "no answer in time, twice, without computing that long: the backend waits, or the machine was busy",
    "unsupported": "the backend does not offer it, or its dtype cannot judge it",
    "unavailable": "could not be tried here",
    "waived": "fails, as expected by the adopter's file of waivers, for the reason given there",
}
# The page asks for nothing and runs nothing, whatever a report may hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(reports: Sequence[Report], *, earlier: Sequence[Report] = ()) -> str:
    """The page, side by side for several reports; ``earlier`` ones of the same backend, dtype, device give the trend.

    The same reports give the same page. Raises `InputError` without a report.
    """
    if not reports:
        raise InputError("no report to show: name at least one file that refbert conform --json wrote")
    runs = runs_of(reports)
    levels = lines_of(runs)
    lines = [line for level in levels.values() for line in level]
    failed = sum(state_of(row) == "failed" for line in lines for row in line.rows if row)
    summary = ", ".join((
        plural(len(runs), "backend", "backends"), plural(len(lines), "property", "properties"),
        plural(failed, "failure", "failures"),
    ))  # fmt: skip
    sections = [
        ("backends", "Backends", tag("div", *map(card, runs), class_="cards")),
        ("levels", "Levels", matrix(runs, levels)),
        ("trend", "Trend", trend(runs, earlier, lines) if earlier else None),
        ("failures", "Failures", failures(runs, lines)),
        ("waivers", "Waivers", waivers(runs, lines)),
        ("properties", "Properties", properties(runs, levels)),
    ]
    shown = [(id, title, body) for id, title, body in sections if body]
    nav = tag("nav", *(tag("a", title, href=f"#{id}") for id, title, _ in shown), aria_label="Sections")
    header = tag(
        "header",
        tag("p", "refbert", class_="brand"),
        tag("h1", "Conformance scoreboard"),
        tag(
            "p", tag("b", summary), ". Each property is held to refbert’s own mathematics in float64. ρ is the worst "
            "error as a multiple of the bound that rounding alone may reach in the arithmetic that the backend "
            "declares; above 1, rounding does not explain it.", class_="lead",
        ),
        nav, _legend(),
    )  # fmt: skip
    main = tag("main", *(tag("section", tag("h2", t), body, id=i, aria_label=t) for i, t, body in shown))
    style = files("refbert_conformance.scoreboard").joinpath("scoreboard.css").read_text(encoding="utf-8")
    style += _widths(len(runs))
    title = f"Conformance: {', '.join(run.label for run in runs)}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Html(style)),
    )  # fmt: skip
    return f"<!doctype html>\n{tag('html', head, tag('body', symbols(), header, main), lang='en')}\n"


def _widths(count: int) -> str:
    """Tables scroll by themselves, heads in sight, where the screen is narrower than they are; else the page does."""
    plot, column = 12, 12.5
    widths = {"properties": 17 + plot + column * count, "levels": 8 + column * count}
    return (
        "".join(
            f"\n:root{{--{name}:{width:g}rem}}"
            f"\n@media screen and (min-width:{width + 4:g}rem){{.of-{name}{{overflow:visible;max-height:none}}}}\n"
            for name, width in widths.items()
        )
        + f"\n@media screen and (max-width:40rem){{:root{{--properties:{10.5 + 11 * count:g}rem}}}}\n"
    )


def _legend() -> Html:
    outcomes = tag(
        "dl",
        *(tag("div", tag("dt", outcome(state)), tag("dd", meaning)) for state, meaning in _MEANING.items()),
        class_="legend",
    )
    return tag(
        "details", tag("summary", "How to read this page"), outcomes,
        tag(
            "p", "ρ is drawn on a log axis from 10", tag("sup", "−4"), " to 10", tag("sup", "2"), "; the line is at "
            "ρ = 1, and what lies outside is drawn at the edge. A property that asks for equality "
            "has no ρ: it is exact.",
        ),
        tag(
            "p", "Bars count entries by their distance from the reference in units in the last place, on a log scale: ",
            ", ".join(f"{'up to ' if edge else ''}{edge:g}" for edge in ULPS), f", more than {ULPS[-1]:g}. ρ, not the "
            "distance in ULPs, decides: where terms cancel, many ULPs may be rounding.",
        ),
        tag(
            "p", "The score is the share of properties that passed of all that were asked for; all others lower it. "
            "Entries without a finite bound are not judged; their share is given.",
        ), class_="how",
    )  # fmt: skip
