"""A padded batch of which little is text: refbert packs the tokens, Hugging Face computes the padding."""

from __future__ import annotations

from speed.cases import BOTH, BOTH_NAMES, Case, Target, refbert

NUMPY = refbert("numpy")

CASES = [
    Case(
        name=f"packed-{percent}",
        group="packed",
        # How the lengths spread: speed.inputs.lengths.
        work={"kind": "packed", "model": "bert-base-uncased", "B": 32, "S": 128, "fill": percent / 100},
        contenders=(NUMPY, *BOTH),
        targets=(
            Target(
                f"32 sequences filling {percent} % of 32×128, packed",
                "Hugging Face, padded",
                NUMPY.name,
                BOTH_NAMES,
                1 / faster,
                f"≥ {faster}× faster",
            ),
        ),
        quick=percent == 22,
    )
    for percent, faster in ((56, 2.3), (22, 5.5))
]
