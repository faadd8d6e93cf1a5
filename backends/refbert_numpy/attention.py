"""Attention over blocks of heads whose scores stay in the cache; refbert.ops.attention has the equations.

Against the reference's composition in float32, which goes over the scores of the whole batch a dozen times, this writes
each block's scores once and finishes them there. 1/√D is multiplied into q, which is S/D times smaller than the scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from refbert.ops.types import Pullback
from refbert_numpy.threads import Team, threads

Array = npt.NDArray[Any]

BLOCK = 1 << 18  # scores worked on at a time: 1 MB in float32
# Scores within ±SAFE need no maximum subtracted: S e^60 and e^−60 are both far inside float32's range. Two reductions
# over a flat block cost 0.02 ms where those over its rows and the subtraction cost 0.12 ([12, 128, 128]). Only where
# every key is visible: else the scores of padding would decide which way its neighbours are rounded.
SAFE = 60.0


class KeyMask:
    """What a mask [B, S] of visible keys adds to the scores, sequence by sequence."""

    def __init__(self, mask: Array, shape: tuple[int, int], mask_value: float, dtype: np.dtype[Any]) -> None:
        visible = np.asarray(mask).astype(bool)
        # Mostly so, and then there is nothing else to know: 0.05 ms a layer, 2 % of one of bert-base's at 1 × 16.
        self._every = bool(visible.all())
        if not self._every:
            visible = np.broadcast_to(visible, shape)
            self._bias: Array = np.where(visible, 0, mask_value).astype(dtype)  # [B, S]
            self._all: Array = np.asarray(visible.all(axis=1))  # [B]
            self._none: Array = ~np.asarray(visible.any(axis=1))  # [B]
            self._excludes = mask_value == -math.inf

    def numerators(self, b: int, Q: Array, K: Array, out: Array) -> None:
        """out ← e^{Q Kᵀ + bias} [a, S, S], up to a factor a row: softmax before its division."""
        if not self._every and self._excludes and self._none[b]:
            out.fill(1)  # no visible key under −∞: uniform
            return
        np.matmul(Q, K.swapaxes(1, 2), out=out)
        if not self._every and not self._all[b]:
            out += self._bias[b]
        elif out.min(initial=0) > -SAFE and out.max(initial=0) < SAFE:  # False for NaN
            np.exp(out, out=out)
            return
        out -= out.max(axis=-1, keepdims=True)
        np.exp(out, out=out)


def head_size(H: int, heads: int) -> int:
    """D = H/A. Raises ValueError if H is not a multiple of heads."""
    if H % heads:
        raise ValueError(f"{H} features do not divide into {heads} heads")
    return H // heads


def split(x: Array, heads: int) -> Array:
    """[B, S, A·D] -> a view [B, A, S, D]. Raises ValueError if H is not a multiple of heads."""
    B, S, H = x.shape
    return x.reshape(B, S, heads, head_size(H, heads)).swapaxes(1, 2)


def together(scores: int) -> int:
    """How many heads (or sequences) of so many scores each fit a block."""
    return max(1, BLOCK // max(1, scores))


def blocks(B: int, heads: int, S: int) -> Iterator[tuple[int, slice]]:
    """Sequence by sequence, as many heads at a time as fit."""
    step = together(S * S)
    for b in range(B):
        for head in range(0, heads, step):
            yield b, slice(head, head + step)


def scores_buffer_shape(heads: int, S: int) -> tuple[int, int, int]:
    """The largest block of scores that `blocks` asks for."""
    return min(heads, together(S * S)), S, S


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array,
    heads: int,
    mask_value: float,
    keep: Array | None = None,
    rate: float = 0.0,
) -> tuple[Array, Pullback]:
    """y [B, S, H], keeping the probabilities (without dropout), scaled queries, keys and values."""
    B, S, H = q.shape
    scale = 1 / math.sqrt(H // heads)
    Q, K, V = split(q * scale, heads), split(k, heads), split(v, heads)
    terms = KeyMask(mask, (B, S), mask_value, q.dtype)
    kept = _checked_keep(keep, rate, (B, heads, S, S))
    p = np.empty((B, heads, S, S), q.dtype)
    y = np.empty((B, S, H), q.dtype)
    Y = split(y, heads)
    items = list(blocks(B, heads, S))
    size = max(1, min(threads(), len(items)))

    def forward(t: int) -> None:
        for b, a in items[t::size]:
            P = p[b, a]
            terms.numerators(b, Q[b, a], K[b, a], P)
            P /= P.sum(axis=-1, keepdims=True)
            np.matmul(P if kept is None else _dropped(P, kept[b, a], rate), V[b, a], out=Y[b, a])

    Team(size).run(forward)

    def pullback(dy: Array) -> tuple[Array, Array, Array]:
        dq, dk, dv = np.empty((3, B, S, H), p.dtype)
        dY, dQ, dK, dV = (split(x, heads) for x in (dy, dq, dk, dv))
        buffers = np.empty((size, *scores_buffer_shape(heads, S)), p.dtype)

        def backward(t: int) -> None:
            for b, a in items[t::size]:
                P = p[b, a]
                ds = buffers[t, : len(P)]
                np.matmul((P if kept is None else _dropped(P, kept[b, a], rate)).swapaxes(1, 2), dY[b, a], out=dV[b, a])
                np.matmul(dY[b, a], V[b, a].swapaxes(1, 2), out=ds)
                if kept is not None:
                    ds *= kept[b, a]
                    ds /= 1 - rate
                ds -= np.vecdot(ds, P)[..., None]
                ds *= P
                np.matmul(ds, K[b, a], out=dQ[b, a])
                np.matmul(ds.swapaxes(1, 2), Q[b, a], out=dK[b, a])

        Team(size).run(backward)
        dq *= scale
        return dq, dk, dv

    return y, pullback


def attend(
    q: Array,
    k: Array,
    v: Array,
    terms: KeyMask,
    context: Array,
    buffer: Array,
    *,
    sequences: tuple[int, int],
    heads: int,
    rows: tuple[int, int],
) -> None:
    """context ← attention for the queries of some of the B·S rows, all [B·S, H], for inference.

    q comes scaled, ``buffer`` is `scores_buffer_shape`'s. The division by softmax's sums is done on the context, which
    is S/D times smaller than the probabilities. Raises ValueError if H is not a multiple of heads.
    """
    B, S = sequences
    H = q.shape[1]
    ones = np.ones(S, q.dtype)
    Q, K, V, C = (split(x.reshape(B, S, H), heads) for x in (q, k, v, context))  # [B, A, S, D]
    for b, a in blocks(B, heads, S):
        mine = slice(max(0, rows[0] - b * S), max(0, min(S, rows[1] - b * S)))
        if mine.start >= mine.stop:
            continue
        out = C[b, a, mine]
        P = buffer[: len(out), : out.shape[1]]
        terms.numerators(b, Q[b, a, mine], K[b, a], P)
        np.matmul(P, V[b, a], out=out)
        out /= np.vecdot(P, ones)[..., None]  # a product with ones: 0.02 ms where a sum costs 0.06


def _dropped(p: Array, kept: Array, rate: float) -> Array:
    out: Array = p * kept
    out /= 1 - rate
    return out


def _checked_keep(keep: Array | None, rate: float, shape: tuple[int, ...]) -> Array | None:
    if keep is None:
        return None
    if not 0 <= rate < 1:
        raise ValueError(f"dropout rate must be in [0, 1), got {rate}")
    if keep.shape != shape:
        raise ValueError(f"the keep mask must have the shape of the probabilities, {shape}, got {keep.shape}")
    return keep.astype(bool)
