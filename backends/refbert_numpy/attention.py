"""Multi-head attention over blocks of scores that stay in the cache: forward for inference and training, and backward.

Sequences lie end to end, q [M, H], k and v [N, H], so that neither padding nor a query that nobody reads is computed.
With e_ij = exp(s_ij − shift_i), ρ_i = 1/Σ_j e_ij and P = e ρ (refbert.ops.attention has the equations):

    context_i = ρ_i Σ_j e_ij v_j
    dV = eᵀ (ρ dcontext)                               δ_i = Σ_j P_ij dP_ij = dcontext_i · context_i
    ds_ij = P_ij (dP_ij − δ_i) = e_ij ((ρ_i dcontext_i) · v_j − ρ_i δ_i)

so the scores, S/D times larger than anything else here, are never divided, and on the way back passed over twice: one
subtraction, one product. With dropout, P and dP are P keep/(1 − rate) and dP keep/(1 − rate), and δ stays what it is.

As many heads and sequences at a time as keep their scores in the cache are a block. In it, neighbours with equally many
queries and keys share their products; exp and the look for scores that are too large for it go over all of it at once.
On two threads that counts: with everything length by length, and the interpreter lock handed over before and after each
call, 32 sentences of 14 lengths a thread took as long as on one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from refbert_numpy.memory import Array, Recycler, give_back, scratch

BLOCK = 1 << 18  # scores worked on at a time: 1 MB in float32
# Scores within ±SAFE need no maximum subtracted: S e^60 and e^−60 are both far inside float32's range. Two reductions
# over a flat block cost 0.02 ms where those over its rows and the subtraction cost 0.12 ([12, 128, 128]). Sequence by
# sequence, so that none decides how another is rounded; and only where every key is visible, so that padding does not.
SAFE = 60.0


class Group(NamedTuple):
    """Some heads of neighbouring sequences with equally many queries and keys: one product for all of them."""

    sequences: slice
    queries: slice  # rows
    keys: slice  # rows
    heads: slice
    shape: tuple[int, int, int, int]  # of its scores: [sequences, heads, queries of each, keys of each]

    def split(self, x: Array, rows: slice, D: int) -> Array:
        """Its part of x [rows, A·D], a view [sequences, heads, rows of each, D]."""
        own = x[rows, D * self.heads.start : D * self.heads.stop]
        return own.reshape(self.shape[0], -1, self.shape[1], D).swapaxes(1, 2)


class Block(NamedTuple):
    """Groups of the same heads whose scores are in the cache together, end to end."""

    groups: tuple[Group, ...]
    scores: tuple[slice, ...]  # where each group's are
    size: int  # how many scores
    queries: slice  # rows
    heads: slice

    def views(self, flat: Array) -> list[Array]:
        """Each group's part of [size], in the shape of its scores."""
        return [flat[at].reshape(group.shape) for group, at in zip(self.groups, self.scores, strict=True)]

    def by_sequence(self, flat: Array) -> Iterator[tuple[int, Array]]:
        """Each sequence's number and part of [size], as a view [heads, queries, keys]."""
        for group, view in zip(self.groups, self.views(flat), strict=True):
            yield from zip(range(group.sequences.start, group.sequences.stop), view, strict=True)


