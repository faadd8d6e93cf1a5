"""What every op is always tried on, whatever is drawn: recipes at the edges, and of BERT's own sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from refbert_conformance.cases.operations import COUNT, DRAWN, EPS, MASKS, RATES, Recipe, recipe


def corpus(op: str) -> tuple[Recipe, ...]:
    """Always run, whatever Hypothesis draws: axes of size 0 and 1, long rows, extreme values, BERT's sizes."""
    of, options = partial(_fixed, op), DRAWN[op][1]
    forms: tuple[dict[str, Any], ...] = ({"form": "erf"}, {"form": "tanh"}) if op == "gelu" else ({},)
    attention = op in ("attention", "attention_probabilities")
    found = [of(B=1, S=1, H=1, I=1, O=1, V=1, A=1, D=1, C=1), of()]
    if op == "reshape":
        found += [of(options={"to": to}) for to in ("merge", "split", "turn", "flat")]
    else:
        found.append(of(options={"rows": 0}) if op == "gather" else of(B=0))
    if op == "transpose":
        found += [of(S=2, H=2, options={"axes": axes}) for axes in options["axes"].elements]
        found += [of(S=70, H=67, options={"axes": axes}) for axes in ((0, 2, 1), (2, 1, 0), (0, 2, 1, 3))]
        # Where only axes of size 1 move, memory stays as it is, and short cuts are taken.
        found += [of(S=2, H=1, E=1, options={"axes": axes}) for axes in options["axes"].elements]
    if not attention and op not in ("cross_entropy", "mean_squared_error", "reshape", "transpose"):
        found += [of(B=1, S=2, H=768, I=768, O=768)]  # kernels are specialised for BERT's own width
    if "axes" in options and op not in ("transpose", "mean_squared_error"):
        found += [of(options={"axes": axes}) for axes in options["axes"].elements[1:]]
    if op in ("add", "dropout", "gelu", "relu", "tanh"):
        found += [of("enormous", options=form) for form in forms]
    if op in ("add", "dropout"):
        found += [of("subnormal")]
    if op in ("attention", "dropout"):
        found += [of(options={"rate": rate, "kept": kept}) for kept in options["kept"].elements for rate in (0.5, 0.0)]
    if op == "linear":
        found += [of(B=2, S=3, I=300, O=7), of(B=1, S=2, I=1025, O=3), of(B=5, S=67, I=3, O=4), of(I=4, O=4)]
        found += [of("offset", I=129, O=2), of(B=1, S=1, I=4, O=600)]
        # Where all sizes are multiples of what tensor cores take, kernels of another precision step in.
        found += [of(B=2, S=4, I=16, O=8), of(B=4, S=16, I=64, O=64)]
        # As many rows as a tile has, and fewer outputs.
        found += [of(B=1, S=rows, I=60, O=3) for rows in (8, 16, 32, 64)]
    if op == "layer_norm":
        found += [of(regime, H=H, options={"eps": eps}) for eps in EPS for regime, H in _NORMED]
        found += [of(H=1025, B=1), of(H=768, B=1, S=2), of(B=6, S=40, H=3)]
        found += [of("enormous", H=768, B=1, S=2)]  # squares and sums beyond float16, means within
    if op in ("gelu", "relu", "tanh", "softmax"):
        regimes = ("few", "large", "mixed", "tiny", "offset")
        found += [of(regime, H=200, options=form) for form in forms for regime in regimes]
        found += [of(H=1500, B=1)]
    if attention:
        masked = [{"mask": mask, "mask_value": value} for mask in MASKS for value in (-math.inf, -10000.0, -3.0)]
        found += [of(kind, options=one, B=3, S=5, A=2, D=3) for one in masked for kind in ("normal", "huge")]
        found += [of(B=1, S=130, A=1, D=4, options={"mask": "ragged"}), of(B=2, S=3, A=1, D=70)]
        found += [of(B=1, S=40, A=4, D=16, options={"mask": "holes"}), of(B=3, S=5, A=3, D=2)]
        found += [of(B=9, S=4, options={"mask": "ragged"}), of(B=2, S=4, A=6, D=1)]
        low = ("positive", "negative", "normal")[: COUNT[op]]
        found += [of(low, D=3, options={"mask": "ragged"}), of(low, B=1, S=64, A=1, D=3, options={"mask": "ragged"})]
    if op == "attention":
        found += [of(S=4, options={"rate": rate, "mask": "holes"}) for rate in RATES]
    if op == "cross_entropy":
        overs = ("mean", "google", "shards", "one", "half", "nothing")
        found += [of(options={"over": over, "ignored": share}) for over in overs for share in (0.0, 0.4, 1.0)]
        found += [of("large", C=300), of(C=2000, B=1, S=2)]
    if op in ("embedding", "gather"):
        found += [of(V=3, H=2, B=4, S=30, options={"rows": 200})]
    return (*found, *(of(**sizes) for sizes in _LARGE.get(op, ())))


