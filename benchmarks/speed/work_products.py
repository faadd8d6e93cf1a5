"""Only the matrix products of the work, operands in memory and results preallocated: what no NumPy code can beat.

The shapes are those of a backend that fuses what can be fused: queries, keys and values in one product, weights [in,
out], attention a head at a time, the masked-LM head on the labelled positions. A step adds two products for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from refbert.ops.cross_entropy import IGNORE
from speed.inputs import batch_of, config_of
from speed.worker import Prepared

Products = list[tuple[np.ndarray, np.ndarray, np.ndarray]]  # x, y, out ← x y


def prepare(work: Mapping[str, Any], options: Mapping[str, Any]) -> Prepared:
    """``part``: "products" (of linear maps), "attention" or both; ``shards``: rows and sequences split over threads."""
    shards = options["threads"] if options.get("shards") else 1
    sizes = Sizes(work, shards)
    part = work.get("part")
    lists = []
    for _ in range(shards):
        linear = sizes.linear() if part in (None, "products") else []
        attention = sizes.attention() if part in (None, "attention") else []
        lists.append(sizes.in_order(linear, attention))
    if shards == 1:
        return Prepared(lambda: _run(lists[0]), lambda _: {})
    pool = ThreadPoolExecutor(shards)
    return Prepared(lambda: list(pool.map(_run, lists)), lambda _: {})


class Sizes:
    """The products of one shard."""

    def __init__(self, work: Mapping[str, Any], shards: int) -> None:
        config = config_of(work)
        self.L, self.H, self.F = config.num_hidden_layers, config.hidden_size, config.intermediate_size
        self.A, self.S, self.V = config.num_attention_heads, work["S"], config.vocab_size
        self.step = work["kind"] == "step"
        B = work["B"]
        # A shard has its share of the rows; with fewer sequences than shards, of the heads.
        self.N = -(-B * self.S // shards)
        by_heads = shards > B
        self.sequences = 1.0 if by_heads else B / shards
        self.heads = -(-self.A * B // shards) if by_heads else self.A
        labelled = int((batch_of(work)[1]["labels"] != IGNORE).sum())
        self.masked = -(-labelled // shards) if self.step else 0
        self.rng = np.random.default_rng(0)
        # Activations and results are the same memory in every layer, as in a workspace; weights are not.
        self.buffers: dict[tuple[str, tuple[int, ...]], np.ndarray] = {}

    def linear(self) -> list[Products]:
        """Of each layer, and of the masked-LM head at the end."""
        N, H, F = self.N, self.H, self.F
        layers = [
            [p for m, n in ((H, 3 * H), (H, H), (H, F), (F, H)) for p in self._map(N, m, n)] for _ in range(self.L)
        ]
        if self.step:
            layers.append([*self._map(self.masked, H, H), *self._map(self.masked, H, self.V)])
        return layers

    def attention(self) -> list[Products]:
        """Of each layer: scores and contexts of each sequence; backward four more."""
        a, S, D = self.heads, self.S, self.H // self.A
        q, k = self._buffer("q", a, S, D), self._buffer("k", a, S, D)
        scores, context = self._buffer("scores", a, S, S), self._buffer("context", a, S, D)
        keys, rows = k.swapaxes(1, 2), scores.swapaxes(1, 2)
        one: Products = [(q, keys, scores), (scores, k, context)]
        if self.step:
            one += [(rows, q, context), (q, keys, scores), (scores, k, context), (rows, q, context)]
        return [one * max(1, round(self.sequences))] * self.L

    def in_order(self, linear: list[Products], attention: list[Products]) -> Products:
        """Layer by layer, each attention before its layer's linear maps (the order within a layer changes nothing)."""
        out: Products = []
        for layer in range(max(len(linear), len(attention))):
            out += attention[layer] if layer < len(attention) else []
            out += linear[layer] if layer < len(linear) else []
        return out

    def _map(self, N: int, m: int, n: int) -> Products:
        x, w, y = self._buffer("x", N, m), self._random(m, n), self._buffer("y", N, n)
        out: Products = [(x, w, y)]
        if self.step:
            # dx ← dy wᵀ, dw ← xᵀ dy, each gradient in memory of its own, as it has to be.
            out += [(y, w.T, self._buffer("dx", N, m)), (x.T, y, np.empty((m, n), np.float32))]
        return out

    def _buffer(self, name: str, *shape: int) -> np.ndarray:
        if (name, shape) not in self.buffers:
            self.buffers[name, shape] = self._random(*shape)
        return self.buffers[name, shape]

    def _random(self, *shape: int) -> np.ndarray:
        # Small: products of products stay finite however often they are written over each other.
        return self.rng.standard_normal(shape, dtype=np.float32) * np.float32(0.01)


def _run(products: Products) -> None:
    for x, y, out in products:
        np.matmul(x, y, out=out)
