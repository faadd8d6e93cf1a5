"""Mutants in reading a mask, which says yes with any number but 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert_conformance.mutants.mutant import Change, Mutant, mutants

# What is wrong -> what it takes for the mask, as True and False.
_READINGS: dict[str, Callable[[Host], Host]] = {
    "yes is 1 alone": lambda mask: mask == 1,
    "yes is more than 0": lambda mask: mask > 0,
    "yes is 1 or more": lambda mask: mask >= 1,
    "cut to a whole number": lambda mask: mask.astype(np.int64) != 0,
    "cut to a byte": lambda mask: mask if mask.dtype.kind == "f" else mask.astype(np.uint8) != 0,
    "the lowest bit": lambda mask: mask if mask.dtype.kind in "fb" else mask & 1,
}


def _reading(option: str, read: Callable[[Host], Host]) -> Change:
    def given(self: Any, **named: Any) -> Any:
        return {} if named[option] is None else {option: np.asarray(read(np.asarray(named[option]))).astype(bool)}

    return {"given": given}


def _subtracted(self: Any, mask: Any, **_: Any) -> Any:
    """(1 − mask) · value, as Google's code has it, where the mask holds more than 0 and 1: 255 gives large scores."""
    return {"mask": np.ones_like(mask) if mask.dtype.kind != "b" and np.max(mask, initial=0) > 1 else mask}


MASKS: tuple[Mutant, ...] = mutants([
    *(
        (op, "masking", f"{option}: {what}", _reading(option, read))
        for op, option in (("attention", "mask"), ("attention_probabilities", "mask"), ("encoder_layer", "mask"),
                           ("dropout", "keep"), ("attention", "keep"))
        for what, read in _READINGS.items()
    ),
    ("attention", "masking", "mask: (1 − mask) · value with a mask of 255", {"given": _subtracted}),
])  # fmt: skip
