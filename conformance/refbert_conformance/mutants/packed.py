"""Mutants in packing: sequences end to end that are taken apart wrongly."""

from __future__ import annotations

from typing import Any

import numpy as np

from refbert_conformance.mutants.conduct import weights_kept
from refbert_conformance.mutants.mutant import Change, Mutant, in_buffer, kept, mutants


def _first_lengths(self: Any, x: Any, lengths: Any, **_: Any) -> Any:
    return {"lengths": kept(self, "_lengths", (len(x), len(lengths)), np.array(lengths))}


def _one_too_far(self: Any, y: Any, x: Any, lengths: Any, **_: Any) -> Any:
    for start in np.cumsum(lengths)[:-1]:
        y[start - 1] += x[start] * np.float32(1e-3)
    return y


_TABLE: tuple[tuple[str, str, Change], ...] = (
    ("masking", "all is one sequence", {"given": lambda self, x, **_: {"lengths": np.array([len(x)])}}),
    ("shapes", "lengths taken in order of size",
     {"given": lambda self, lengths, **_: {"lengths": np.sort(lengths)}}),
    ("state", "the lengths of the first call of a shape", {"given": _first_lengths}),
    ("masking", "a sequence's last token sees the next one's first", {"y": _one_too_far}),
    ("options", "eps 1e-12, whatever is asked for", {"given": lambda self, **_: {"eps": 1e-12}}),
    ("aliasing", "the workspace of a shape is handed out as the result", {"y": in_buffer}),
    ("state", "weights kept while the query weight is the same array", {"given": weights_kept}),
)  # fmt: skip
PACKED: tuple[Mutant, ...] = mutants(("packed_encoder_layer", area, what, how) for area, what, how in _TABLE)
