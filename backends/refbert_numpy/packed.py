"""Attention over sequences laid end to end, [N, H] and their lengths, for inference: refbert.ops.attention of each.

As many sequences at a time as keep their scores in the cache. Neighbours of one length share their products; exp, the
look for scores that are too large for it and the division go over all of them at once, whatever their lengths. On two
threads that counts: with all of it length by length, and the interpreter lock handed over before and after each call,
32 sentences of 14 lengths a thread took as long as on one.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from refbert_numpy.attention import SAFE, head_size

Array = npt.NDArray[Any]


class Item(NamedTuple):
    """Some heads of neighbours of one length, of which equally many rows are asked for: a product for all of them."""

    queries: slice
    keys: slice
    sequences: int
    heads: slice

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of its scores: [sequences, heads, queries of each, keys of each]."""
        return (
            self.sequences,
            self.heads.stop - self.heads.start,
            (self.queries.stop - self.queries.start) // self.sequences,
            (self.keys.stop - self.keys.start) // self.sequences,
        )


class Chunk(NamedTuple):
    """Items of neighbouring queries and the same heads, whose scores are in the cache together."""

    items: tuple[Item, ...]
    rows: slice
    size: int  # how many scores
    starts: tuple[int, ...]  # where each sequence's scores begin


@lru_cache(maxsize=64)  # every layer and every thread asks anew
def plan(lengths: tuple[int, ...], heads: int, start: int, stop: int, block: int) -> tuple[Chunk, ...]:
    """What there is to do for the queries in the rows start … stop, in order: chunks of at most ``block`` scores.

    A head of one sequence is not divided, however many scores it has.
    """
    chunks: list[list[Item]] = []
    room = 0
    for length, end in zip(lengths, itertools.accumulate(lengths), strict=True):
        keys = slice(end - length, end)
        queries = slice(max(start, keys.start), min(stop, keys.stop))
        m = queries.stop - queries.start
        if m <= 0:
            continue
        step = min(heads, max(1, block // (m * length)))  # heads at a time
        for head in range(0, heads, step):
            item = Item(queries, keys, 1, slice(head, min(heads, head + step)))
            size = math.prod(item.shape)
            if step < heads or size > room:
                chunks.append([])
                room = block if step == heads else size  # full: the next item has other heads
            chunks[-1].append(item)
            room -= size
    return tuple(map(_chunk, chunks))


def _chunk(items: list[Item]) -> Chunk:
    sizes = [math.prod(item.shape) for item in items]
    starts = tuple(itertools.accumulate(sizes[:-1], initial=0))
    joined = (_joined(list(same)) for _, same in itertools.groupby(items, key=lambda item: item.shape))
    return Chunk(tuple(joined), slice(items[0].queries.start, items[-1].queries.stop), sum(sizes), starts)


def _joined(items: list[Item]) -> Item:
    """Neighbours of one shape as one item."""
    first, last = items[0], items[-1]
    return Item(
        slice(first.queries.start, last.queries.stop), slice(first.keys.start, last.keys.stop), len(items), first.heads
    )


def scores_size(chunks: tuple[Chunk, ...]) -> int:
    """The scores of the largest chunk."""
    return max((chunk.size for chunk in chunks), default=0)


def attend_packed(
    q: Array, k: Array, v: Array, context: Array, chunks: tuple[Chunk, ...], heads: int, scores: Array
) -> None:
    """context ← attention within each sequence for the plan's queries, all [N, H]; q comes scaled.

    ``scores`` has `scores_size` numbers. Raises ValueError if H is not a multiple of heads.
    """
    D = head_size(q.shape[1], heads)
    for chunk in chunks:
        flat = scores[: chunk.size]
        mine = chunk.items[0].heads
        sums = np.empty((chunk.rows.stop - chunk.rows.start, mine.stop - mine.start), q.dtype)  # [rows, heads]
        P = []
        start = 0
        for item in chunk.items:
            size = math.prod(item.shape)
            P.append(flat[start : start + size].reshape(item.shape))
            start += size
            np.matmul(_split(q, item.queries, item, D), _split(k, item.keys, item, D).swapaxes(2, 3), out=P[-1])
        _numerators(flat, chunk, P)
        for item, p in zip(chunk.items, P, strict=True):
            own = slice(item.queries.start - chunk.rows.start, item.queries.stop - chunk.rows.start)
            total = sums[own].reshape(item.sequences, -1, sums.shape[1]).swapaxes(1, 2)  # a view, like `p` without keys
            np.vecdot(p, np.ones(p.shape[-1], p.dtype), out=total)
            np.matmul(p, _split(v, item.keys, item, D), out=_split(context, item.queries, item, D))
        out = context[chunk.rows, D * mine.start : D * mine.stop].reshape(*sums.shape, D)  # a view
        out /= sums[..., None]


def _split(x: Array, rows: slice, item: Item, D: int) -> Array:
    """The item's part of x [N, H], a view [sequences, heads, rows of each, D]."""
    own = x[rows, D * item.heads.start : D * item.heads.stop]
    return own.reshape(item.sequences, len(own) // item.sequences, -1, D).swapaxes(1, 2)


def _numerators(flat: Array, chunk: Chunk, P: list[Array]) -> None:
    """flat ← e^flat, after taking off each row's maximum in sequences whose scores are large.

    Sequence by sequence, so that none decides how another is rounded (refbert_numpy.attention.SAFE).
    """
    safe = np.minimum.reduceat(flat, chunk.starts) > -SAFE
    safe &= np.maximum.reduceat(flat, chunk.starts) < SAFE  # False for NaN
    if not safe.all():
        each = itertools.chain.from_iterable(P)  # sequence by sequence
        for p, fine in zip(each, safe, strict=True):
            if not fine:
                p -= p.max(axis=-1, keepdims=True)
    np.exp(flat, out=flat)
