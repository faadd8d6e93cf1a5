"""The scoreboard: one or several reports as one self-contained HTML page. No script, no font, no network."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from refbert.errors import InputError
from refbert_conformance.report import FORMAT

Report = Mapping[str, Any]
_LEVELS = ("contract", "forward", "backward", "blocks", "models", "pretrained", "training")
# Colour, sign and word: none of the three is needed to tell them apart.
_SIGNS = {"passed": "✓", "failed": "✗", "unsupported": "–", "unavailable": "?", "waived": "≈"}
_DECADES = (-4, 2)  # the ρ axis, from 10⁻⁴ to 10²
_WIDTH = 120


def read(path: Path) -> dict[str, Any]:
    """A report of ``refbert conform --json``; raises `InputError` for anything else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"{path}: not a report of this version ({FORMAT}): write one with refbert conform --json")
    lacks = sorted({"backend", "versions", "profile", "verdict", "counts", "properties"} - set(data))
    if lacks:
        raise InputError(f"{path}: the report lacks {', '.join(lacks)}")
    return data


def page(reports: Sequence[Report], *, earlier: Sequence[Report] = ()) -> str:
    """The page; ``earlier`` reports of the same backends give the trend. Raises `InputError` without a report."""
    if not reports:
        raise InputError("no report to show")
    names = _names(reports)
    style = files("refbert_conformance").joinpath("scoreboard.css").read_text(encoding="utf-8")
    parts = [
        "<h1>refbert conformance</h1>",
        '<p class="lead">Every property against refbert.ops in float64. ρ is the largest error as a share '
        "of its derived rounding bound; above 1 no order of rounding explains it.</p>",
        f'<div class="cards">{"".join(_card(name, r) for name, r in zip(names, reports, strict=True))}</div>',
        "<h2>Levels</h2>", _levels(names, reports),
        *([f"<h2>Since the earlier report</h2>{_trend(names, reports, earlier)}"] if earlier else []),
        "<h2>Failures</h2>", _failures(names, reports),
        "<h2>Properties</h2>", _properties(names, reports),
    ]  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>refbert conformance: {escape(', '.join(names))}</title><style>{style}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _names(reports: Sequence[Report]) -> list[str]:
    """Backend, dtype and device; numbered where that is not enough."""
    found: list[str] = []
    for report in reports:
        b = report["backend"]
        name = " ".join(str(b.get(key) or "?") for key in ("given", "dtype", "device"))
        same = sum(n == name or n.startswith(f"{name} (") for n in found)
        found.append(f"{name} ({same + 1})" if same else name)
    return found


def _card(name: str, report: Report) -> str:
    counts, backend, versions = report["counts"], report["backend"], report["versions"]
    word = "passed" if report["verdict"] == "conformant" else "failed"
    arithmetic = ", ".join(
        f"{k} {v}" for k, v in (backend.get("arithmetic") or {}).items() if v not in (False, [], 0.0)
    )
    rows = {
        "library": backend.get("library"),
        "arithmetic": arithmetic,
        "outcomes": ", ".join(f"{n} {k}" for k, n in counts.items() if n),
        "score": f"{100 * report['score']:.1f}%",
        "profile": f"{report['profile']}, seed {report['seed']}"
        + (f", only {report['only']}" if report["only"] else ""),
        "time": f"{report['seconds']:.0f} s, {report['created']}",
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
    }
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in rows.items() if v)
    verdict = f'<span class="verdict {word}">{_SIGNS[word]} {escape(report["verdict"])}</span>'
    return f'<section class="card"><h3>{escape(name)}</h3>{verdict}<dl>{items}</dl></section>'


def _outcome(row: Mapping[str, Any]) -> str:
    return "waived" if row.get("waived") else str(row["outcome"])


def _table(head: Iterable[str], rows: Iterable[str]) -> str:
    cells = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _levels(names: Sequence[str], reports: Sequence[Report]) -> str:
    rows = []
    for level in _LEVELS:
        cells = []
        for report in reports:
            here = [p for p in report["properties"] if p["level"] == level]
            count = {o: sum(_outcome(p) == o for p in here) for o in _SIGNS}
            shown = " ".join(f'<span class="{o}" title="{o}">{_SIGNS[o]} {n}</span>' for o, n in count.items() if n)
            worst = max((x for p in here if (x := _rho(p)) is not None), default=None)
            cells.append(f"<td>{shown or '<span class=soft>not asked</span>'} {_axis(worst)}</td>")
        rows.append(f'<tr><th scope="row">{level}</th>{"".join(cells)}</tr>')
    return _table(["level", *names], rows)


def _properties(names: Sequence[str], reports: Sequence[Report]) -> str:
    rows: list[str] = []
    tables = [{p["id"]: p for p in report["properties"]} for report in reports]
    every = dict.fromkeys(id for table in tables for id in table)
    for level in _LEVELS:
        here = [id for id in every if id.startswith(f"{level}/")]
        if here:
            rows.append(f'<tr class="level"><th scope="colgroup" colspan="{len(names) + 1}">{level}</th></tr>')
        for id in here:
            says = next(t[id]["says"] for t in tables if id in t)
            cells = "".join(f"<td>{_cell(t.get(id))}</td>" for t in tables)
            rows.append(
                f'<tr id="{escape(id)}"><th scope="row">{escape(id.split("/", 1)[1])}'
                f'<span class="soft">{escape(says)}</span></th>{cells}</tr>'
            )
    return _table(["property", *names], rows)


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return '<span class="soft">not asked</span>'
    outcome = _outcome(row)
    more = (
        f'<br><span class="soft">{row["examples"]} examples, {row["seconds"]:.2f} s</span>' if row["examples"] else ""
    )
    title = escape(str(row.get("waived") or row["message"]))
    return (
        f'<span class="{outcome}" title="{title}">{_SIGNS[outcome]} {outcome}</span> {_axis(_rho(row))} '
        f"{_ulps(row.get('ulps'))}{more}"
    )


