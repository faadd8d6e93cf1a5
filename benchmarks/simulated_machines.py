"""No false alarms on machines that err as much as each preset allows: more than 10⁵ examples together.

    python benchmarks/simulated_machines.py --out benchmarks/results/DATE-simulated-machines.json [PRESET …]

refbert.ops in float32 where every function is off by its whole allowance, up, down or at random (tests' `machines`),
judged by the accuracy properties of every op that uses one, at thorough effort. Exits with 1 if anything fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from refbert_conformance.engine import runner
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.table import matching
from refbert_conformance.tolerances.presets import PRESETS

sys.path.append(str(Path(__file__).parents[1] / "tests" / "conformance"))
from machines import Machine

OPS = (
    "layer_norm", "gelu", "tanh", "softmax", "attention", "attention_probabilities", "cross_entropy",
    "mean_squared_error", "dropout",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=list(PRESETS), metavar="PRESET")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--effort", default="thorough")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    properties = [p for p in matching("accuracy") if p.level in ("forward", "backward") and p.op in OPS]
    rows: list[dict[str, Any]] = []
    for name in arguments.presets:
        for signs in ("random", 1, -1):

            def make(functions: Any = PRESETS[name].functions, name: str = name, signs: Any = signs) -> Machine:
                return Machine(functions, {"preset": name}, share=0.99, signs=signs)

            started, subject = time.perf_counter(), Subject(name, make)
            results = [
                runner.run(p, subject, effort=arguments.effort, seed_number=arguments.seed, shrinking=0.0)
                for p in properties
            ]
            rows.append({
                "preset": name, "signs": signs, "examples": sum(r.examples for r in results),
                "worst_rho": round(max(r.record.rho or 0.0 for r in results), 3),
                "failed": [[r.property.id, r.message] for r in results if r.outcome == "failed"],
                "seconds": round(time.perf_counter() - started, 1),
            })  # fmt: skip
            print(rows[-1], flush=True)
            arguments.out.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{sum(row['examples'] for row in rows):,} examples")
    return int(any(row["failed"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
