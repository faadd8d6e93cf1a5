"""What every op is always tried on, whatever is drawn: recipes at the edges, and of BERT's own sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from refbert_conformance.cases.operations import COUNT, DRAWN, EPS, MASKS, RATES, Recipe, recipe


def corpus(op: str) -> tuple[Recipe, ...]:
    """Always run, whatever Hypothesis draws: axes of size 0 and 1, long rows, extreme values, BERT's sizes."""
    found = [_fixed(op, B=1, S=1, H=1, I=1, O=1, V=1, A=1, D=1, C=1), _fixed(op)]
    if op not in ("reshape",):
        found.append(_fixed(op, options={"rows": 0}) if op == "gather" else _fixed(op, B=0))
    if op == "reshape":
        found += [_fixed(op, options={"to": to}) for to in ("merge", "split", "turn", "flat")]
    if op == "transpose":
        found += [_fixed(op, S=2, H=2, options={"axes": axes}) for axes in DRAWN[op][1]["axes"].elements]
        found += [_fixed(op, S=70, H=67, options={"axes": axes}) for axes in ((0, 2, 1), (2, 1, 0), (0, 2, 1, 3))]
    if op not in (
        "attention",
        "attention_probabilities",
        "cross_entropy",
        "mean_squared_error",
        "reshape",
        "transpose",
    ):
        found += [_fixed(op, B=1, S=2, H=768, I=768, O=768)]  # kernels are specialised for BERT's own width
    if "axes" in DRAWN[op][1] and op not in ("transpose", "mean_squared_error"):
        found += [_fixed(op, options={"axes": axes}) for axes in DRAWN[op][1]["axes"].elements[1:]]
    if op in ("add", "dropout", "gelu", "relu", "tanh"):
        forms = [{"form": "erf"}, {"form": "tanh"}] if op == "gelu" else [{}]
        found += [_fixed(op, "enormous", options=form) for form in forms]
    if op in ("add", "dropout"):
        found += [_fixed(op, "subnormal")]
    if op in ("attention", "dropout"):
        kinds = DRAWN[op][1]["kept"].elements
        found += [_fixed(op, options={"rate": rate, "kept": kept}) for kept in kinds for rate in (0.5, 0.0)]
    if op == "linear":
        found += [_fixed(op, B=2, S=3, I=300, O=7), _fixed(op, B=1, S=2, I=1025, O=3), _fixed(op, B=5, S=67, I=3, O=4)]
        found += [_fixed(op, I=4, O=4), _fixed(op, "offset", I=129, O=2), _fixed(op, B=1, S=1, I=4, O=600)]
        # Where all sizes are multiples of what tensor cores take, kernels of another precision step in.
        found += [_fixed(op, B=2, S=4, I=16, O=8), _fixed(op, B=4, S=16, I=64, O=64)]
    if op == "layer_norm":
        for eps in EPS:
            found += [_fixed(op, regime, H=H, options={"eps": eps}) for regime, H in _NORMED]
        found += [_fixed(op, H=1025, B=1), _fixed(op, H=768, B=1, S=2), _fixed(op, B=6, S=40, H=3)]
    if op in ("gelu", "relu", "tanh", "softmax"):
        forms = [{"form": "erf"}, {"form": "tanh"}] if op == "gelu" else [{}]
        for form in forms:
            found += [_fixed(op, regime, H=200, options=form) for regime in ("few", "large", "mixed", "tiny", "offset")]
        found += [_fixed(op, H=1500, B=1)]
    if op in ("attention", "attention_probabilities"):
        for kind in MASKS:
            for value in (-math.inf, -10000.0, -3.0):
                shape = {"B": 3, "S": 5, "A": 2, "D": 3}
                found += [
                    _fixed(op, regime, options={"mask": kind, "mask_value": value}, **shape)
                    for regime in ("normal", "huge")
                ]
        found += [_fixed(op, B=1, S=130, A=1, D=4, options={"mask": "ragged"}), _fixed(op, B=2, S=3, A=1, D=70)]
        found += [_fixed(op, B=1, S=40, A=4, D=16, options={"mask": "holes"}), _fixed(op, B=3, S=5, A=3, D=2)]
        found += [_fixed(op, B=9, S=4, options={"mask": "ragged"}), _fixed(op, B=2, S=4, A=6, D=1)]
    if op == "attention":
        found += [_fixed(op, S=4, options={"rate": rate, "mask": "holes"}) for rate in RATES]
    if op == "cross_entropy":
        for over in ("mean", "google", "shards", "one", "half", "nothing"):
            found += [_fixed(op, options={"over": over, "ignored": share}) for share in (0.0, 0.4, 1.0)]
        found += [_fixed(op, "large", C=300), _fixed(op, C=2000, B=1, S=2)]
    if op in ("embedding", "gather"):
        found += [_fixed(op, V=3, H=2, B=4, S=30, options={"rows": 200})]
    return tuple(found) + _LARGE.get(op, ())


