"""Mutants of narrow sums: float16, added up in float16 where the declared accumulation is float32.

A sum of small numbers stops growing at 2048 there, and in bfloat16 at 256. As libraries do it: docs/findings.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refbert import ops
from refbert_conformance.mutants.mutant import Change, Correct, Mutant, around, mutant
from refbert_conformance.tolerances.bounds import ARRAYS


class CorrectHalf(Correct):
    """refbert.ops in float32, every result rounded to float16."""

    dtypes: tuple[str, ...] = ("float16",)

    def to_numpy(self, x: Any, /) -> Any:
        """float32, as is due for float16."""
        return np.asarray(x, np.float32)

    def update(self, rule: str, *arrays: Any, **options: Any) -> Any:  # type: ignore[override]
        """In float32."""
        return tuple(np.asarray(x, np.float16) for x in Correct.update(rule, *map(_wide, arrays), **options))

    def global_norm(self, gradients: Any) -> float:
        """In float32."""
        return float(Correct.global_norm({name: _wide(g) for name, g in gradients.items()}))


def _wide(x: Any) -> Any:
    return x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype == np.float16 else x


def _in_float32(op: str) -> Callable[..., Any]:
    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        y, back = getattr(ops, op)(*map(_wide, arguments), **options)
        return np.asarray(y, np.float16), lambda dy: tuple(np.asarray(d, np.float16) for d in back(_wide(dy)))

    return method


for _name in ARRAYS:
    setattr(CorrectHalf, _name, _in_float32(_name))


def _last_in_float16(self: Any, back: Any, dy: Any, **_: Any) -> Any:
    return (*back(dy)[:-1], dy.reshape(-1, dy.shape[-1]).sum(axis=0, dtype=np.float16))


_TABLE: tuple[tuple[str, str, Change], ...] = (
    ("embedding", "the gradient is added up in float16", staticmethod(ops.embedding)),
    ("gather", "the gradient is added up in float16", staticmethod(ops.gather)),
    ("linear", "db is added up in float16", {"pullback": _last_in_float16}),
    ("layer_norm", "dβ is added up in float16", {"pullback": _last_in_float16}),
)
NARROW: tuple[Mutant, ...] = tuple(
    mutant(op, "narrow sums", what, CorrectHalf, **{op: how if callable(how) else around(op, **how)})
    for op, what, how in _TABLE
)
