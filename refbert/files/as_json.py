"""Numbers as JSON holds them: NumPy's as Python's, and as texts those that JSON does not know, NaN and infinity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def _no_form(x: object) -> object:
    raise TypeError(f"{type(x).__name__} has no JSON form")


def plain(x: Any, *, other: Callable[[Any], Any] = _no_form) -> Any:
    """``x`` of dictionaries, lists, tuples, arrays, numbers and texts, ready for JSON.

    ``other`` makes something of what is none of these; unless given, such a thing raises TypeError.
    """
    if isinstance(x, dict):
        return {name: plain(one, other=other) for name, one in x.items()}
    if isinstance(x, np.ndarray | np.generic):
        return plain(x.tolist(), other=other)
    if isinstance(x, list | tuple):
        return [plain(one, other=other) for one in x]
    if isinstance(x, float) and x - x != 0:
        return str(x)
    return x if isinstance(x, str | int | float | bool | None) else other(x)