def _fixed(
    op: str, regime: str | tuple[str, ...] = "normal", seed: int = 1, options: Mapping[str, Any] | None = None,
    **sizes: int,
) -> Recipe:  # fmt: skip
    """regime: of all arrays, or of each."""
    first = {name: values.elements[0] if hasattr(values, "elements") else 2 for name, values in DRAWN[op][1].items()}
    chosen = {"B": 2, "S": 3, "H": 4, "I": 4, "O": 5, "V": 6, "A": 2, "D": 3, "C": 5} | sizes
    regimes = (regime,) * COUNT[op] if isinstance(regime, str) else regime
    return recipe(op, chosen, (*regimes, "normal"), seed, first | dict(options or {}))


# Rows whose variance is about eps, far below it, and far above.
_NORMED = (("normal", 7), ("tiny", 5), ("near constant", 12), ("offset", 9), ("few", 6), ("constant", 8))
_HEADS: tuple[dict[str, Any], ...] = (
    {"B": 1, "S": 512, "A": 1, "D": 2, "options": {"mask": "all"}},
    {"B": 1, "S": 64, "A": 1, "D": 8, "options": {"mask": "ragged"}},
    {"B": 1, "S": 128, "A": 1, "D": 8, "options": {"mask": "ragged"}},
    {"B": 1, "S": 140, "A": 1, "D": 3, "options": {"mask": "holes"}},
    {"B": 2, "S": 5, "A": 16, "D": 64, "options": {"mask": "ragged"}},
    {"B": 1, "S": 33, "A": 12, "D": 64, "options": {"mask": "holes"}},
)
# One axis at a time as long as in BERT, or longer: beyond a tile, a block of threads, a grid, 16 bits.
_LARGE: Mapping[str, tuple[dict[str, Any], ...]] = {
    **{op: ({"B": 1, "S": 1, "H": 70_001},) for op in ("add", "reshape", "gelu", "relu", "tanh", "dropout")},
    "attention": _HEADS,
    "attention_probabilities": _HEADS,
    "linear": (
        {"B": 1, "S": 1, "I": 4100, "O": 2}, {"B": 1, "S": 1, "I": 2, "O": 30_522},
        {"B": 33, "S": 128, "I": 3, "O": 2}, {"B": 4, "S": 8, "I": 64, "O": 32},
    ),
    "layer_norm": ({"B": 1, "S": 2, "H": 1024}, {"B": 1, "S": 1, "H": 4096}, {"B": 33, "S": 128, "H": 3}),
    "softmax": ({"B": 1, "S": 1, "H": 4099}, {"B": 33, "S": 128, "H": 3}),
    "cross_entropy": ({"B": 1, "S": 2, "C": 30_522}, {"B": 1, "S": 2, "C": 5000}, {"B": 33, "S": 128, "C": 3}),
    "mean_squared_error": ({"B": 30, "H": 40},),
    # The segment table: two rows, which a batch names thousands of times.
    "embedding": ({"B": 1, "V": 70_000, "H": 1}, {"B": 33, "S": 128, "V": 2, "H": 1}),
    "gather": ({"B": 2, "S": 33_000, "H": 1},),
}  # fmt: skip
