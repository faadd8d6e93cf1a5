"""Optimizer updates without memory of their own: the reference's functions on blocks that stay in the cache, in place.

refbert.ops writes an update as whole-array expressions, with up to six temporaries of the tensor's size and three new
tensors. Every one of them but LAMB's norms is elementwise, so block by block it gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from refbert.backend.reference import rule_of
from refbert_numpy import threads
from refbert_numpy.memory import Array

BLOCK = 1 << 16  # entries: eight arrays of 256 kB in float32
_ELEMENTWISE = ("bert_adam", "adamw")


def global_norm(gradients: Mapping[str, Array]) -> float:
    """√ of the sum of all squares, added up block by block, over blocks in double precision."""
    total = 0.0
    with threads.alone(each=False):
        for g in gradients.values():
            parts = (g.reshape(-1)[start : start + BLOCK] for start in range(0, g.size, BLOCK))
            total += sum(float(np.vecdot(part, part)) for part in parts)
    return math.sqrt(total)


def update(
    rule: str, p: Array, g: Array, m: Array, v: Array, *, scale: float, step: int, **rates: float
) -> tuple[Array, Array, Array]:
    """New (p, m, v) in the memory of g, m and v, where that can be written to."""
    function = rule_of(rule, step)
    if rule not in _ELEMENTWISE:
        return function(p, g * scale, m, v, **rates)
    old = np.ascontiguousarray(p).reshape(-1)
    g, m, v = (_writable(x, p.dtype) for x in (g, m, v))
    new = tuple(x.reshape(-1) for x in (g, m, v))
    starts = range(0, old.size, BLOCK)
    team = threads.Team(max(1, min(threads.threads(), len(starts))))

    def work(t: int) -> None:
        for start in starts[t :: team.size]:
            at = slice(start, start + BLOCK)
            parts = [x[at] for x in new]
            for part, result in zip(parts, function(old[at], parts[0] * scale, *parts[1:], **rates), strict=True):
                part[:] = result

    team.run(work)
    return g, m, v


def _writable(x: Array, dtype: Any) -> Array:
    return x if x.dtype == dtype and x.flags.writeable and x.flags.c_contiguous else np.array(x, dtype, order="C")