def _rho(row: Mapping[str, Any]) -> float | None:
    return None if row.get("rho") is None else float(row["rho"])


def _axis(rho: float | None) -> str:
    """ρ on a log axis, with a line at 1."""
    if rho is None:
        return '<span class="soft">exact</span>'
    low, high = _DECADES

    def x(value: float) -> float:
        at = min(max(math.log10(value), low), high) if 0 < value < math.inf else (low if value == 0 else high)
        return 4 + (at - low) / (high - low) * (_WIDTH - 8)

    over = " over" if rho > 1 else ""
    return (
        f'<svg width="{_WIDTH}" height="14" role="img" aria-label="ρ = {rho:.3g}"><title>ρ = {rho:.3g}</title>'
        f'<line class="axis" x1="4" y1="7" x2="{_WIDTH - 4}" y2="7"/><line class="one" x1="{x(1):.1f}" y1="1" '
        f'x2="{x(1):.1f}" y2="13"/><circle class="dot{over}" cx="{x(rho):.1f}" cy="7" r="3.5"/></svg> {rho:.2g}'
    )


def _ulps(histogram: Mapping[str, int] | None) -> str:
    """How many entries lie how many ULPs off."""
    if not histogram:
        return ""
    total = sum(histogram.values())
    bars, title = [], []
    for i, (edge, count) in enumerate(sorted(histogram.items(), key=lambda item: float(item[0].lstrip(">")))):
        height = max(1.0, 12 * math.log1p(count) / math.log1p(total))
        bars.append(f'<rect class="bar" x="{5 * i}" y="{13 - height:.1f}" width="4" height="{height:.1f}"/>')
        title.append(f"{edge} ULP: {count}")
    label = escape("; ".join(title))
    return (
        f'<svg width="{5 * len(bars)}" height="13" role="img" aria-label="{label}"><title>{label}</title>'
        f"{''.join(bars)}</svg>"
    )


def _failures(names: Sequence[str], reports: Sequence[Report]) -> str:
    found = [
        _failure(name, row)
        for name, report in zip(names, reports, strict=True)
        for row in report["properties"]
        if row["outcome"] == "failed"
    ]
    return "".join(found) or '<p class="soft">None.</p>'


def _failure(name: str, row: Mapping[str, Any]) -> str:
    outcome, failure = _outcome(row), row.get("failure") or {}
    lines = [f"<p>{escape(row['says'])}</p><p>{escape(row['message'])}</p>"]
    if row.get("waived"):
        lines.append(f'<p class="waived">Waived: {escape(row["waived"])}</p>')
    if failure.get("looks_like"):
        lines.append(f"<p>Behaves like <strong>{escape(failure['looks_like'])}</strong>.</p>")
    first = failure.get("first_divergence")
    if first:
        lines.append(
            f"<p>First diverging operation: <strong>{escape(str(first['op']))}</strong> "
            f"({escape(str(first['direction']))}) in {escape(str(first['where']))}, "
            f"ρ = {escape(str(first['rho']))}.</p>"
        )
    if failure.get("case"):
        lines.append(f"<pre>{escape(failure['case'])}</pre>")
    if failure.get("growth"):
        rows = [
            f'<tr><th scope="row">{escape(str(g["where"]))}</th><td>{_axis(float(g["error"]))}</td></tr>'
            for g in failure["growth"]
        ]
        lines.append("<p>Relative distance from the truth, place by place:</p>" + _table(["where", "distance"], rows))
    if failure.get("script"):
        lines.append(f"<p>Reproduce: <code>python {escape(failure['script'])}</code></p>")
    title = f'<span class="{outcome}">{_SIGNS[outcome]} {outcome}</span> {escape(row["id"])}'
    return (
        f'<details open><summary>{title} <span class="soft">{escape(name)}</span></summary>{"".join(lines)}</details>'
    )


def _trend(names: Sequence[str], reports: Sequence[Report], earlier: Sequence[Report]) -> str:
    """What changed, backend by backend; ρ counts as changed when it has more than doubled."""
    before = dict(zip(_names(earlier), earlier, strict=True))
    parts = []
    for name, report in zip(names, reports, strict=True):
        old = before.get(name)
        if old is None:
            parts.append(f'<p>{escape(name)}: <span class="soft">no earlier report.</span></p>')
            continue
        was = {p["id"]: p for p in old["properties"]}
        now = {p["id"]: p for p in report["properties"]}
        changes = [f"{escape(i)}: {_outcome(was[i])} → {_outcome(now[i])}" for i in now if i in was
                   and _outcome(was[i]) != _outcome(now[i])]  # fmt: skip
        changes += [
            f"{escape(i)}: ρ {a:.2g} → {b:.2g}"
            for i in now
            if i in was and (a := _rho(was[i])) is not None and (b := _rho(now[i])) is not None and b > 2 * a > 0
        ]
        changes += [f"{escape(i)}: new" for i in now if i not in was] + [
            f"{escape(i)}: gone" for i in was if i not in now
        ]
        changes.append(f"time {old['seconds']:.0f} s → {report['seconds']:.0f} s")
        parts.append(f"<p><strong>{escape(name)}</strong></p><ul>{''.join(f'<li>{c}</li>' for c in changes)}</ul>")
    return "".join(parts)
