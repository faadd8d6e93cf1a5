"""Attention over sequences laid end to end, [N, H] and their lengths, for inference.

Neighbours of one length go together, as many as keep their scores in the cache: for 32 sentences of some 25 tokens that
is a few calls of NumPy a layer instead of thirty-two times as many.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from refbert_numpy.attention import SAFE, head_size, together

Array = npt.NDArray[Any]


def groups(lengths: Array, heads: int) -> Iterator[tuple[slice, int, int]]:
    """(rows, how many sequences, their length): neighbours of one length whose scores fit into a block together."""
    start = 0
    for length, run in itertools.groupby(int(n) for n in lengths):
        left = len(list(run))
        while left:
            count = min(left, together(heads * length * length))
            yield slice(start, start + count * length), count, length
            start += count * length
            left -= count


def attend_packed(q: Array, k: Array, v: Array, context: Array, lengths: Array, heads: int, scores: Array) -> None:
    """context ← attention within each sequence, all [N, H]; q comes scaled, ``scores`` has `scores_size` numbers.

    Raises ValueError if H is not a multiple of heads.
    """
    D = head_size(q.shape[1], heads)
    for rows, count, length in groups(lengths, heads):
        Q, K, V, C = (
            x[rows].reshape(count, length, heads, D).swapaxes(1, 2) for x in (q, k, v, context)
        )  # views [b, A, S, D]
        shape = (count, heads, length, length)
        _attend(Q, K, V, C, scores[: count * heads * length * length].reshape(shape))


def scores_size(lengths: Array, heads: int) -> int:
    """The scores of the largest group."""
    return max((count * heads * length * length for _, count, length in groups(lengths, heads)), default=0)


def _attend(Q: Array, K: Array, V: Array, out: Array, P: Array) -> None:
    np.matmul(Q, K.swapaxes(2, 3), out=P)
    # Sequence by sequence, so that none decides how another is rounded (refbert_numpy.attention.SAFE).
    flat = P.reshape(len(P), -1)
    safe = (flat.min(axis=1, initial=0) > -SAFE) & (flat.max(axis=1, initial=0) < SAFE)  # False for NaN
    for b in np.flatnonzero(~safe):
        P[b] -= P[b].max(axis=-1, keepdims=True)
    np.exp(P, out=P)
    np.matmul(P, V, out=out)
    out /= np.vecdot(P, np.ones(P.shape[-1], P.dtype))[..., None]
