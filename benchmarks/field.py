"""The field: everything that can run here, judged in one run, as one list of reports and a table.

    python benchmarks/field.py --out benchmarks/results/DATE-field.json [--effort E] [--only NAME …] [--table FILE.md]

What is not installed is unavailable, and says what is missing. With ``--add``, reports of an earlier run of the file
are kept where they are not judged again. Failures are kept: a verdict is a verdict.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
PATHS = [str(one) for one in sorted(EXAMPLES.glob("*/src"))] + [p for p in sys.path if p]
MARK = "<!-- table -->\n"


@dataclass(frozen=True)
class Subject:
    """backend: as `--backend` takes it. dtypes: each a run. options: more of the command line."""

    backend: str
    dtypes: tuple[str, ...] = ("float32",)
    options: tuple[str, ...] = ()


SUBJECTS = {
    "reference": Subject("reference", ("float64", "float32")),
    "numpy": Subject("numpy", ("float32", "float64")),
    "torch": Subject("torch", ("float32", "float64", "bfloat16", "float16")),
    "jax": Subject("refbert_jax:JaxBackend"),
    "mlx": Subject("refbert_mlx:MlxBackend", ("float32", "float64", "bfloat16", "float16")),
    "tinygrad": Subject("refbert_tinygrad:TinygradBackend", options=("--timeout", "120")),
    **{
        f"array-api {library}": Subject(f"array-api:{library}", options=("--timeout", "300"))
        for library in ("numpy", "array_api_strict", "torch", "jax.numpy", "dask.array")
    },
    "C": Subject(f"exec:{EXAMPLES / 'refbert-c' / 'refbert-c'}"),
    "JavaScript": Subject(f"exec:node {EXAMPLES / 'refbert-js' / 'main.js'}"),
}


def judged(subject: Subject, dtype: str, effort: str) -> tuple[dict[str, Any] | None, str]:
    """(the report, ""), or (None, why there is none)."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        done = subprocess.run(
            [sys.executable, "-m", "refbert", "conform", "--backend", subject.backend, "--dtype", dtype, "--effort",
             effort, "--json", str(report), "--scripts", scratch, *subject.options],
            cwd=ROOT, env=os.environ | {"PYTHONPATH": os.pathsep.join(PATHS)}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if not report.exists():
            return None, done.stderr.strip().splitlines()[-1]
        found = json.loads(report.read_text(encoding="utf-8"))
    found["backend"]["given"] = found["backend"]["given"].replace(f"{ROOT}/", "")
    return found, ""


def row(name: str, report: dict[str, Any]) -> str:
    """A line of the table."""
    backend, counts = report["backend"], report["counts"]
    worst = max((one["rho"] for one in report["properties"] if one["outcome"] == "passed" and one["rho"]), default=0.0)
    failed = ", ".join(one["id"] for one in report["properties"] if one["outcome"] == "failed")
    named = f"{failed[:200]} …" if len(failed) > 200 else failed
    return (
        f"| {name} | {backend['library']} | {backend['dtype']} | {report['verdict']} | {counts['passed']} | "
        f"{counts['failed']} | {counts['unsupported']} | {worst:.2f} | {report['seconds']:.0f} | {named} |"
    )


def table(reports: dict[str, Any]) -> str:
    """The table of the document, in Markdown."""
    head = "| backend | library | dtype | verdict | passed | failed | unsupported | worst ρ passed | seconds | fails |"
    lines = [head, "| --- " * 10 + "|"]
    for name, report in reports.items():
        lines.append(row(name.rpartition(" ")[0], report) if isinstance(report, dict) else f"| {name} | {report} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--effort", default="default")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--add", action="store_true")
    parser.add_argument("--table", type=Path)
    chosen = parser.parse_args()
    reports: dict[str, Any] = {}
    if chosen.add and chosen.out.exists():
        reports = json.loads(chosen.out.read_text(encoding="utf-8"))
    if shutil.which("cc"):
        source = EXAMPLES / "refbert-c" / "refbert.c"
        subprocess.run(["cc", "-O3", "-o", source.with_name("refbert-c"), source, "-lm"], check=True)
    for name, subject in SUBJECTS.items():
        for dtype in subject.dtypes if chosen.only is None or name in chosen.only else ():
            report, why = judged(subject, dtype, chosen.effort)
            reports[f"{name} {dtype}"] = report or why
            print(row(name, report) if report else f"{name} {dtype}: {why}", flush=True)
            text = json.dumps(reports, ensure_ascii=False, separators=(",", ":"))
            chosen.out.write_text(text + "\n", encoding="utf-8")
    if chosen.table is not None:
        before = chosen.table.read_text(encoding="utf-8").partition(MARK)[0]
        chosen.table.write_text(before + MARK + table(reports), encoding="utf-8")


if __name__ == "__main__":
    main()
