"""Peak memory of a process that loads bert-base and runs a forward pass, or a training step, of 8×128."""

from __future__ import annotations

from speed.cases import BOTH, BOTH_NAMES, Case, Target, at_most, refbert

NUMPY = refbert("numpy")

CASES = [
    Case(
        name=f"memory-{kind}",
        group="memory",
        kind="peak",
        work={"kind": kind, "model": "bert-base-uncased", "B": 8, "S": 128},
        contenders=(NUMPY, *BOTH),
        targets=(
            Target(
                f"peak memory, base {what} 8×128",
                "Hugging Face, smaller of eager and SDPA",
                NUMPY.name,
                BOTH_NAMES,
                most,
                at_most(most),
            ),
        ),
        quick=kind == "forward",
    )
    for kind, what, most in (("forward", "forward", 0.55), ("step", "training step", 0.80))
]
