"""What did not hold: each failure with all that is known of it, and the waivers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from refbert_conformance.engine.measure import telling
from refbert_conformance.scoreboard.html import Html, join, table_of, tag
from refbert_conformance.scoreboard.labels import link_to, outcome, rho_text, who
from refbert_conformance.scoreboard.numbers import real, show
from refbert_conformance.scoreboard.pictures import growth, sign
from refbert_conformance.scoreboard.runs import Line, Row, Run, state_of

_OPEN = 12  # with more failures than this, each is folded to one line


def failure_slug(run: Run, line: Line) -> str:
    """The anchor of a failure."""
    return f"failure-{run.number + 1}-{line.slug}"


def failures(runs: Sequence[Run], lines: Sequence[Line]) -> Html:
    """Every failed property of every run, and all that is known of it; waived ones last."""
    found = [(run, line, row) for line in lines for run in runs if (row := line.rows[run.number])]
    found = [one for one in found if one[2]["outcome"] == "failed"]
    if not found:
        return tag("p", sign("passed"), " No property failed.", class_="none")
    # Waived ones last: they are expected.
    ordered = sorted(found, key=lambda one: state_of(one[2]) == "waived")
    return join(_failure(run, line, row, unfolded=len(found) <= _OPEN) for run, line, row in ordered)


def _failure(run: Run, line: Line, row: Row, *, unfolded: bool) -> Html:
    failure = row["failure"] or {}
    worst, first = failure.get("worst"), failure.get("first_divergence")
    summary = tag(
        "summary", outcome(state_of(row)), " ", tag("span", line.id, class_="id"), " ", who(run),
        tag("span", row["message"], class_="message"),
    )  # fmt: skip
    clues: list[Html | None] = [
        tag("p", line.says, " ", tag("a", "All backends", href=f"#{quote(line.slug)}")),
        tag("p", tag("b", "Waived: "), row["waived"], class_="waived-for") if row["waived"] else None,
        tag("p", "Behaves like ", tag("strong", failure["looks_like"]), ".") if failure.get("looks_like") else None,
    ]
    if first:
        rho = join([", ρ = ", show(first["rho"])]) if first["rho"] is not None else None
        op = tag("strong", first["op"] or "?")
        clues.append(tag("p", "First to diverge: ", op, f" ({first['direction']}) in {first['where']}", rho, "."))
    if failure.get("hint"):
        clues.append(tag("p", tag("b", "Hint: "), failure["hint"], "."))
    if worst and row["rho"] is not None and row["rho"] != worst["rho"]:
        here = join(["; in the one below, which is as small as it gets, ", show(worst["rho"], 3)])
        clues.append(tag("p", "ρ in the worst case tried: ", rho_text(real(row["rho"]) or 0.0), here, "."))
    if failure.get("case"):
        clues.append(tag("figure", tag("figcaption", "Smallest case found"), tag("pre", failure["case"], tabindex="0")))
    if worst:
        clues.append(_worst_element(worst, line))
    if failure.get("growth"):
        clues.append(growth(failure["growth"]))
    if failure.get("script"):
        clues.append(tag("p", "Reproduce: ", tag("code", f"python {failure['script']}")))
    return tag(
        "details",
        summary,
        tag("div", *clues, class_="clues"),
        id=failure_slug(run, line),
        open="" if unfolded else None,
    )


def _worst_element(worst: Mapping[str, Any], line: Line) -> Html:
    place = f"{worst['output']}[{', '.join(map(str, worst['index']))}]" if worst["index"] else worst["output"]
    got, want = (real(worst[name]) for name in ("got", "expected"))
    digits = telling(got, want) if got is not None and want is not None else 9
    values = (show(got, digits), show(want, digits), show(worst["bound"], 3), show(worst["rho"], 3),
              show(worst["ulps"], 3))  # fmt: skip
    cells = [tag("th", tag("code", place), scope="row"), *(tag("td", value, class_="number") for value in values)]
    head = [
        "worst element",
        *(tag("th", h, scope="col", class_="number") for h in ("got", "expected", "bound", "ρ", "ULPs")),
    ]
    return table_of(head, [tag("tbody", tag("tr", *cells))], f"Worst element of {line.id}", "compact")


def waivers(runs: Sequence[Run], lines: Sequence[Line]) -> Html | None:
    """Every waiver and its reason; None without any."""
    found = [
        tag(
            "tr", tag("th", link_to(line), scope="row"), tag("td", who(run)), tag("td", row["waived"]),
            tag("td", row["message"]),
        )
        for line in lines
        for run in runs
        if (row := line.rows[run.number]) and row["waived"]
    ]  # fmt: skip
    if not found:
        return None
    return table_of(["property", "backend", "reason", "what fails"], [tag("tbody", *found)], "Waivers", "compact prose")