@lru_cache(maxsize=64)  # every layer and every thread asks anew
def plan(keys: tuple[int, ...], queries: tuple[int, ...], heads: int, sequences: range, most: int) -> tuple[Block, ...]:
    """Blocks of at most ``most`` scores; a head of one sequence is not divided, however many scores it has.

    keys, queries: where each sequence's rows begin, and where the last one's end [B + 1].
    """
    blocks: list[list[Group]] = []
    room = 0
    for b in sequences:
        m, n = queries[b + 1] - queries[b], keys[b + 1] - keys[b]
        if not m:
            continue
        step = min(heads, max(1, most // (m * n)))  # heads at a time
        for head in range(0, heads, step):
            own = slice(head, min(heads, head + step))
            shape = (1, own.stop - head, m, n)
            if step < heads or math.prod(shape) > room:
                blocks.append([])
                room = most if step == heads else math.prod(shape)  # full: the next group has other heads
            rows = slice(queries[b], queries[b + 1]), slice(keys[b], keys[b + 1])
            blocks[-1].append(Group(slice(b, b + 1), *rows, own, shape))
            room -= math.prod(shape)
    return tuple(map(_block, blocks))


def _block(each: list[Group]) -> Block:
    """One group for each sequence, neighbours of one shape put together."""
    groups = each[:1]
    for group in each[1:]:
        last = groups[-1]
        if group.shape[1:] == last.shape[1:] and group.sequences.start == last.sequences.stop:
            groups[-1] = Group(
                slice(last.sequences.start, group.sequences.stop), slice(last.queries.start, group.queries.stop),
                slice(last.keys.start, group.keys.stop), last.heads, (last.shape[0] + 1, *last.shape[1:]),
            )  # fmt: skip
        else:
            groups.append(group)
    ends = itertools.accumulate((math.prod(group.shape) for group in groups), initial=0)
    scores = tuple(itertools.starmap(slice, itertools.pairwise(ends)))
    rows = slice(groups[0].queries.start, groups[-1].queries.stop)
    return Block(tuple(groups), scores, scores[-1].stop, rows, groups[0].heads)


class KeyMask:
    """What a mask [B, S] of visible keys does to the scores of the sequences that it hides some of."""

    def __init__(self, visible: Array, mask_value: float, dtype: np.dtype[Any]) -> None:
        self.hides: Array = np.asarray(~visible.all(axis=1))  # [B]
        self._blind: Array = np.asarray(~visible.any(axis=1) & (mask_value == -math.inf))
        self._bias: Array = np.where(visible, 0, mask_value).astype(dtype)

    @classmethod
    def of(cls, mask: Array, mask_value: float, dtype: np.dtype[Any]) -> KeyMask | None:
        """None where every key is visible: mostly so, and then there is nothing else to know."""
        visible = np.asarray(mask).astype(bool)
        return None if visible.all() else cls(visible, mask_value, dtype)

    def apply(self, b: int, scores: Array) -> None:
        """Change sequence b's scores [..., S]; with no visible key under −∞ they are all the same."""
        if self._blind[b]:
            scores.fill(0)
        else:
            scores += self._bias[b]


def head_size(H: int, heads: int) -> int:
    """D = H/A. Raises ValueError if H is not a multiple of heads."""
    if H % heads:
        raise ValueError(f"{H} features do not divide into {heads} heads")
    return H // heads


def attend(
    q: Array, k: Array, v: Array, context: Array, blocks: Sequence[Block], heads: int, mask: KeyMask | None = None
) -> None:
    """context ← attention for the blocks' queries, for inference; q comes scaled.

    Raises ValueError if H is not a multiple of heads.
    """
    head_size(q.shape[1], heads)
    rho = np.empty((len(q), heads), q.dtype)
    e = scratch(_most(blocks), q.dtype)
    for block in blocks:
        _forward(block, q, k, v, context, e[: block.size], rho, mask, None, 0.0, e)
    give_back(e)


class Attention:
    """Attention in training: the numerators e and ρ are kept for the backward pass."""

    def __init__(
        self, blocks: Sequence[Sequence[Block]], unread: Sequence[Sequence[slice]], queries: int, heads: int,
        mask: KeyMask | None, rate: float, memory: Recycler,
    ) -> None:  # fmt: skip
        """blocks: each thread's; unread: its keys that no query sees, and no block has; rate: dropout's, 0 without."""
        self._blocks, self._unread, self._mask, self._rate = blocks, unread, mask, rate
        self._rho = memory.take(queries, heads)
        self._e = [[memory.take(block.size) for block in own] for own in blocks]
        self._keep = [[memory.take(block.size, dtype=bool) if rate else None for block in own] for own in blocks]

    def keep(self) -> Iterator[tuple[int, slice, Array]]:
        """Dropout's mask, for the caller to fill: (sequence, heads, [heads, queries, keys])."""
        for own, keeps in zip(self._blocks, self._keep, strict=True):
            for block, keep in zip(own, keeps, strict=True):
                if keep is not None:
                    yield from ((b, block.heads, view) for b, view in block.by_sequence(keep))

    def forward(self, t: int, q: Array, k: Array, v: Array, context: Array) -> None:
        """context ← attention for the queries of thread t's blocks; q comes scaled."""
        work = scratch(_most(self._blocks[t]) if self._rate else 0, q.dtype)
        for block, e, keep in zip(self._blocks[t], self._e[t], self._keep[t], strict=True):
            _forward(block, q, k, v, context, e, self._rho, self._mask, keep, self._rate, work)
        give_back(work)

    def backward(self, t: int, q: Array, k: Array, v: Array, context: Array, dcontext: Array, scale: float) -> None:
        """q, k, v ← their cotangents (q's of the unscaled one); dcontext is used up."""
        work = scratch(2 * _most(self._blocks[t]), q.dtype)
        for block, e, keep in zip(self._blocks[t], self._e[t], self._keep[t], strict=True):
            _backward(block, q, k, v, context, dcontext, e, self._rho, scale, keep, self._rate, work)
        for keys in self._unread[t]:
            k[keys] = v[keys] = 0
        give_back(work)


def _most(blocks: Sequence[Block]) -> int:
    return max((block.size for block in blocks), default=0)


def _forward(
    block: Block, q: Array, k: Array, v: Array, context: Array, e: Array, rho: Array, mask: KeyMask | None,
    keep: Array | None, rate: float, work: Array,
) -> None:  # fmt: skip
    """e [size], and context and rho [M, A] at the block's queries; work: with dropout, scratch for as many scores."""
    D, rows, heads = q.shape[1] // rho.shape[1], block.queries, block.heads
    scores = block.views(e)
    for group, s in zip(block.groups, scores, strict=True):
        np.matmul(group.split(q, group.queries, D), group.split(k, group.keys, D).swapaxes(2, 3), out=s)
    _exponentials(e, block, mask)
    weights = scores if keep is None else block.views(np.multiply(e, keep, out=work[: block.size]))
    for group, numerators, p in zip(block.groups, scores, weights, strict=True):
        ones = np.ones(numerators.shape[-1], e.dtype)
        # A product with ones: 0.02 ms where a sum costs 0.06.
        np.vecdot(numerators, ones, out=group.split(rho, group.queries, 1)[..., 0])
        np.matmul(p, group.split(v, group.keys, D), out=group.split(context, group.queries, D))
    own = rho[rows, heads]
    np.divide(1, own, out=own)
    out = context[rows, D * heads.start : D * heads.stop].reshape(*own.shape, D)  # a view
    out *= (own / (1 - rate) if rate else own)[..., None]


def _exponentials(e: Array, block: Block, mask: KeyMask | None) -> None:
    """e ← exp(e − shift): each row's maximum where a sequence's scores are large or some of its keys hidden, else 0."""
    if mask is not None or not _safe(e):
        for b, scores in block.by_sequence(e):
            if mask is not None and mask.hides[b]:
                mask.apply(b, scores)
            elif _safe(scores):
                continue
            scores -= scores.max(axis=-1, keepdims=True)
    np.exp(e, out=e)


def _safe(scores: Array) -> bool:
    return bool(scores.min() > -SAFE and scores.max() < SAFE)  # False for NaN


def _backward(
    block: Block, q: Array, k: Array, v: Array, context: Array, dcontext: Array, e: Array, rho: Array, scale: float,
    keep: Array | None, rate: float, work: Array,
) -> None:  # fmt: skip
    """q, k and v at the block's rows ← their cotangents; work: scratch for twice as many scores."""
    D = q.shape[1] // rho.shape[1]
    flat, weights = work[: 2 * block.size].reshape(2, -1)
    weights = e if keep is None else np.multiply(e, keep, out=weights)
    keeps = [None] * len(block.groups) if keep is None else block.views(keep)
    views = zip(block.groups, block.views(e), block.views(weights), block.views(flat), keeps, strict=True)
    for group, numerators, p, ds, kept in views:
        Q, C, dC = (group.split(x, group.queries, D) for x in (q, context, dcontext))
        K, V, r = group.split(k, group.keys, D), group.split(v, group.keys, D), group.split(rho, group.queries, 1)
        delta = np.vecdot(dC, C)[..., None]
        delta *= r
        dC *= r / (1 - rate) if rate else r
        np.matmul(dC, V.swapaxes(2, 3), out=ds)
        np.matmul(p.swapaxes(2, 3), dC, out=V)
        if kept is not None:
            ds *= kept
        ds -= delta
        ds *= numerators
        dQ = np.matmul(ds, K)
        np.matmul(ds.swapaxes(2, 3), Q, out=K)
        np.multiply(dQ, scale, out=Q)