def _fixed(
    op: str, regime: str = "normal", seed: int = 1, options: Mapping[str, Any] | None = None, **sizes: int
) -> Recipe:
    first = {
        name: strategy.elements[0] if hasattr(strategy, "elements") else 2 for name, strategy in DRAWN[op][1].items()
    }
    chosen = {"B": 2, "S": 3, "H": 4, "I": 4, "O": 5, "V": 6, "A": 2, "D": 3, "C": 5} | sizes
    return recipe(op, chosen, (regime,) * COUNT[op] + ("normal",), seed, first | dict(options or {}))


def _large() -> dict[str, tuple[Recipe, ...]]:
    """One axis at a time as long as in BERT, or longer: beyond a tile, a block of threads, a grid, 16 bits."""
    every: dict[str, tuple[Recipe, ...]] = {
        op: (_fixed(op, B=1, S=1, H=70_001),) for op in ("add", "reshape", "gelu", "relu", "tanh", "dropout")
    }
    attention = (
        {"B": 1, "S": 512, "A": 1, "D": 2, "options": {"mask": "all"}},
        {"B": 1, "S": 64, "A": 1, "D": 8, "options": {"mask": "ragged"}},
        {"B": 1, "S": 128, "A": 1, "D": 8, "options": {"mask": "ragged"}},
        {"B": 1, "S": 140, "A": 1, "D": 3, "options": {"mask": "holes"}},
        {"B": 2, "S": 5, "A": 16, "D": 64, "options": {"mask": "ragged"}},
        {"B": 1, "S": 33, "A": 12, "D": 64, "options": {"mask": "holes"}},
    )
    for op in ("attention", "attention_probabilities"):
        every[op] = tuple(_fixed(op, **sizes) for sizes in attention)  # type: ignore[arg-type]
    linear = (
        {"I": 4100, "O": 2},
        {"I": 2, "O": 30_522},
        {"B": 33, "S": 128, "I": 3, "O": 2},
        {"B": 4, "S": 8, "I": 64},
    )
    every["linear"] = tuple(_fixed("linear", **dict({"B": 1, "S": 1, "O": 32}, **sizes)) for sizes in linear)  # type: ignore[arg-type]
    every["layer_norm"] = tuple(
        _fixed("layer_norm", B=B, S=S, H=H) for B, S, H in ((1, 2, 1024), (1, 1, 4096), (33, 128, 3))
    )
    every["softmax"] = (_fixed("softmax", B=1, S=1, H=4099), _fixed("softmax", B=33, S=128, H=3))
    every["cross_entropy"] = (
        _fixed("cross_entropy", B=1, S=2, C=30_522), _fixed("cross_entropy", B=1, S=2, C=5000),
        _fixed("cross_entropy", B=33, S=128, C=3),
    )  # fmt: skip
    every["mean_squared_error"] = (_fixed("mean_squared_error", B=30, H=40),)
    # The segment table: two rows, which a batch names thousands of times.
    every["embedding"] = (_fixed("embedding", B=1, V=70_000, H=1), _fixed("embedding", B=33, S=128, V=2, H=1))
    every["gather"] = (_fixed("gather", B=2, S=33_000, H=1),)
    return every


# Rows whose variance is about eps, far below it, and far above.
_NORMED = (("normal", 7), ("tiny", 5), ("near constant", 12), ("offset", 9), ("few", 6), ("constant", 8))
_LARGE: Mapping[str, tuple[Recipe, ...]] = _large()
