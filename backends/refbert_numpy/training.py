"""The encoder for training: embeddings and layers, forward and backward, by a team of threads.

The equations are refbert.spec's (embeddings, attention, feed_forward) and refbert.ops'. What differs:

* Each thread takes its own sequences (or, where those do not divide evenly, rows) through all layers; only the
  gradients of the weights are sums over all rows, and of those each thread computes some output features. That takes
  one wait a layer.
* Of a layer is kept: q, k, v, the scores, the context, both normalised residuals x̂, the active units, and the
  activation's slope instead of its input. The inputs of the products are γ x̂ + β again.
* The backward pass writes cotangents over what was kept, so it needs hardly any memory of its own.
* With gradient checkpointing, layers keep what each has read, and share the memory for the rest; the last layer's is
  still there when the backward pass begins, so all but that one run again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from refbert.backend import KeepMasks
from refbert.spec.choices import Choices
from refbert.spec.scope import Scope
from refbert.text.batching import Batch
from refbert_numpy import attention
from refbert_numpy.activations import activate_rows
from refbert_numpy.attention import Attention, KeyMask, plan
from refbert_numpy.memory import Array, Recycler
from refbert_numpy.partition import Partition, Rows, partition, partitions
from refbert_numpy.rows import add_sums, affine, layer_norm, norm_back
from refbert_numpy.threads import Team

Params = Mapping[str, Array]


@dataclass
class Kept:
    """What the forward pass keeps of one layer, M queries and N tokens; the backward pass uses it up."""

    q: Array  # [M, H], scaled
    k: Array  # [N, H]
    v: Array
    attention: Attention
    context: Array  # [M, H]
    xhat1: Array  # [M, H] after attention
    r1: Array  # [M, 1]
    active: Array  # [M, F]
    slope: Array  # [M, F]
    xhat2: Array  # [M, H] after the feed-forward
    r2: Array  # [M, 1]
    keep1: Array | None  # [M, H] bool: dropout
    keep2: Array | None


@dataclass
class Layer:
    """One layer on its way: ``kept`` may be another's memory, and is None once it is used up."""

    site: str  # its name, as dropout's masks have it
    p: Params
    queries: Rows
    subset: Array | None  # the queries among the tokens; None where they are all of them
    kept: Kept | None


@dataclass
class Cotangents:
    """What the backward pass writes to besides what was kept. Two of what another thread may still be reading."""

    dx: Array  # [N, H] of a layer's input
    wide: Array  # [N, F] scratch
    narrow: Array  # [N, H] scratch, by tokens
    slim: Array  # [M, H] scratch, by the last layer's queries, which are not rows of tokens
    inputs: list[Array]  # [N, H] what each layer read
    middles: tuple[Array, Array]  # [N, H] what its feed-forward read


