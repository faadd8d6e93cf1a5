"""Calls that an op must refuse, by the error that refbert.ops raises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Refused:
    """A call that makes no sense; shapes of its arrays, its options, and what refbert.ops raises."""

    op: str
    shapes: tuple[tuple[int, ...], ...]
    options: Mapping[str, Any]
    error: type[Exception]
    why: str


_LABELS = {"denominator": 2.0}
_TWO_HEADS = {"mask": np.ones((1, 2), np.int64), "heads": 2, "mask_value": -math.inf}
_ONE_HEAD = {
    "mask": np.ones((2, 2)), "heads": 2, "mask_value": -math.inf, "keep": np.ones((2, 1, 2, 2), bool), "rate": 0.1,
}  # fmt: skip
REFUSED: tuple[Refused, ...] = (
    Refused("embedding", ((4, 3),), {"ids": np.array([0, 4])}, IndexError, "an id of V"),
    Refused("embedding", ((4, 3),), {"ids": np.array([[-1], [2]])}, IndexError, "a negative id"),
    Refused("embedding", ((4, 3),), {"ids": np.array([2**31 + 1])}, IndexError, "an id that 32 bits would wrap"),
    Refused("gather", ((2, 2, 3),), {"positions": np.array([4])}, IndexError, "a position of B·S"),
    Refused("gather", ((2, 2, 3),), {"positions": np.array([1, -1])}, IndexError, "a negative position"),
    Refused("cross_entropy", ((2, 3),), _LABELS | {"labels": np.array([0, 3])}, IndexError, "a label of C"),
    Refused("cross_entropy", ((2, 3),), _LABELS | {"labels": np.array([0, -1])}, IndexError, "a label of −1"),
    Refused("cross_entropy", ((2, 3),), _LABELS | {"labels": np.array([-101, 1])}, IndexError, "a label of −101"),
    Refused("gelu", ((2, 3),), {"form": "fast"}, ValueError, "an unknown form"),
    Refused("add", ((2, 3), (3,)), {}, ValueError, "shapes that would broadcast"),
    Refused("add", ((2, 3), (2, 1)), {}, ValueError, "shapes that would broadcast"),
    Refused("dropout", ((2, 3),), {"keep": np.ones(3, bool), "rate": 0.1}, ValueError, "a mask of another shape"),
    Refused("dropout", ((2, 3),), {"keep": np.ones((2, 3), bool), "rate": 1.0}, ValueError, "rate 1"),
    Refused("dropout", ((2, 3),), {"keep": np.ones((2, 3), bool), "rate": -0.1}, ValueError, "a negative rate"),
    Refused("attention", ((2, 2, 4),) * 3, _ONE_HEAD, ValueError, "a keep mask for one head of two"),
    Refused(
        "mean_squared_error", ((2, 3),), {"targets": np.ones(3), "denominator": 1.0}, ValueError, "targets to broadcast"
    ),
    Refused("attention", ((1, 2, 3),) * 3, _TWO_HEADS, ValueError, "3 features for 2 heads"),
    Refused("attention_probabilities", ((1, 2, 3),) * 2, _TWO_HEADS, ValueError, "3 features for 2 heads"),
    Refused("reshape", ((2, 3),), {"shape": (4, 2)}, Exception, "more entries than there are"),
    Refused("reshape", ((2, 3),), {"shape": (2, 2)}, Exception, "fewer entries than there are"),
    Refused("embedding", ((4, 3),), {"ids": np.array([1.5])}, Exception, "an id that is no integer"),
    Refused("transpose", ((2, 3),), {"axes": (0, 0)}, Exception, "axes that are no permutation"),
    Refused("linear", ((2, 3), (4, 5), (4,)), {}, Exception, "an inner dimension that does not fit"),
)
