"""The long run: ``python tests/fuzz [--minutes M] [--only NAME] [--write FILE]``, every target in a process of its own.

Each process may use 6 GB of addresses; in it an example may use 400 MB and 20 seconds of the processor. A process that
dies or takes too long is a finding too. Exit status: 0 without findings, 1 with.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

ROUND = 200  # examples with one seed
VERSIONS = ("refbert", "numpy", "tokenizers", "safetensors", "torch", "pyarrow", "hypothesis")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description="Fuzz refbert's readers.")
    parser.add_argument("--minutes", type=float, default=10, help="for all targets together (10)")
    parser.add_argument("--only", help="one target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="a JSON file for the counts and findings")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        print(json.dumps(fuzz(chosen.only, chosen.minutes * 60, chosen.seed)))
        return 0
    from targets import MAKERS

    names = [chosen.only] if chosen.only else list(MAKERS)
    rows = []
    for name in names:
        rows.append(row := in_a_process(name, chosen.minutes / len(names), chosen.seed))
        print(f"{name:15} {row['examples']:7,} examples, {row['refused']:7,} refused, {len(row['findings'])} findings")
        for finding in row["findings"]:
            print(f"    {finding}")
    if chosen.write:
        for row in rows:  # an example's bytes and a traceback's paths are for the terminal
            row["findings"] = [
                finding.partition(" Failing test case")[0].splitlines()[0] for finding in row["findings"]
            ]
        versions = {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}}
        report = {"date": time.strftime("%Y-%m-%d"), "seed": chosen.seed, "versions": versions, "targets": rows}
        chosen.write.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return int(any(row["findings"] for row in rows))


def in_a_process(name: str, minutes: float, seed: int) -> dict[str, Any]:
    """The target's row; a process that dies is a finding."""
    command = [sys.executable, __file__, "--child", "--only", name, "--minutes", str(minutes), "--seed", str(seed)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False,
                              timeout=60 * minutes + 120)  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"target": name, "examples": 0, "read": 0, "refused": 0, "findings": ["the process did not end"]}
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return {"target": name, "examples": 0, "read": 0, "refused": 0,
                "findings": [f"the process ended with {done.returncode}: {said[-1] if said else ''}"]}  # fmt: skip
    return dict(json.loads(done.stdout.splitlines()[-1]))


def fuzz(name: str, seconds: float, first: int) -> dict[str, Any]:
    """Rounds of examples, each with a seed of its own, until the time is over."""
    from hypothesis import HealthCheck, given, seed, settings
    from targets import MAKERS, Example
    from trying import attempt, warmed

    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = 6 << 30 if hard == resource.RLIM_INFINITY else min(6 << 30, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    target = warmed(MAKERS[name]())
    counts = {"read": 0, "refused": 0}
    findings: dict[str, str] = {}
    ends, number = time.monotonic() + seconds, first
    while time.monotonic() < ends:

        @seed(number)
        @settings(max_examples=ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(target.files.map(Example))
        def one(files: Example) -> None:
            if time.monotonic() < ends:
                counts[attempt(target, files)] += 1

        try:
            one()
        except Exception as error:  # noqa: BLE001 (whatever it is, it is a finding)
            at = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {os.path.basename(at.filename)}:{at.lineno}"
            notes = " ".join(getattr(error, "__notes__", []))
            findings.setdefault(kind, f"seed {number}: {kind}: {str(error)[:300]} {notes[:2000]}")
        number += 1
    return {"target": name, "examples": sum(counts.values()), **counts, "seeds": number - first,
            "findings": list(findings.values())}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
