"""The table in docs/performance.md, between two markers, from the JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speed.report import shown

BEGIN, END = "<!-- speed: begin (written by benchmarks/run.py) -->", "<!-- speed: end -->"


def write(path: Path, results: Mapping[str, Any]) -> None:
    """Replace what is between the markers; ValueError if they are not there, once each and in order."""
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{path}: needs one line '{BEGIN}' and after it one '{END}'")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n\n{table(results)}\n{END}{after}", encoding="utf-8")


def table(results: Mapping[str, Any]) -> str:
    """Which machine, then a line for each ratio, and what was not measured, by its reason."""
    rows = results["rows"]
    out = [*_machines(results), ""]
    if any(row["busy"] for row in rows if row["ratio"] is not None):
        out += [
            "**Made on a busy machine**: other processes used the cores meanwhile. Such rows decide nothing; the ratio "
            "of CPU times, which hardly feels what else runs, says the most.",
            "",
        ]
    out += ["| work | against | measured | row |", "| --- | --- | --- | --- |"]
    missing: dict[str, list[str]] = {}
    for row in rows:
        if row["ratio"] is None:
            missing.setdefault(row["why"], []).append(row["case"])
            continue
        cells = (row["row"], row["against"], f"**{shown(row)}**{_spread(row)}", f"`{row['case']}`")
        out.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    for why, cases in missing.items():
        out += ["", f"Not measured ({why}): {', '.join(f'`{case}`' for case in dict.fromkeys(cases))}."]
    return "\n".join(out) + "\n"


def _machines(results: Mapping[str, Any]) -> list[str]:
    """What was measured where: one line, or a list if the rows are of several runs."""
    if not results["cases"]:
        return ["Nothing measured yet."]
    runs = [run for run in results.get("runs", []) if run["cases"]]
    if len(runs) < 2:
        return [runs[0]["line"] if runs else machine_line(results)]
    return [f"* {run['line']} Rows: {', '.join(f'`{name}`' for name in run['cases'])}." for run in runs]


def machine_line(results: Mapping[str, Any]) -> str:
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    gpus = "; ".join(machine["gpus"]) or "no GPU"
    return (
        f"{results['date']}: {machine['cpu']}, {machine['threads']} threads on {machine['cores']} cores, {gpus}; "
        f"Python {machine['python']}, {machine['numpy_library']}, {versions}. {results['rounds']} rounds"
        f"{', --quick' if results['quick'] else ''}."
    )


def _spread(row: Mapping[str, Any]) -> str:
    if row["by_round"] is None or row["spread"] is None:
        return ""
    low, high = row["spread"]
    cpu = "" if row["cpu"] is None else f"; CPU time {row['cpu']:.3g}"
    return f" (by round {row['by_round']:.3g}, half within {low:.3g} to {high:.3g}{cpu})"
