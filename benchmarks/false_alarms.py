"""No false alarms: every known-good backend and dtype at thorough effort, more than 10⁵ examples each.

    python benchmarks/false_alarms.py --out benchmarks/results/DATE-false-alarms.json [BACKEND:DTYPE …]

Nothing is waived; one that is not installed is unavailable. Exits with 1 if anything fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

GOOD = (
    "reference:float64", "reference:float32", "numpy:float32", "numpy:float64", "torch:float32", "torch:float64",
    "torch:bfloat16", "torch:float16", "jax:float32", "jax:float64",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", default=GOOD, metavar="BACKEND:DTYPE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--effort", default="thorough")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--device")
    arguments = parser.parse_args()
    rows = []
    for subject in arguments.subjects:
        backend, dtype = subject.split(":")
        with tempfile.TemporaryDirectory() as scratch:
            report = Path(scratch) / "report.json"
            command = [
                sys.executable, "-m", "refbert", "conform", "--backend", backend, "--dtype", dtype, "--effort",
                arguments.effort, "--seed", arguments.seed, "--json", str(report), "--scripts", scratch,
            ]  # fmt: skip
            if arguments.device:
                command += ["--device", arguments.device]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if not report.exists():
                print(f"{subject}: unavailable: {done.stderr.strip().splitlines()[-1]}", flush=True)
                rows.append({"subject": subject, "outcome": "unavailable"})
                continue
            data = json.loads(report.read_text(encoding="utf-8"))
        worst = [float(p["rho"]) for p in data["properties"] if p["rho"] is not None and p["outcome"] == "passed"]
        row = {
            "subject": subject,
            "outcome": data["verdict"],
            "examples": sum(p["examples"] for p in data["properties"]),
            "counts": data["counts"],
            "worst_rho": round(max(worst), 3),
            "seconds": data["seconds"],
            "failed": [[p["id"], p["message"]] for p in data["properties"] if p["outcome"] == "failed"],
            "backend": data["backend"],
            "versions": data["versions"],
        }
        rows.append(row)
        print(f"{subject}: {row['outcome']}, {row['examples']} examples, {len(row['failed'])} failed, worst ρ "
              f"{row['worst_rho']}, {row['seconds']:.0f} s", flush=True)  # fmt: skip
        arguments.out.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(any(row["outcome"] == "not conformant" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
