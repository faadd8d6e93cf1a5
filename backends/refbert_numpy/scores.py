"""Attention for training: softmax's numerators are kept as they are, and a row's sum is divided out of what is smaller.

With e_ij = exp(s_ij − shift_i), ρ_i = 1/Σ_j e_ij and P = e ρ (refbert.ops.attention):

    context_i = ρ_i Σ_j e_ij v_j
    dV = eᵀ (ρ dcontext)                               δ_i = Σ_j P_ij dP_ij = dcontext_i · context_i
    ds_ij = P_ij (dP_ij − δ_i) = e_ij ((ρ_i dcontext_i) · v_j − ρ_i δ_i)

so the scores, S/D times larger than anything else here, are passed over twice on the way back: one subtraction, one
product. With dropout, P and dP are P keep/(1 − rate) and dP keep/(1 − rate), and δ stays what it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from refbert_numpy.attention import KeyMask, together
from refbert_numpy.layout import Rows
from refbert_numpy.memory import Recycler

Array = npt.NDArray[Any]
Item = tuple[int, slice]  # a sequence, and heads


class Scores:
    """Where each sequence's scores [A, m, n] lie in one flat array: m of its queries, n of its tokens."""

    def __init__(self, tokens: Rows, queries: Rows, heads: int) -> None:
        self.tokens, self.queries, self.heads = tokens, queries, heads
        self.B = len(tokens.starts) - 1
        self._m, self._n = np.diff(queries.starts), np.diff(tokens.starts)
        self._starts = heads * np.concatenate([[0], np.cumsum(self._m * self._n)])
        self.size = int(self._starts[-1])

    def block(self, flat: Array, item: Item) -> Array:
        """[a, m, n]: some heads of a sequence."""
        b, a = item
        own = flat[self._starts[b] : self._starts[b + 1]]
        return own.reshape(self.heads, int(self._m[b]), int(self._n[b]))[a]

    def items(self, sequences: range) -> Iterator[Item]:
        """As many heads at a time as fit a block."""
        for b in sequences:
            step = together(int(self._m[b] * self._n[b]))
            for head in range(0, self.heads, step):
                yield b, slice(head, head + step)

    def largest(self) -> int:
        """How many scores the largest item has: not always the longest sequence's, of which fewer heads fit a block."""
        return max((int(one) * min(self.heads, together(int(one))) for one in self._m * self._n), default=0)

    def split(self, x: Array, item: Item, rows: Rows) -> Array:
        """The item's part of x [rows, A·D], as a view [a, n, D]."""
        b, a = item
        own = x[rows.sequence(b)]
        return own.reshape(len(own), self.heads, x.shape[1] // self.heads).swapaxes(0, 1)[a]


class Attention:
    """Attention over the items of a `Scores`, forward and backward, with the scores kept in between."""

    def __init__(self, scores: Scores, mask: KeyMask, rate: float, work: list[Array], memory: Recycler) -> None:
        """work: scratch for each thread, of `Scores.largest` numbers; rate: dropout's, 0 without."""
        self.scores, self._mask, self._rate, self._work = scores, mask, rate, work
        self.e = memory.take(scores.size)
        self._rho = memory.take(scores.heads, len(scores.queries))
        self.keep: Array | None = memory.take(scores.size, dtype=bool) if rate else None

    def forward(self, item: Item, q: Array, k: Array, v: Array, context: Array, t: int) -> None:
        """context ← attention of q, which comes scaled; all [rows, H], of which the item's part is read and written."""
        at = self.scores
        E, rho = at.block(self.e, item), self._sums(item)
        Q, K, V = at.split(q, item, at.queries), at.split(k, item, at.tokens), at.split(v, item, at.tokens)
        C = at.split(context, item, at.queries)
        self._mask.numerators(item[0], Q, K, E)
        np.divide(1, np.vecdot(E, np.ones(E.shape[-1], E.dtype)), out=rho)
        np.matmul(self._dropped(E, item, t), V, out=C)
        C *= (rho / (1 - self._rate) if self._rate else rho)[..., None]

    def backward(
        self, item: Item, q: Array, k: Array, v: Array, context: Array, dcontext: Array, scale: float, t: int
    ) -> None:
        """q, k, v ← their cotangents (q's of the unscaled one); dcontext and the scores are used up."""
        at = self.scores
        E, rho = at.block(self.e, item), self._sums(item)[..., None]  # [a, m, n], [a, m, 1]
        Q, K, V = at.split(q, item, at.queries), at.split(k, item, at.tokens), at.split(v, item, at.tokens)
        dC = at.split(dcontext, item, at.queries)
        delta = np.vecdot(dC, at.split(context, item, at.queries))[..., None]
        delta *= rho
        dC *= rho / (1 - self._rate) if self._rate else rho
        ds = np.matmul(dC, V.swapaxes(1, 2))  # [a, m, n]
        np.matmul(self._dropped(E, item, t).swapaxes(1, 2), dC, out=V)
        if self.keep is not None:
            ds *= at.block(self.keep, item)
        ds -= delta
        ds *= E
        dQ = np.matmul(ds, K)
        np.matmul(ds.swapaxes(1, 2), Q, out=K)
        np.multiply(dQ, scale, out=Q)

    def _sums(self, item: Item) -> Array:
        b, a = item
        return self._rho[a, self.scores.queries.sequence(b)]

    def _dropped(self, E: Array, item: Item, t: int) -> Array:
        if self.keep is None:
            return E
        return np.multiply(E, self.scores.block(self.keep, item), out=self._work[t][: E.size].reshape(E.shape))


def all_visible(B: int, dtype: Any) -> KeyMask:
    """The mask of sequences of which only visible tokens are left."""
    return KeyMask(np.ones((B, 1), bool), (B, 1), -math.inf, dtype)
