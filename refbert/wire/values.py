"""What stands in a header's "args", "options" and "result": values as JSON, with arrays and functions by number.

JSON                          value
{"array": 7, "shape": [2]}    an array of the backend's (its shape is told by the backend alone)
{"pullback": 8}               a function, to be called by "pull"
{"tensor": 0}                 a host array: the message's first tensor
{"list": [...]}               a list; plain [...] is a tuple
{"callback": "keep"}          dropout's masks, to be asked for (`refbert.backend.KeepMasks`)
{"other": "str"}              what has no place here, by the name of its type
"inf", "-inf", "nan"          the floats that JSON does not know
{...}, "text", 1, 2.5, null   themselves
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from refbert.backend import Host

FLOATS = {"inf": float("inf"), "-inf": float("-inf"), "nan": float("nan")}
# What an object has only if it stands for something else.
_WORDS = frozenset(("array", "pullback", "tensor", "list", "callback", "other"))


def plain(value: Any, tensors: list[Host] | None, known: Callable[[Any], Any]) -> Any:
    """The value as JSON. Host arrays go to the end of ``tensors``; None: arrays are the backend's. ``known`` gives what
    stands for anything else."""
    if isinstance(value, np.ndarray | np.generic):
        if tensors is None:
            return known(value)
        if isinstance(value, np.ndarray):
            tensors.append(value)
            return {"tensor": len(tensors) - 1}
        value = value.item()
    if isinstance(value, float) and value - value != 0:
        return "nan" if value != value else "inf" if value > 0 else "-inf"
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(one, tensors, known) for name, one in value.items()}
    if isinstance(value, tuple):
        return [plain(one, tensors, known) for one in value]
    if isinstance(value, list):
        return {"list": [plain(one, tensors, known) for one in value]}
    return known(value)


def valued(plain: Any, known: Callable[[str, dict[str, Any]], Any]) -> Any:
    """The value behind JSON. ``known(word, object)`` gives what an object with one of the words above stands for."""
    if isinstance(plain, str):
        return FLOATS.get(plain, plain)
    if isinstance(plain, list):
        return tuple(valued(one, known) for one in plain)
    if not isinstance(plain, dict):
        return plain
    word = next((name for name in plain if name in _WORDS), None)
    if word == "list":
        return [valued(one, known) for one in plain["list"]]
    if word is not None:
        return known(word, plain)
    return {name: valued(one, known) for name, one in plain.items()}
