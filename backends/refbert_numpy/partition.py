"""Which rows of a batch are computed, and which of them by which thread.

Rows that no loss reads and no query sees are left out: padding, and in the last layer every position but those that a
loss reads (keys and values are needed of all tokens there, but queries, and all that follows, of those positions only).
For a masked-LM step with 15 % of the positions labelled that is 70 % of the last layer's work.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from refbert.backend import Host
from refbert.config.heads import HEADS
from refbert.ops.cross_entropy import IGNORE
from refbert.text.batching import Batch


@dataclass(frozen=True)
class Rows:
    """Some of the B·S positions of a batch, in order: each one's b·S + s [N], and where a sequence's begin [B + 1]."""

    index: Host
    starts: tuple[int, ...]
    every: bool  # all positions

    @classmethod
    def of(cls, chosen: Host) -> Rows:
        """The positions that are True in [B, S]."""
        counts = np.count_nonzero(chosen, axis=1).tolist()
        return cls(np.flatnonzero(chosen), tuple(itertools.accumulate(counts, initial=0)), bool(chosen.all()))

    def __len__(self) -> int:
        return len(self.index)

    def among(self, sequences: slice) -> slice:
        """The rows of some sequences."""
        return slice(self.starts[sequences.start], self.starts[sequences.stop])

    def take(self, x: Host) -> Host:
        """Of an array [B, S, …] the rows [N, …]."""
        flat = x.reshape(-1, *x.shape[2:])
        return flat if self.every else flat[self.index]

    def spread(self, x: Host, shape: tuple[int, int]) -> Host:
        """The rows [N, H] at their positions in [B, S, H], zeros elsewhere; a copy in any case."""
        out = np.zeros((shape[0] * shape[1], x.shape[1]), x.dtype)
        out[slice(None) if self.every else self.index] = x
        return out.reshape(*shape, -1)


def rows_to_compute(
    batch: Batch, heads: Collection[str], labels: Mapping[str, Host], layers: int, mask_value: float
) -> tuple[Rows, Rows]:
    """(tokens, queries of the last layer).

    Padding is left out only under −∞, which gives it no weight whatever its scores are, and only where every sequence
    has a token (without one, a row attends to its padding) and no loss reads a padding position.
    """
    visible = batch.attention_mask.astype(bool)
    read = _read(heads, labels, batch.shape)
    droppable = mask_value == -math.inf and visible.any(axis=1).all() and not (read & ~visible).any()
    tokens = visible if droppable else np.ones_like(visible)
    return Rows.of(tokens), Rows.of(read if layers else tokens)


def _read(heads: Collection[str], labels: Mapping[str, Host], shape: tuple[int, int]) -> Host:
    """Which positions' hidden states the labelled heads' losses depend on: True in [B, S]."""
    read = np.zeros(shape, bool)
    for name in heads:
        reads = HEADS[name].reads
        if reads == "positions":
            read |= labels["labels"].reshape(shape) != IGNORE
        elif reads == "pooled":
            read[:, 0] = True
        else:  # tags have dropout over all positions; an answer's softmax runs over all positions
            read[:] = True
    return read


def partition(n: int, size: int) -> list[slice]:
    """n rows, columns or heads in ``size`` partitions of nearly the same length."""
    return [slice(n * t // size, n * (t + 1) // size) for t in range(size)]


def whole_sequences(starts: Sequence[int], size: int) -> list[slice] | None:
    """``size`` partitions of whole sequences, given where each one's rows begin, and where the last one's end [B + 1].

    None where the largest is over 3 % larger than it should be. That costs as much as cutting a sequence, for which
    threads wait for each other in every layer: little while both are awake, but after a pause the system was seen to
    keep both on one core, for 5 of the first layer's 18 ms.
    """
    at, N = np.asarray(starts), starts[-1]
    cuts = np.abs(at[:, None] - np.arange(size + 1) * N / size).argmin(axis=0)  # [size + 1]
    cuts[-1] = len(starts) - 1  # also where the last sequences have no rows
    if np.diff(at[cuts]).max() > 1.03 * N / size:
        return None
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(cuts)]


@dataclass(frozen=True)
class Partition:
    """What one thread does: its sequences (of which it draws the dropout masks), its tokens and its queries.

    aligned: tokens and queries are those of its sequences, so that a layer needs no other thread's rows.
    """

    t: int
    sequences: slice
    tokens: slice
    queries: slice
    aligned: bool


def partitions(tokens: Rows, queries: Rows, size: int) -> list[Partition]:
    """One for each of ``size`` threads: of whole sequences where these divide evenly, else of rows."""
    whole = whole_sequences(tokens.starts, size)
    if whole is not None:
        return [Partition(t, b, tokens.among(b), queries.among(b), aligned=True) for t, b in enumerate(whole)]
    sequences, rows, asked = (partition(n, size) for n in (len(tokens.starts) - 1, len(tokens), len(queries)))
    return [Partition(t, sequences[t], rows[t], asked[t], aligned=False) for t in range(size)]
