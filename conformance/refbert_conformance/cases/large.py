"""The sizes of models: what every op is tried on in `real_sizes`.

Numbers of rows are seldom multiples of a tile, and some are; widths are those of published models and the neighbours of
powers of two; what is counted in 16 bits, or as a float32, ends at 2¹⁶ and 2²⁴.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st


@dataclass(frozen=True)
class Large:
    """An op, the sizes of its axes by letter, its options, and the seed of its numbers."""

    op: str
    sizes: Mapping[str, int]
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def axes(self) -> Mapping[str, int]:
        """What may be shrunk, by name."""
        return self.sizes

    @property
    def operations(self) -> int:
        """About how many a call takes."""
        entries = math.prod(self.sizes.values())
        if self.op == "linear":
            return 2 * entries
        return 4 * entries * self.sizes["S"] if self.op in ATTENTIONS else entries

    def resized(self, **axes: int) -> Large:
        """The same with other sizes."""
        return replace(self, sizes={**self.sizes, **axes})

    @property
    def rng(self) -> np.random.Generator:
        """The numbers of this example."""
        return np.random.default_rng((self.seed, 77))


_WIDTHS = (64, 128, 256, 312, 384, 512, 768, 1024, 2048, 3072, 4096)
_EDGES = tuple(2**k + d for k in range(5, 13) for d in (-1, 0, 1))
_WIDTH = st.one_of(st.integers(1, 200), st.sampled_from(_WIDTHS), st.sampled_from(_EDGES))
_LENGTH = st.one_of(st.integers(10, 200), st.sampled_from([127, 128, 129, 255, 256, 257, 300, 384]))
_BATCH = st.integers(1, 9)
# How many entries (products: multiplications) a drawn example may have; S gives way first, then B.
_ROOM = 2**19
_PRODUCTS = 2**26

ELEMENTWISE = ("add", "dropout", "gelu", "relu", "tanh")
ATTENTIONS = ("attention", "attention_probabilities")


def _fitting(op: str, sizes: Mapping[str, int], options: Mapping[str, Any], seed: int) -> Large:
    """The example, with no more rows than there is room for."""
    found, room = dict(sizes), _PRODUCTS if op == "linear" else _ROOM
    if op in ATTENTIONS:  # one head and one sequence are what costs: S²
        found["B"] = max(1, min(found["B"], room * 8 // (found["A"] * found["S"] ** 2)))
        return Large(op, found, options, seed)
    if op == "embedding":
        found["H"] = min(found["H"], 2**22 // found["V"])
    for letter in ("S", "B"):
        if letter in found:
            others = math.prod(size for name, size in found.items() if name not in (letter, "V", "P"))
            found[letter] = max(1, min(found[letter], room // others))
    return Large(op, found, options, seed)


def drawn(op: str) -> st.SearchStrategy[Large]:
    """An op's large examples."""
    sizes: dict[str, Any] = {letter: _AXES[letter] for letter in _letters(op)}
    return st.builds(
        _fitting, st.just(op), st.fixed_dictionaries(sizes), st.sampled_from(_options(op)), st.integers(0, 2**20)
    )


_AXES: Mapping[str, Any] = {
    "B": _BATCH, "S": _LENGTH, "H": _WIDTH, "I": _WIDTH, "O": st.one_of(_WIDTH, st.sampled_from([30_522, 28_996])),
    "A": st.sampled_from([12, 16, 8, 2, 3]), "D": st.sampled_from([64, 32, 48]), "C": _WIDTH, "P": st.integers(1, 900),
    "V": st.sampled_from([30_522, 119_547, 512, 2]), "E": st.integers(2, 12),
}  # fmt: skip


def _letters(op: str) -> str:
    if op in ATTENTIONS:
        return "BSAD"
    return {"linear": "BSIO", "embedding": "BSVH", "gather": "BSPH", "cross_entropy": "BSC", "transpose": "BSEH",
            "mean_squared_error": "BH"}.get(op, "BSH")  # fmt: skip


