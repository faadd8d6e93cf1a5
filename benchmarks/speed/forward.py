"""Forward passes of bert-base without padding: numpy against Hugging Face, its own products, and onnxruntime."""

from __future__ import annotations

from speed.cases import BOTH, BOTH_NAMES, ONNXRUNTIME, PRODUCT_NAMES, PRODUCTS, Case, Target, at_most, refbert

NUMPY = refbert("numpy")
# (B, S) -> at most this ratio to the faster of Hugging Face's two.
HUGGING_FACE = {(8, 128): 0.80, (32, 128): 0.75, (8, 512): 0.78, (1, 16): 0.75, (1, 128): 0.85, (1, 512): 0.92}
QUICK = ((1, 16), (1, 128), (8, 128))


def _targets(B: int, S: int) -> tuple[Target, ...]:
    row = f"`numpy` forward {B}×{S}"
    most = HUGGING_FACE[B, S]
    out = [
        Target(row, "Hugging Face, faster of eager and SDPA", NUMPY.name, BOTH_NAMES, most, at_most(most)),
        Target(row, "its own bare matrix products", NUMPY.name, PRODUCT_NAMES, 1.07, at_most(1.07)),
    ]
    if B >= 8 and S == 128:
        out.append(Target(row, "onnxruntime, fully fused graph", NUMPY.name, (ONNXRUNTIME.name,), 0.95, at_most(0.95)))
    return tuple(out)


CASES = [
    Case(
        name=f"forward-{B}x{S}",
        group="forward",
        work={"kind": "forward", "model": "bert-base-uncased", "B": B, "S": S},
        # onnxruntime everywhere: where it is no target, it is still worth knowing.
        contenders=(NUMPY, *BOTH, *PRODUCTS, ONNXRUNTIME),
        targets=_targets(B, S),
        quick=(B, S) in QUICK,
    )
    for B, S in HUGGING_FACE
]
