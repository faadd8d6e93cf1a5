"""The results as one HTML page that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import html as escaping
import statistics
from collections.abc import Mapping
from typing import Any

from speed import charts, docs, scaling
from speed.report import least_bytes, operations, shown, verdict

STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --soft: #6b6b70; --line: #d9d9de; --ground: #fff;
  --ours: #2066c9; --peer: #d97a1d; --runtime: #2f8f5b; --bare: #8a8a92; --good: #2f8f5b; --bad: #c23b3b; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf0; --soft: #a0a0a8; --line: #3a3a40; --ground: #18181b;
  --ours: #6aa5f5; --peer: #f0a050; --runtime: #63c48f; --bare: #92929b; --good: #63c48f; --bad: #f07070; } }
body { background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } h3 { font-size: 1rem; margin-bottom: .2rem; }
p { color: var(--soft); } table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.met { color: var(--good); } .missed { color: var(--bad); } .none { color: var(--soft); }
.wide { overflow-x: auto; } .wide > table { min-width: 38rem; } .wide > svg { min-width: 46rem; }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; } text { fill: var(--ink); }
.on { fill: #fff; font-size: 10px; } .ours { fill: var(--ours); } .peer { fill: var(--peer); }
.runtime { fill: var(--runtime); } .bare { fill: var(--bare); }
.line, .roof { fill: none; stroke-width: 2; } .roof { stroke: var(--ink); } .ours-line { stroke: var(--ours); }
.peer-line { stroke: var(--peer); } .bare-line { stroke: var(--bare); } .grid { stroke: var(--line); fill: none; }
.ink { stroke: var(--ink); fill: none; } .part0 { fill: #2066c9; } .part1 { fill: #7a4fc0; } .part2 { fill: #b3453c; }
.part3 { fill: #a06a10; }
"""


def html(results: Mapping[str, Any]) -> str:
    """The page of a run, of the rows or of scaling."""
    parts = [f"<h1>refbert: {'how time grows' if results['what'] == 'scaling' else 'speed'}</h1>"]
    parts.append(f"<p>{escaping.escape(docs.machine_line(results))}</p>")
    parts += _scaling(results) if results["what"] == "scaling" else _speed(results)
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'><title>refbert: speed</title>"
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _speed(results: Mapping[str, Any]) -> list[str]:
    out = ["<h2>Targets</h2>", _rows(results["rows"]), "<h2>Roofline</h2>", _roofline(results), "<h2>Times</h2>"]
    out.append("<p>Medians; the line covers the middle half of the runs.</p>")
    for case in results["cases"]:
        values = {name: c["values"] for name, c in case["contenders"].items() if c.get("values")}
        out.append(f"<h3>{escaping.escape(case['name'])}</h3>")
        scale, unit = (1e-6, "MB") if case["quantity"] == "bytes" else (1e3, "ms")
        out.append(charts.bars(values, scale, unit) if values else "<p>not measured</p>")
        for name, contender in case["contenders"].items():
            why = contender.get("missing") or contender.get("failed")
            if why:
                out.append(f"<p>{escaping.escape(f'{name}: not measured: {why}')}</p>")
    return out


def _rows(rows: list[dict[str, Any]]) -> str:
    lines = ["<div class='wide'><table><tr><th>work</th><th>against</th><th>target</th><th>measured</th><th></th></tr>"]
    for row in rows:
        word = verdict(row)
        figure = shown(row) + ("" if row["cpu"] is None else f" (CPU time {row['cpu']:.3g})")
        cells = [escaping.escape(x.replace("`", "")) for x in (row["row"], row["against"], row["asked"], figure, word)]
        kind = word if word in ("met", "missed") else "none"
        lines.append(
            "<tr>" + "".join(f"<td>{x}</td>" for x in cells[:3])
            + f"<td class='{kind}'>{cells[3]}</td><td class='{kind}'>{cells[4]}</td></tr>"
        )  # fmt: skip
    return "".join(lines) + "</table></div>"


def _roofline(results: Mapping[str, Any]) -> str:
    roof = results.get("roof")
    points = []
    for case in results["cases"]:
        work = case["work"]
        if case["kind"] != "timed" or work.get("device") == "cuda" or work.get("dtype", "float32") != "float32":
            continue
        done, moved = operations(work), least_bytes(work)
        if done is None or moved is None:
            continue
        for name, contender in case["contenders"].items():
            if contender.get("values"):
                points.append((case["name"], name, done / moved, done / statistics.median(contender["values"])))
    if not points or roof is None:
        return "<p>not measured</p>"
    note = (
        "<p>Matrix products of the work (padding not counted) per second, over operations per byte that has to move at "
        "least: weights once, each layer's activations once. The roof is this machine's: a memory copy on the left, "
        f"{roof['bytes_per_second'] / 1e9:.0f} GB/s, and large float32 products. Blue: refbert; orange: Hugging Face; "
        "green: onnxruntime; grey: bare products. Points say who they are.</p>"
    )
    return note + charts.roofline(points, roof["flops_per_second"], roof["bytes_per_second"])


def _scaling(results: Mapping[str, Any]) -> list[str]:
    fixed = ", ".join(f"{name} = {value}" for name, value in scaling.DEFAULT.items())
    out = [
        f"<p>Everything but the axis at {fixed}, all threads. The parts: bare products of the linear maps and of "
        "attention, timed alone; Python, a model as deep but of the smallest sizes; the rest is the difference. "
        "Operations are refbert.config.flops's.</p>"
    ]
    for kind in ("forward", "step"):
        for axis in (*scaling.AXES, "threads"):
            points = [c for c in results["cases"] if c["work"]["kind"] == kind and c["work"]["axis"] == axis]
            if points:
                out += _axis(kind, axis, points)
    return out


def _axis(kind: str, axis: str, points: list[dict[str, Any]]) -> list[str]:
    out = [f"<h2>{'Forward' if kind == 'forward' else 'Forward and backward'} against {axis}</h2>"]
    series: dict[str, dict[float, float]] = {}
    for case in points:
        for name in (scaling.OURS, scaling.PEER, scaling.PRODUCTS):
            contender = case["contenders"].get(name, {})
            if contender.get("values"):
                series.setdefault(name, {})[case["work"]["at"]] = statistics.median(contender["values"]) * 1e3
    if series:
        out.append(charts.lines(series, axis, "ms"))
    parts = (scaling.PRODUCTS, scaling.ATTENTION, scaling.PYTHON, scaling.REST)
    rows = []
    for case in points:
        cost = scaling.costs(case)
        if cost is not None:
            at = f"{axis} = {case['work']['at']}"
            every = sum(cost["operations"].values())
            rows.append((f"{at}, operations", {name: n / every for name, n in cost["operations"].items()}))
            share = {name: seconds / cost["total"] for name, seconds in cost["seconds"].items()}
            rows.append((f"time, {cost['gflop_per_second']:.0f} GFLOP/s", share))
    if rows:
        out.append(charts.shares(rows, parts))
    return out
