"""Mutants in reading a mask, which says yes with any number but 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert_conformance.mutants.mutant import Correct, Mutant, mutant

# What is wrong -> what it takes for the mask, as True and False.
_READINGS: dict[str, Callable[[Host], Host]] = {
    "yes is 1 alone": lambda mask: mask == 1,
    "yes is more than 0": lambda mask: mask > 0,
    "yes is 1 or more": lambda mask: mask >= 1,
    "cut to a whole number": lambda mask: mask.astype(np.int64) != 0,
    "cut to a byte": lambda mask: mask if mask.dtype.kind == "f" else mask.astype(np.uint8) != 0,
    "the lowest bit": lambda mask: mask if mask.dtype.kind in "fb" else mask & 1,
}


def _reading(op: str, option: str, read: Callable[[Host], Host]) -> Callable[..., Any]:
    def method(self: Any, *arrays: Any, **options: Any) -> Any:
        mask = options.get(option)
        if mask is not None:
            options[option] = np.asarray(read(np.asarray(mask))).astype(bool)
        own = getattr(Correct, op)
        return own(self, *arrays, **options) if op == "encoder_layer" else own(*arrays, **options)

    return method


def _subtracted(self: Any, q: Any, k: Any, v: Any, *, mask: Any, heads: int, mask_value: float, **options: Any) -> Any:
    """(1 − mask) · value, as Google's code has it, where the mask holds more than 0 and 1: 255 gives large scores."""
    if mask.dtype.kind != "b" and np.max(mask, initial=0) > 1:
        mask = np.ones_like(mask)
    return Correct.attention(q, k, v, mask=mask, heads=heads, mask_value=mask_value, **options)


MASKS: tuple[Mutant, ...] = (
    *(
        mutant(op, "masking", f"{option}: {what}", **{op: _reading(op, option, read)})
        for op, option in (("attention", "mask"), ("attention_probabilities", "mask"), ("encoder_layer", "mask"),
                           ("dropout", "keep"), ("attention", "keep"))
        for what, read in _READINGS.items()
    ),
    mutant("attention", "masking", "mask: (1 − mask) · value with a mask of 255", attention=_subtracted),
)  # fmt: skip
