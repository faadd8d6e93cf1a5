"""The results as one HTML page that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from refbert.pages import fill
from speed import charts, docs, scaling
from speed.report import least_bytes, operations, shown, verdict

Part = tuple[str, Any]  # ("h2", "h3", "p", "rows" or "chart", what)


def html(results: Mapping[str, Any]) -> str:
    """The page of a run, of the rows or of scaling."""
    scaled = results["what"] == "scaling"
    parts = [("p", docs.machine_line(results)), *(_scaling if scaled else _speed)(results)]
    return fill("speed", "speed.html", title=f"refbert: {'how time grows' if scaled else 'speed'}", parts=parts)


def _speed(results: Mapping[str, Any]) -> list[Part]:
    out: list[Part] = [("h2", "Targets"), ("rows", _rows(results["rows"])), ("h2", "Roofline"), *_roofline(results)]
    out += [("h2", "Times"), ("p", "Medians; the line covers the middle half of the runs.")]
    for case in results["cases"]:
        values = {name: c["values"] for name, c in case["contenders"].items() if c.get("values")}
        out.append(("h3", case["name"]))
        scale, unit = (1e-6, "MB") if case["quantity"] == "bytes" else (1e3, "ms")
        out.append(("chart", charts.bars(values, scale, unit)) if values else ("p", "not measured"))
        for name, contender in case["contenders"].items():
            why = contender.get("missing") or contender.get("failed")
            if why:
                out.append(("p", f"{name}: not measured: {why}"))
    return out


def _rows(rows: list[dict[str, Any]]) -> list[list[str]]:
    out = []
    for row in rows:
        figure = shown(row) + ("" if row["cpu"] is None else f" (CPU time {row['cpu']:.3g})")
        cells = (row["row"], row["against"], row["asked"], figure, verdict(row))
        out.append([cell.replace("`", "") for cell in cells])
    return out


def _roofline(results: Mapping[str, Any]) -> list[Part]:
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
        return [("p", "not measured")]
    note = (
        "Matrix products of the work (padding not counted) per second, over operations per byte that has to move at "
        "least: weights once, each layer's activations once. The roof is this machine's: a memory copy on the left, "
        f"{roof['bytes_per_second'] / 1e9:.0f} GB/s, and large float32 products. Blue: refbert; orange: Hugging Face; "
        "green: onnxruntime; grey: bare products. Points say who they are."
    )
    return [("p", note), ("chart", charts.roofline(points, roof["flops_per_second"], roof["bytes_per_second"]))]


def _scaling(results: Mapping[str, Any]) -> list[Part]:
    fixed = ", ".join(f"{name} = {value}" for name, value in scaling.DEFAULT.items())
    note = (
        f"Everything but the axis at {fixed}, all threads. The parts: bare products of the linear maps and of "
        "attention, timed alone; Python, a model as deep but of the smallest sizes; the rest is the difference. "
        "Operations are refbert.config.flops's."
    )
    out: list[Part] = [("p", note)]
    for kind in ("forward", "step"):
        for axis in (*scaling.AXES, "threads"):
            points = [c for c in results["cases"] if c["work"]["kind"] == kind and c["work"]["axis"] == axis]
            if points:
                out += _axis(kind, axis, points)
    return out


def _axis(kind: str, axis: str, points: list[dict[str, Any]]) -> list[Part]:
    out: list[Part] = [("h2", f"{'Forward' if kind == 'forward' else 'Forward and backward'} against {axis}")]
    series: dict[str, dict[float, float]] = {}
    for case in points:
        for name in (scaling.OURS, scaling.PEER, scaling.PRODUCTS):
            contender = case["contenders"].get(name, {})
            if contender.get("values"):
                series.setdefault(name, {})[case["work"]["at"]] = statistics.median(contender["values"]) * 1e3
    if series:
        out.append(("chart", charts.lines(series, axis, "ms")))
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
        out.append(("chart", charts.shares(rows, parts)))
    return out
