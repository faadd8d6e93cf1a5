"""The types that every op's signature is written in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

# A floating-point array. The ops compute in the dtype that they are given: float64 where they are the reference.
Array = npt.NDArray[np.floating[Any]]
# Whole numbers: token ids, positions, labels.
Ids = npt.NDArray[np.integer[Any]]
# 0 where something is hidden or dropped; any other number (True, 1, 255, 0.5) where it is visible or kept.
Mask = npt.NDArray[Any]

# pullback(dy) -> one cotangent per array argument of the op, in signature order. It changes nothing and may be
# called any number of times.
Pullback = Callable[[Array], tuple[Array, ...]]