def _options(op: str) -> tuple[dict[str, Any], ...]:
    if op in ATTENTIONS:
        kinds = (("ragged", 0.1), ("holes", None), ("all", 0.1), ("ragged", None), ("holes", 0.1))
        return tuple(
            {"mask": mask, "mask_value": value} | ({"rate": rate, "kept": "rate"} if op == "attention" else {})
            for value in (-math.inf, -10000.0) for mask, rate in kinds
        )  # fmt: skip
    return _OPTIONS.get(op, ({},))


_OPTIONS: Mapping[str, tuple[dict[str, Any], ...]] = {
    "gelu": ({"form": "erf"}, {"form": "tanh"}),
    "layer_norm": ({"eps": 1e-12}, {"eps": 1e-5}),
    "dropout": ({"rate": 0.1},),
    "cross_entropy": ({"over": "mean", "ignored": 0.3},),
    "mean_squared_error": ({"over": "mean"},),
    "transpose": tuple({"axes": axes} for axes in ((0, 2, 1, 3), (0, 2, 3, 1), (1, 0, 2, 3), (0, 1, 3, 2))),
    "reshape": tuple({"to": to} for to in ("merge", "split", "flat")),
}


def fixed(table: Mapping[str, tuple[tuple[int, ...], ...]], op: str) -> tuple[Large, ...]:
    """The examples of a table of sizes: the options in turn."""
    options = _options(op)
    rows = table.get(op, table["others"] if op in (*ELEMENTWISE, "reshape") else ())
    return tuple(
        Large(op, dict(zip(_letters(op), row, strict=True)), options[i % len(options)], i) for i, row in enumerate(rows)
    )


