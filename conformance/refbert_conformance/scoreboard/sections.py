"""The sections of every page: a card for each backend, outcomes by level, and all properties."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from refbert.backend import contract_note
from refbert_conformance.engine.property import LEVELS
from refbert_conformance.scoreboard.failures import failure_slug
from refbert_conformance.scoreboard.html import Html, join, soft, table_of, tag
from refbert_conformance.scoreboard.labels import heading, named, outcome, rho_text, who
from refbert_conformance.scoreboard.numbers import date, duration, percent, plural, real, show
from refbert_conformance.scoreboard.pictures import axis, plot, shares, ulps
from refbert_conformance.scoreboard.runs import STATES, Line, Row, Run, counts_of, state_of


def card(run: Run) -> Html:
    """One run: what it was, its verdict, its score."""
    report, backend = run.report, run.report["backend"]
    state = {"not conformant": "failed", "inconclusive": "inconclusive"}.get(report["verdict"], "passed")
    verdict = outcome(state, report["verdict"])
    counts = counts_of(report)
    share = f"{counts['passed']} of {sum(counts[state] for state in STATES)}"
    facts = [
        ("library", backend.get("library")), ("dtype", backend.get("dtype")), ("device", backend.get("device")),
        ("arithmetic", _arithmetic(backend.get("arithmetic"))),
        ("contract", _contract(backend)),
        ("note", backend.get("note")), ("dtypes not judged", ", ".join(report.get("not_judged") or ())),
        ("effort", report["effort"]),
        ("seed", report["seed"]), ("only", report["only"]), ("model", report["model"]),
        ("time", duration(report["seconds"])), ("run", date(report["created"])),
        ("versions", join((f"{name}\u00a0{version}" for name, version in report["versions"].items()), ", ")),
    ]  # fmt: skip
    listed = (tag("div", tag("dt", name), tag("dd", value)) for name, value in facts if value not in (None, ""))
    return tag(
        "article",
        tag("h3", who(run)),
        tag(
            "div", tag("p", verdict, class_="verdict"),
            tag("p", tag("b", percent(report["score"])), " ", soft(share), class_="score"),
            class_="result",
        ),
        shares(counts),
        tag("ul", *(tag("li", outcome(s, f"{counts[s]} {s}"), class_=None if counts[s] else "none") for s in STATES),
             class_="counts"),
        tag("dl", *listed), class_="card",
    )  # fmt: skip


def _contract(backend: Mapping[str, Any]) -> str | None:
    """The version of the plugin contract; None in a report of before there were versions."""
    return contract_note(backend["contract"], said=backend["contract_said"]) if "contract" in backend else None


def _arithmetic(declared: Mapping[str, Any] | None) -> Html | None:
    """What the backend declares, roundoffs as powers of two; what is off or nothing is left out."""
    if not declared:
        return None
    parts = []
    for name, value in declared.items():
        if value in (None, False, 0, "", [], {}) or isinstance(value, Mapping):
            continue
        text: object = ", ".join(map(str, value)) if isinstance(value, list) else value
        if isinstance(value, float):
            power = math.isfinite(value) and math.frexp(value)
            text = join(["2", tag("sup", f"−{1 - power[1]}")]) if power and power[0] == 0.5 else show(value, 3)
        word = tag("i", "u") if name == "u" else name.removeprefix("u_").replace("_", " ")
        parts.append(
            tag("span", word, *([] if value is True else [" = " if name == "u" else " ", text]), class_="whole")
        )
    return join(parts, ", ")


def matrix(runs: Sequence[Run], levels: Mapping[str, Sequence[Line]]) -> Html:
    """Levels down, runs across."""
    body = []
    for level, lines in levels.items():
        cells = [_level_cell([line.rows[run.number] for line in lines]) for run in runs]
        link = tag("a", level, href=f"#level-{quote(_level_slug(level))}")
        body.append(tag("tr", tag("th", link, scope="row"), *cells))
    return table_of(["level", *map(heading, runs)], [tag("tbody", *body)], "Outcomes by level", "of-levels")


def _level_cell(rows: Sequence[Row | None]) -> Html:
    here = [row for row in rows if row]
    if not here:
        return tag("td", soft("not asked"))
    counts = Counter(state_of(row) for row in here)
    worst = _worst(row["rho"] for row in here)
    words = join((outcome(state, f"{counts[state]} {state}") for state in STATES if counts[state]), " ")
    tried = counts["passed"] + counts["failed"] + counts["waived"]
    text = join(["worst ρ ", rho_text(worst)]) if worst is not None else "all exact" if tried else ""
    return tag("td", shares(counts), tag("div", words, class_="words"), soft(text))


def _worst(values: Iterable[Any]) -> float | None:
    found = [x for value in values if (x := real(value)) is not None]
    return math.nan if any(math.isnan(x) for x in found) else max(found, default=None)


def _level_slug(level: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", level.lower()).strip("-") or "other"


def properties(runs: Sequence[Run], levels: Mapping[str, Sequence[Line]]) -> Html:
    """Every property of every level, its ρ drawn for all runs together, and what each run says."""
    choices = (
        ("all", "all", ""),
        ("not-passed", "not passed everywhere", None),
        ("failed", "failed or waived somewhere", None),
    )
    filters = tag(
        "fieldset", tag("legend", "Show"),
        *(
            tag("label", tag("input", type="radio", name="show", id=f"show-{id}", checked=checked), words)
            for id, words, checked in choices
        ), class_="filter",
    )  # fmt: skip
    parts = [filters]
    for level, lines in levels.items():
        head = ["property", tag("th", "ρ ", axis(), scope="col", class_="plots"), *map(heading, runs)]
        body, group = [], list[Html]()
        for i, line in enumerate(lines):
            group.append(_property(runs, line))
            if i + 1 == len(lines) or lines[i + 1].op != line.op:
                body.append(tag("tbody", *group))
                group = []
        title = tag("h3", level.capitalize() if level in LEVELS else level, " ",
                     soft(plural(len(lines), "property", "properties")))  # fmt: skip
        table = table_of(head, body, f"Properties of the level {level}", "of-properties")
        parts.append(tag("div", title, table, id=f"level-{_level_slug(level)}", class_="level"))
    return join(parts)


def _property(runs: Sequence[Run], line: Line) -> Html:
    states = {state_of(row) if row else "passed" for row in line.rows}
    kind = "bad" if states & {"failed", "waived"} else "clean" if states == {"passed"} else "lacking"
    anchor = tag("a", "#", href=f"#{quote(line.slug)}", class_="anchor", aria_label=f"Link to {line.id}")
    name = tag(
        "th", tag("span", named(line), class_="id"), " ", anchor, tag("span", line.says, class_="says"), scope="row"
    )
    cells = (_cell(run, line) for run in runs)
    return tag("tr", name, tag("td", plot(runs, line.rows), class_="plots"), *cells, id=line.slug, class_=kind)


def _cell(run: Run, line: Line) -> Html:
    row = line.rows[run.number]
    if row is None:
        return tag("td", soft("not asked"))
    state = state_of(row)
    word = outcome(state)
    if row["outcome"] == "failed":
        word = tag("a", word, href=f"#{quote(failure_slug(run, line))}")
    rho = real(row["rho"])
    first = [word, tag("span", "ρ ", rho_text(rho), class_="value") if rho is not None else None]
    facts = [f"{row['examples']} ex · {duration(row['seconds'])}" if row["examples"] else None]
    if row["unchecked"]:
        facts.append(f"{show(100 * row['unchecked'])} % unchecked")
    said = row["waived"] or row["message"]
    return tag(
        "td",
        tag("div", *first, class_="first"),
        tag(
            "div",
            ulps(row["ulps"]),
            soft(join((tag("span", f, class_="whole") for f in facts if f), " · ")),
            class_="facts",
        )
        if any(facts)
        else None,
        tag("p", said, class_="said") if said and state != "passed" else None,
        class_=f"cell is-{state}",
    )