class Encoder:
    """One forward pass over a batch, and its backward pass, which uses it up."""

    def __init__(
        self, params: Params, batch: Batch, c: Choices, draws: KeepMasks | None, tokens: Rows, queries: Rows,
        team: Team, memory: Recycler,
    ) -> None:  # fmt: skip
        self._p, self._batch, self._c, self._draws = params, batch, c, draws
        self._tokens, self._team, self._memory = tokens, team, memory
        self._partitions = partitions(tokens, queries, team.size)
        word = params["bert.embeddings.word_embeddings.weight"]
        self._H = word.shape[1]
        self._scale = 1 / math.sqrt(self._H // c.heads)
        self._rate = 0.0 if draws is None else c.hidden_dropout
        self._attention_rate = 0.0 if draws is None else c.attention_dropout
        # Where tokens are left out, all that are left are visible.
        self._mask = KeyMask.of(batch.attention_mask, c.mask_value, word.dtype) if tokens.every else None
        self._again = c.gradient_checkpointing and c.layers > 1
        last = None if len(queries) == len(tokens) else np.searchsorted(tokens.index, queries.index)
        sites = [f"encoder.layer.{i}" for i in range(c.layers)]
        self._layers = [Layer(site, Scope(params, f"bert.{site}."), tokens, None, None) for site in sites]
        self._M, self._some = len(queries), last is not None
        if self._layers:
            self._layers[-1].queries, self._layers[-1].subset = queries, last

    # Forward

    def forward(self) -> Array:
        """The hidden states of the queries [M, H]."""
        c, take, N, M, H = self._c, self._memory.take, len(self._tokens), self._M, self._H
        self._make_room()
        self._embedded, self._r0 = take(N, H), take(N, 1)
        self._keep0 = take(N, H, dtype=bool) if self._rate else None
        x, y1 = take(N, H), take(N, H)
        inputs = [x, *(take(N, H) if self._again else x for _ in range(1, c.layers))]
        self._inputs = inputs if self._again else []  # what is made again is not kept
        # Rows of the last layer's queries are not rows of tokens, and its thread may be ahead of the others.
        top_y1 = take(M, H) if self._some else y1
        top = take(M, H) if self._some or self._again else x
        outputs = [*inputs[1:], top]

        def work(t: int) -> None:
            part = self._partitions[t]
            self._embed(part, x)
            for i in range(c.layers):
                self._layer(i, part, inputs[i], top_y1 if i == c.layers - 1 else y1, outputs[i])

        self._team.run(work)
        return top

    def _make_room(self) -> None:
        """Each layer's own, or with gradient checkpointing the last one's, and where that is smaller one for others."""
        if not self._again:
            for layer in self._layers:
                layer.kept = self._room(layer)
            return
        self._layers[-1].kept = top = self._room(self._layers[-1])
        below = self._room(self._layers[0]) if self._some else top
        for layer in self._layers[:-1]:
            layer.kept = below

    def _room(self, layer: Layer) -> Kept:
        take, N, H = self._memory.take, len(self._tokens), self._H
        M, F = len(layer.queries), len(layer.p["intermediate.dense.bias"])
        keep1, keep2 = (take(M, H, dtype=bool) if self._rate else None for _ in range(2))
        return Kept(
            q=take(M, H), k=take(N, H), v=take(N, H), attention=self._attention(layer.queries),
            context=take(M, H), xhat1=take(M, H), r1=take(M, 1), active=take(M, F), slope=take(M, F),
            xhat2=take(M, H), r2=take(M, 1), keep1=keep1, keep2=keep2,
        )  # fmt: skip

    def _attention(self, queries: Rows) -> Attention:
        """Each thread has its own sequences' blocks of scores, or else every so manieth of all."""
        keys, heads, size = self._tokens.starts, self._c.heads, len(self._partitions)
        if self._partitions[0].aligned:
            own = [range(part.sequences.start, part.sequences.stop) for part in self._partitions]
            blocks = [plan(keys, queries.starts, heads, one, attention.BLOCK) for one in own]
        else:
            every = range(len(keys) - 1)
            own = [every[t::size] for t in range(size)]
            together = plan(keys, queries.starts, heads, every, attention.BLOCK)
            blocks = [together[t::size] for t in range(size)]
        unread = [[slice(*keys[b : b + 2]) for b in one if queries.starts[b] == queries.starts[b + 1]] for one in own]
        return Attention(blocks, unread, len(queries), heads, self._mask, self._attention_rate, self._memory)

    def _embed(self, part: Partition, x: Array) -> None:
        p, n = Scope(self._p, "bert.embeddings."), part.tokens
        e, index = self._embedded[n], self._tokens.index[n]
        np.take(p["word_embeddings.weight"], self._batch.input_ids.reshape(-1)[index], axis=0, out=e, mode="clip")
        e += p["token_type_embeddings.weight"][self._batch.token_type_ids.reshape(-1)[index]]
        e += p["position_embeddings.weight"][index % self._batch.shape[1]]
        layer_norm(e, *_affine(p, "LayerNorm"), self._c.layer_norm_eps, x[n], r=self._r0[n])
        if self._keep0 is not None:
            self._draw(part, "embeddings", self._keep0, self._tokens)
            self._sync(part)
            self._drop(x[n], self._keep0[n])

    def _layer_input(self, i: int, n: slice, out: Array) -> None:
        """out[n] ← what layer i reads, made again from x̂ of what lies below."""
        if i:
            below = self._layers[i - 1]
            assert below.kept is not None
            affine(below.kept.xhat2[n], *_affine(below.p, "output.LayerNorm"), out[n])
            return
        affine(self._embedded[n], *_affine(self._p, "bert.embeddings.LayerNorm"), out[n])
        if self._keep0 is not None:
            self._drop(out[n], self._keep0[n])

    def _drop(self, x: Array, keep: Array) -> None:
        x *= keep
        x /= 1 - self._rate

    def _layer(self, i: int, part: Partition, x: Array, y1: Array, out: Array) -> None:
        layer, kept, n = self._layers[i], self._layers[i].kept, part.tokens
        assert kept is not None
        p, m = layer.p, n if layer.subset is None else part.queries
        if layer.subset is not None or self._again:
            self._sync(part)  # a query's row may be another thread's, as may the masks that the layer below still reads
        residual = x[n] if layer.subset is None else x[layer.subset[m]]
        if self._draws is not None:
            self._draw_layer(layer, kept, part)
        for name, source, to in (("query", residual, kept.q[m]), ("key", x[n], kept.k[n]), ("value", x[n], kept.v[n])):
            np.matmul(source, p[f"attention.self.{name}.weight"].T, out=to)
            to += p[f"attention.self.{name}.bias"]
        kept.q[m] *= self._scale
        self._sync(part)
        kept.attention.forward(part.t, kept.q, kept.k, kept.v, kept.context)
        self._sync(part)
        attended = y1[m]
        np.matmul(kept.context[m], p["attention.output.dense.weight"].T, out=kept.xhat1[m])
        self._norm(p, "attention.output", kept.xhat1, kept.r1, kept.keep1, m, residual, attended)
        np.matmul(attended, p["intermediate.dense.weight"].T, out=kept.active[m])
        activate_rows(kept.active[m], p["intermediate.dense.bias"], self._c.activation, kept.slope[m])
        np.matmul(kept.active[m], p["output.dense.weight"].T, out=kept.xhat2[m])
        self._norm(p, "output", kept.xhat2, kept.r2, kept.keep2, m, attended, out[m])

    def _norm(
        self, p: Params, name: str, h: Array, r: Array, keep: Array | None, m: slice, residual: Array, out: Array
    ) -> None:
        """out ← LN(dropout(h + bias) + residual) of the rows m; h ← x̂."""
        layer_norm(
            h[m], *_affine(p, f"{name}.LayerNorm"), self._c.layer_norm_eps, out, r=r[m], bias=p[f"{name}.dense.bias"],
            residual=residual, keep=None if keep is None else keep[m], rate=self._rate,
        )  # fmt: skip

    def _sync(self, part: Partition) -> None:
        if not part.aligned:
            self._team.sync()

    # Dropout

    def _draw_layer(self, layer: Layer, kept: Kept, part: Partition) -> None:
        if kept.keep1 is not None and kept.keep2 is not None:
            self._draw(part, f"{layer.site}.attention.output", kept.keep1, layer.queries)
            self._draw(part, f"{layer.site}.output", kept.keep2, layer.queries)
        if self._attention_rate:
            S, own = self._batch.shape[1], part.sequences
            drawn = self._drawn(part, f"{layer.site}.attention.self", (self._c.heads, S, S), self._attention_rate)
            for b, heads, keep in kept.attention.keep():
                if own.start <= b < own.stop:
                    query, key = (r.index[r.among(slice(b, b + 1))] - b * S for r in (layer.queries, self._tokens))
                    keep[:] = drawn[b - own.start][heads][:, query[:, None], key]

    def _draw(self, part: Partition, site: str, out: Array, rows: Rows) -> None:
        """out [rows, H] ← the masks of the partition's sequences."""
        S, H = self._batch.shape[1], self._H
        own = rows.among(part.sequences)
        drawn = self._drawn(part, site, (S, H), self._rate)
        out[own] = drawn.reshape(-1, H)[rows.index[own] - part.sequences.start * S]

    def _drawn(self, part: Partition, site: str, shape: tuple[int, ...], rate: float) -> Array:
        """The partition's masks out of the batch's."""
        assert self._draws is not None
        of = part.sequences.start, part.sequences.stop
        return self._draws.keep(site, (len(self._batch.input_ids), *shape), rate, among=of)

    # Backward

    def backward(self, dtop: Array, gradients: dict[str, Array]) -> Array:
        """The cotangent of the embeddings' sum [N, H] from that of the hidden states [M, H], which is used up.

        The gradients of everything but the three tables go into ``gradients``.
        """
        take, N, H = self._memory.take, len(self._tokens), self._H
        F = max((len(layer.p["intermediate.dense.bias"]) for layer in self._layers), default=0)
        narrow, last = take(N, H), len(self._layers) - 1
        to = Cotangents(
            dx=take(N, H) if self._some else dtop, wide=take(N, F), narrow=narrow,
            slim=take(len(dtop), H) if self._some else narrow,
            inputs=self._inputs or [take(N, H), take(N, H)] * len(self._layers), middles=(take(N, H), take(N, H)),
        )  # fmt: skip
        sums: list[dict[str, Array]] = [{} for _ in self._partitions]
        if self._layers:
            self._allot(self._layers[-1], gradients)

        def work(t: int) -> None:
            part = self._partitions[t]
            for i in range(last, -1, -1):
                if not self._again:
                    self._layer_input(i, part.tokens, to.inputs[i])
                elif i < last:
                    self._team.sync()  # what layer i + 1 kept was in the same memory: nobody may still need it
                    self._layer(i, part, to.inputs[i], to.middles[i % 2], to.inputs[i + 1])
                self._layer_back(i, part, dtop if i == last else to.dx, to, sums[t])
                self._team.sync()
                if t == 0:
                    if i < last:
                        self._layers[i + 1].kept = None  # no thread needs it: its memory serves the gradients
                        if self._again:
                            del to.inputs[i + 1]
                    if i:
                        self._allot(self._layers[i - 1], gradients)
                self._products(i, t, to, gradients)
            self._embed_back(part, to.dx, sums[t])

        self._team.run(work)
        self._layers = []
        for name, first in sums[0].items():
            gradients[name] = sum((own[name] for own in sums[1:]), start=first)
        return to.dx

    def _allot(self, layer: Layer, gradients: dict[str, Array]) -> None:
        """Room for the gradients of a layer's weights, before the wait after which they are computed."""
        for name in _WEIGHTS:
            gradients[f"bert.{layer.site}.{name}"] = self._memory.take(*layer.p[name].shape)

    def _layer_back(self, i: int, part: Partition, dy: Array, to: Cotangents, sums: dict[str, Array]) -> None:
        """Cotangents of this partition's rows: to.dx from dy, and over what was kept every product's result's."""
        layer, kept, n = self._layers[i], self._layers[i].kept, part.tokens
        assert kept is not None
        p, subset, prefix = layer.p, layer.subset, f"bert.{layer.site}."
        m = n if subset is None else part.queries
        d, dx, wide, narrow, middle = dy[m], to.dx, to.wide, to.narrow, to.middles[i % 2]
        slim = narrow if subset is None else to.slim

        def through_norm(name: str, xhat: Array, r: Array, keep: Array | None) -> Array:
            """d ← the cotangent of LayerNorm's input; over x̂ that of the product below it."""
            norm_back(d, xhat[m], r[m], p[f"{name}.LayerNorm.weight"], f"{prefix}{name}.LayerNorm", sums)
            below = xhat[m]
            below[:] = d
            if keep is not None:
                self._drop(below, keep[m])
            add_sums(sums, f"{prefix}{name}.dense.bias", below)
            return below

        np.matmul(through_norm("output", kept.xhat2, kept.r2, kept.keep2), p["output.dense.weight"], out=wide[m])
        dup = kept.slope[m]
        dup *= wide[m]
        add_sums(sums, prefix + "intermediate.dense.bias", dup)
        affine(kept.xhat1[m], *_affine(p, "attention.output.LayerNorm"), middle[m])
        np.matmul(dup, p["intermediate.dense.weight"], out=slim[m])
        d += slim[m]

        do = through_norm("attention.output", kept.xhat1, kept.r1, kept.keep1)
        np.matmul(do, p["attention.output.dense.weight"], out=slim[m])
        self._sync(part)
        kept.attention.backward(part.t, kept.q, kept.k, kept.v, kept.context, slim, self._scale)
        self._sync(part)

        # d, which may be dx itself, has the residual's share of the queries' rows; the others are of all tokens.
        weights = [p[name] for name in _WEIGHTS[:3]]
        for name, cotangent in zip(_WEIGHTS, (kept.q[m], kept.k[n], kept.v[n]), strict=False):
            add_sums(sums, prefix + name.replace("weight", "bias"), cotangent)
        np.matmul(kept.q[m], weights[0], out=slim[m])
        d += slim[m]
        np.matmul(kept.k[n], weights[1], out=(narrow if subset is None else dx)[n])
        if subset is None:
            d += narrow[n]
        np.matmul(kept.v[n], weights[2], out=narrow[n])
        dx[n] += narrow[n]
        if subset is not None:
            self._sync(part)
            dx[subset[m]] += d

    def _products(self, i: int, t: int, to: Cotangents, gradients: dict[str, Array]) -> None:
        """The weights' gradients, of this thread's partition of the output features."""
        layer, kept, x = self._layers[i], self._layers[i].kept, to.inputs[i]
        assert kept is not None
        xq = x if layer.subset is None else x[layer.subset]
        factors = (
            (kept.q, xq), (kept.k, x), (kept.v, x), (kept.xhat1, kept.context),
            (kept.slope, to.middles[i % 2][: len(xq)]), (kept.xhat2, kept.active),
        )  # fmt: skip
        for name, (cotangent, source) in zip(_WEIGHTS, factors, strict=True):
            own = partition(cotangent.shape[1], len(self._partitions))[t]
            np.matmul(cotangent[:, own].T, source, out=gradients[f"bert.{layer.site}.{name}"][own])

    def _embed_back(self, part: Partition, dx: Array, sums: dict[str, Array]) -> None:
        n, name = part.tokens, "bert.embeddings.LayerNorm"
        if self._keep0 is not None:
            self._drop(dx[n], self._keep0[n])
        norm_back(dx[n], self._embedded[n], self._r0[n], self._p[name + ".weight"], name, sums)


# A layer's, in the order of `Encoder._products`.
_WEIGHTS = (
    "attention.self.query.weight", "attention.self.key.weight", "attention.self.value.weight",
    "attention.output.dense.weight", "intermediate.dense.weight", "output.dense.weight",
)  # fmt: skip


def _affine(p: Params, name: str) -> tuple[Array, Array]:
    """LayerNorm's γ and β."""
    return p[f"{name}.weight"], p[f"{name}.bias"]