SMALLER: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "others": ((3, 67, 257),),
    "linear": ((3, 67, 129, 131), (5, 43, 768, 770), (4, 64, 128, 256)),
    "layer_norm": ((5, 211, 17), (3, 67, 768)),
    "softmax": ((5, 211, 17), (3, 67, 259)),
    "cross_entropy": ((5, 211, 17), (1, 11, 30_522)),
    "mean_squared_error": ((515, 5),),
    "attention": ((5, 70, 12, 64), (3, 133, 2, 64)),
    "attention_probabilities": ((3, 133, 2, 64),),
    "embedding": ((3, 171, 30_522, 12), (3, 4099, 2, 3)),
    "gather": ((3, 171, 515, 33), (1, 2, 12_301, 3)),
    "transpose": ((3, 67, 12, 64),),
}
LARGER: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "others": ((4, 131, 3072), (1, 1, 2**20 + 5), (2, 33_001, 3)),
    "gelu": ((4, 131, 3072), (4, 131, 3072), (1, 1, 2**22 + 5), (2, 33_001, 3)),
    "linear": (
        (7, 29, 768, 3072), (7, 29, 3072, 768), (5, 131, 768, 768), (8, 128, 768, 768), (1, 67, 1024, 4096),
        (1, 67, 4096, 1024), (1, 41, 768, 30_522), (1, 9, 128, 119_547), (2, 33_001, 8, 16), (1, 131_101, 3, 2),
        (66_003, 2, 3, 2),
        (1, 3, 70_001, 5), (2, 275, 16, 30_522), (1, 1, 768, 768), (1, 2, 768, 2), (4, 256, 256, 256), (9, 57, 64, 64),
    ),
    "layer_norm": ((5, 211, 768), (3, 171, 1024), (2, 33_001, 8), (8, 128, 768), (1, 5, 4099), (1, 66_003, 7)),
    "softmax": ((2, 33_001, 5), (3, 343, 515), (8, 128, 512), (2, 12, 30_522)),
    "cross_entropy": ((2, 33_001, 3), (1, 77, 30_522), (1, 9, 119_547), (1, 161, 30_522), (8, 128, 2)),
    "mean_squared_error": ((66_003, 1), (1029, 5)),
    "attention": (
        (2, 259, 12, 64), (7, 131, 3, 64), (1, 515, 2, 64), (2, 512, 1, 64), (70, 17, 2, 64), (8, 128, 12, 64),
        (3, 129, 16, 64),
    ),
    "attention_probabilities": ((2, 259, 12, 64), (1, 515, 2, 64), (8, 128, 2, 64), (70, 17, 2, 32)),
    "embedding": (
        (2, 33_001, 2, 3), (5, 131, 30_522, 64), (8, 128, 119_547, 8), (4, 515, 512, 64), (1, 131_101, 30_522, 1),
    ),
    "gather": ((2, 33_001, 66_003, 3), (5, 131, 77, 768), (8, 128, 1024, 64)),
    "transpose": ((5, 131, 12, 64), (2, 515, 16, 64), (3, 12, 131, 67), (8, 128, 12, 64)),
}  # fmt: skip
LARGEST: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "others": ((1, 1, 2**24 + 17), (1, 1, 2**22), (8, 512, 3072)),
    "linear": (
        (1, 2051, 768, 3072), (1, 2051, 3072, 768), (4, 515, 1024, 4096), (8, 512, 768, 768), (1, 131, 1024, 30_522),
        (1, 33, 768, 119_547), (1, 70_001, 64, 96), (1, 17, 2**17 + 3, 9), (1, 2**18 + 7, 9, 5),
    ),
    "layer_norm": ((4, 515, 1024), (1, 131_101, 9), (1, 2**18 + 7, 3), (8, 512, 768)),
    "softmax": ((1, 131_101, 9), (4, 515, 1024), (1, 40, 119_547)),
    "cross_entropy": ((1, 131_101, 9), (2, 260, 30_522), (1, 33, 119_547)),
    "attention": ((8, 512, 12, 64), (4, 515, 16, 64), (3, 257, 12, 64), (2, 1027, 1, 64), (260, 9, 2, 32)),
    "attention_probabilities": ((8, 512, 12, 64), (3, 257, 16, 64)),
    "embedding": ((8, 512, 30_522, 768), (1, 2**18 + 7, 119_547, 3)),
    "gather": ((8, 512, 700, 768), (1, 2**18 + 7, 2**18 + 9, 3)),
    "transpose": ((8, 512, 12, 64), (4, 515, 16, 64)),
}  # fmt: skip
# Rows at which kernels switch: every small number, and the neighbours of multiples of 16.
_ROWS = (*range(1, 36), *(n + d for n in (48, 64, 96, 128, 192, 256, 320, 512, 640, 1024) for d in (-1, 0, 1)))
_MOST_ROWS = 2**23 + 3  # beyond what counts in float32 by halves
# Beyond models, for those who ask for it: see `properties.large_sizes`.
BEYOND: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "others": ((1, 1, 2**20), (1, 1, 2**20 + 1), (1, _MOST_ROWS, 1), (_MOST_ROWS, 1, 1), (1, 3, 2**21 + 5)),
    "linear": (
        *((1, n, 64, 64) for n in _ROWS), *((1, n, 768, 72) for n in _ROWS[::3]), (1, _MOST_ROWS, 2, 2),
        (1, 3, 2**20 + 3, 2), (1, 3, 2, 2**20 + 3), (1, 9, 32, 250_002), (1, 33, 768, 250_002),
    ),
    "layer_norm": (*((1, n, 64) for n in _ROWS), (1, _MOST_ROWS, 2), (1, 3, 2**20), (1, 3, 2**20 + 1), (1, 5, 16_384)),
    "softmax": (*((1, 5, n) for n in _ROWS), (1, _MOST_ROWS, 2), (1, 3, 2**20), (1, 3, 2**20 + 1), (1, 9, 250_002)),
    "cross_entropy": ((1, _MOST_ROWS, 2), (1, 3, 2**20 + 1), (1, 33, 250_002)),
    "mean_squared_error": ((_MOST_ROWS, 1),),
    "attention": tuple((2, S, 3, D) for D in (32, 64, 96, 128, 80, 256) for S in (31, 32, 33, 64, 65, 127, 130, 257)),
    "attention_probabilities": tuple((2, S, 3, D) for D in (32, 64, 96, 128, 80) for S in (32, 33, 130, 257)),
    "embedding": ((8, 128, 250_002, 64), (2, 9, 250_002, 768), (1, _MOST_ROWS, 5, 1), (1, 40, _MOST_ROWS, 2)),
    "gather": ((1, _MOST_ROWS, 61, 1), (1, 61, _MOST_ROWS, 1)),
    "transpose": ((1, 2**20 + 3, 3, 2), (2, 3, 2**20 + 3, 1)),
}  # fmt: skip
