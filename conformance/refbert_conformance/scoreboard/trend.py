"""What changed since earlier reports of the same backend."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from refbert_conformance.scoreboard.html import Html, join, soft, table_of, tag
from refbert_conformance.scoreboard.labels import link_to, outcome, rho_text, who
from refbert_conformance.scoreboard.numbers import date, duration, moment, percent, real, show
from refbert_conformance.scoreboard.pictures import shares
from refbert_conformance.scoreboard.runs import STATES, Line, Report, Row, Run, counts_of, identity, runs_of, state_of

_GROWN = 2.0  # ρ has changed if it has more than doubled


def trend(runs: Sequence[Run], earlier: Sequence[Report], lines: Sequence[Line]) -> Html:
    """What changed since the newest earlier report of the same backend, dtype and device."""
    by_id = {line.id: line for line in lines}
    parts = []
    for run in runs:
        past = sorted((e for e in earlier if _same(e, run.report)), key=lambda e: moment(e["created"]))
        parts.append(tag("h3", who(run)))
        if past:
            parts.append(_since(run, past, by_id))
        else:
            parts.append(tag("p", "No earlier report of this backend, dtype and device.", class_="none"))
    alone = [e for e in earlier if not any(_same(e, run.report) for run in runs)]
    if alone:
        names = "; ".join(run.label for run in runs_of(alone))
        parts.append(tag("p", f"Earlier reports that belong to none of these backends: {names}.", class_="soft"))
    return join(parts)


def _same(a: Report, b: Report) -> bool:
    names = [{r["backend"].get(key) for key in ("given", "name")} - {None, ""} for r in (a, b)]
    return identity(a)[1:] == identity(b)[1:] and (identity(a)[0] == identity(b)[0] or bool(names[0] & names[1]))


_CHANGES = ("newly failing", "newly passing", "other outcome", "ρ more than doubled", "added", "gone")


def _changes(now: Mapping[str, Row], was: Mapping[str, Row]) -> list[tuple[str, str, Html, Html]]:
    """(kind of change, id, before, after), by kind."""
    found: list[tuple[str, str, Html, Html]] = []
    nothing = soft("–")
    for id, row in now.items():
        if id not in was:
            found.append(("added", id, nothing, outcome(state_of(row))))
            continue
        before, after = state_of(was[id]), state_of(row)
        if before != after:
            kind = {"failed": "newly failing", "passed": "newly passing"}.get(after, "other outcome")
            found.append((kind, id, outcome(before), outcome(after)))
        a, b = real(was[id]["rho"]), real(row["rho"])
        if a is not None and b is not None and not math.isnan(a) and (b > _GROWN * a or math.isnan(b)):
            found.append(("ρ more than doubled", id, rho_text(a), rho_text(b)))
    found += [("gone", id, outcome(state_of(row)), nothing) for id, row in was.items() if id not in now]
    return sorted(found, key=lambda change: _CHANGES.index(change[0]))


def _since(run: Run, past: Sequence[Report], by_id: Mapping[str, Line]) -> Html:
    now, was = run.report, past[-1]
    changes = _changes(run.rows, {row["id"]: row for row in was["properties"]})
    counts = Counter(kind for kind, *_ in changes)
    ratio = f" (×{show(now['seconds'] / was['seconds'])})" if was["seconds"] > 0 else ""
    tiles = [
        tag("li", tag("b", counts[kind]), " ", kind, class_=None if counts[kind] else "none")
        for kind in _CHANGES
        if counts[kind] or kind != "other outcome"
    ]
    tiles.append(tag("li", "score ", tag("b", f"{percent(was['score'])} → {percent(now['score'])}")))
    tiles.append(tag("li", "time ", tag("b", f"{duration(was['seconds'])} → {duration(now['seconds'])}{ratio}")))
    unlike = [key for key in ("effort", "seed", "only", "model") if now[key] != was[key]]
    caution = f" Other {' and '.join(unlike)}: outcomes and ρ may differ for that alone." if unlike else ""
    parts = [
        tag("p", f"Since {date(was['created'])}, with {_software(was)}.", caution, class_="soft"),
        tag("ul", *tiles, class_="tiles"),
    ]
    if changes:
        body = []
        for kind, id, before, after in changes:
            name = link_to(by_id[id]) if id in by_id else tag("span", id, class_="id")
            body.append(tag("tr", tag("td", kind), tag("th", name, scope="row"), tag("td", before), tag("td", after)))
        head = ["change", "property", "before", "now"]
        parts.append(table_of(head, [tag("tbody", *body)], f"Changes of {run.label}", "compact"))
    if len(past) > 1:
        parts.append(_history(run, past))
    return join(parts)


def _software(report: Report) -> str:
    versions = report["versions"]
    known = [report["backend"].get("library"), f"refbert {versions['refbert']}" if "refbert" in versions else None]
    return ", ".join(str(name) for name in known if name) or "unknown versions"


def _history(run: Run, past: Sequence[Report]) -> Html:
    body = []
    for report in (*past, run.report):
        counts = counts_of(report)
        body.append(
            tag(
                "tr", tag("th", date(report["created"]), scope="row"), tag("td", shares(counts)),
                tag("td", percent(report["score"]), class_="number"),
                *(tag("td", counts[state] or "·", class_="number") for state in STATES),
                tag("td", duration(report["seconds"]), class_="number"), tag("td", _software(report)),
            )
        )  # fmt: skip
    head = ["run", "", *(tag("th", name, scope="col", class_="number") for name in ("score", *STATES, "time")), "with"]
    return table_of(head, [tag("tbody", *body)], f"All runs of {run.label}", "compact history")
