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

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from refbert.randomness import Dropout
from refbert.spec.choices import Choices
from refbert.spec.scope import Scope
from refbert.text.batching import Batch
from refbert_numpy import attention
from refbert_numpy.activations import activate_rows
from refbert_numpy.attention import Attention, KeyMask, plan
from refbert_numpy.memory import Recycler
from refbert_numpy.partition import Partition, Rows, partition
from refbert_numpy.rows import add_sums, affine, layer_norm, norm_back
from refbert_numpy.threads import Team

Array = npt.NDArray[Any]

_PROJECTIONS = ("query", "key", "value")


@dataclasses.dataclass
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


@dataclasses.dataclass
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
        self,
        params: Mapping[str, Array],
        batch: Batch,
        c: Choices,
        draws: Dropout | None,
        tokens: Rows,
        queries: Rows,
        partitions: list[Partition],
        team: Team,
        memory: Recycler,
    ) -> None:
        self._p, self._batch, self._c, self._draws = params, batch, c, draws
        self._tokens, self._queries, self._team, self._memory = tokens, queries, team, memory
        self._partitions = partitions
        word = params["bert.embeddings.word_embeddings.weight"]
        self._dtype, self._H = word.dtype, word.shape[1]
        self._scale = 1 / math.sqrt(self._H // c.heads)
        self._rate = 0.0 if draws is None else c.hidden_dropout
        self._attention_rate = 0.0 if draws is None else c.attention_dropout
        # Where tokens are left out, all that are left are visible.
        self._mask = KeyMask.of(batch.attention_mask, c.mask_value, self._dtype) if tokens.every else None
        # The last layer's queries among the tokens; None where they are all of them.
        self._last = None if len(queries) == len(tokens) else np.searchsorted(tokens.index, queries.index)
        self._again = c.gradient_checkpointing and c.layers > 1
        self._layers: list[Kept | None] = []

    # Forward

    def forward(self) -> Array:
        """The hidden states of the queries [M, H]."""
        c, take, N, M, H = self._c, self._memory.take, len(self._tokens), len(self._queries), self._H
        self._layers = self._rooms()
        self._embedded, self._r0 = take(N, H), take(N, 1)
        self._keep0 = take(N, H, dtype=bool) if self._rate else None
        x, y1 = take(N, H), take(N, H)
        inputs = [x, *(take(N, H) if self._again else x for _ in range(1, c.layers))]
        self._inputs = inputs if self._again else []  # what is made again is not kept
        # Rows of the last layer's queries are not rows of tokens, and its thread may be ahead of the others.
        top_y1 = y1 if self._last is None else take(M, H)
        top = x if self._last is None and not self._again else take(M, H)
        outputs = [*inputs[1:], top]

        def work(t: int) -> None:
            part = self._partitions[t]
            self._embed(part, x)
            for i in range(c.layers):
                self._layer(i, part, inputs[i], top_y1 if i == c.layers - 1 else y1, outputs[i])

        self._team.run(work)
        return top

    def _rooms(self) -> list[Kept | None]:
        L = self._c.layers
        if not self._again:
            return [self._room(i) for i in range(L)]
        top = self._room(L - 1)
        return [*[top if self._last is None else self._room(0)] * (L - 1), top]

    def _room(self, i: int) -> Kept:
        take, N, H = self._memory.take, len(self._tokens), self._H
        rows = self._rows(i)
        M, F = len(rows), len(self._p[f"bert.encoder.layer.{i}.intermediate.dense.bias"])
        keep1, keep2 = (take(M, H, dtype=bool) if self._rate else None for _ in range(2))
        return Kept(
            q=take(M, H), k=take(N, H), v=take(N, H), attention=self._attention(rows),
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
            every = plan(keys, queries.starts, heads, range(len(keys) - 1), attention.BLOCK)
            blocks = [every[t::size] for t in range(size)]
        return Attention(blocks, len(queries), heads, self._mask, self._attention_rate, self._memory)

    def _rows(self, i: int) -> Rows:
        return self._queries if i == self._c.layers - 1 else self._tokens

    def _subset(self, i: int) -> Array | None:
        return self._last if i == self._c.layers - 1 else None

    def _mine(self, i: int, part: Partition) -> slice:
        return part.tokens if self._subset(i) is None else part.queries

    def _layer_params(self, i: int) -> Mapping[str, Array]:
        return self._under(f"bert.encoder.layer.{i}.")

    def _under(self, prefix: str) -> Mapping[str, Array]:
        return Scope(self._p, prefix)

    def _embed(self, part: Partition, x: Array) -> None:
        p, n = self._under("bert.embeddings."), part.tokens
        e = self._embedded[n]
        S = self._batch.shape[1]
        index = self._tokens.index[n]
        np.take(p["word_embeddings.weight"], self._batch.input_ids.reshape(-1)[index], axis=0, out=e, mode="clip")
        e += p["token_type_embeddings.weight"][self._batch.token_type_ids.reshape(-1)[index]]
        e += p["position_embeddings.weight"][index % S]
        gamma, beta = p["LayerNorm.weight"], p["LayerNorm.bias"]
        layer_norm(e, gamma, beta, self._c.layer_norm_eps, x[n], r=self._r0[n])
        if self._keep0 is not None:
            self._draw(part, "embeddings", self._keep0, self._tokens)
            self._sync(part)
            self._drop(x[n], self._keep0[n])

    def _layer_input(self, i: int, n: slice, out: Array) -> None:
        """out[n] ← what layer i reads, made again from x̂ of what lies below."""
        if i == 0:
            p = self._under("bert.embeddings.")
            affine(self._embedded[n], p["LayerNorm.weight"], p["LayerNorm.bias"], out[n])
            if self._keep0 is not None:
                self._drop(out[n], self._keep0[n])
        else:
            below, p = self._kept(i - 1), self._layer_params(i - 1)
            affine(below.xhat2[n], p["output.LayerNorm.weight"], p["output.LayerNorm.bias"], out[n])

    def _drop(self, x: Array, keep: Array) -> None:
        x *= keep
        x /= 1 - self._rate

    def _kept(self, i: int) -> Kept:
        kept = self._layers[i]
        assert kept is not None
        return kept

    def _layer(self, i: int, part: Partition, x: Array, y1: Array, out: Array) -> None:
        p, kept, c, n, m = self._layer_params(i), self._kept(i), self._c, part.tokens, self._mine(i, part)
        subset = self._subset(i)
        if subset is not None or self._again:
            self._sync(part)  # a query's row may be another thread's, as may the masks that the layer below still reads
        residual = x[n] if subset is None else x[subset[m]]
        sources = {"query": (residual, kept.q[m]), "key": (x[n], kept.k[n]), "value": (x[n], kept.v[n])}
        if self._draws is not None:
            self._draw_layer(i, part, kept)
        for name, (source, to) in sources.items():
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
        activate_rows(kept.active[m], p["intermediate.dense.bias"], c.activation, kept.slope[m])
        np.matmul(kept.active[m], p["output.dense.weight"].T, out=kept.xhat2[m])
        self._norm(p, "output", kept.xhat2, kept.r2, kept.keep2, m, attended, out[m])

    def _norm(
        self, p: Mapping[str, Array], name: str, h: Array, r: Array, keep: Array | None, m: slice, residual: Array,
        out: Array,
    ) -> None:  # fmt: skip
        """out ← LN(dropout(h + bias) + residual) of the rows m; h ← x̂."""
        layer_norm(
            h[m], p[f"{name}.LayerNorm.weight"], p[f"{name}.LayerNorm.bias"], self._c.layer_norm_eps, out, r=r[m],
            bias=p[f"{name}.dense.bias"], residual=residual, keep=None if keep is None else keep[m], rate=self._rate,
        )  # fmt: skip

    def _sync(self, part: Partition) -> None:
        if not part.aligned:
            self._team.sync()

    # Dropout

    def _draw_layer(self, i: int, part: Partition, kept: Kept) -> None:
        site, rows = f"encoder.layer.{i}", self._rows(i)
        if kept.keep1 is not None and kept.keep2 is not None:
            self._draw(part, f"{site}.attention.output", kept.keep1, rows)
            self._draw(part, f"{site}.output", kept.keep2, rows)
        if self._attention_rate:
            S, sequences = self._batch.shape[1], part.sequences
            drawn = self._part_of_draws(part, f"{site}.attention.self", (self._c.heads, S, S), self._attention_rate)
            for b, heads, keep in kept.attention.keep():
                if sequences.start <= b < sequences.stop:
                    query, key = (r.index[r.among(slice(b, b + 1))] - b * S for r in (rows, self._tokens))
                    keep[:] = drawn[b - sequences.start][heads][:, query[:, None], key]

    def _draw(self, part: Partition, site: str, out: Array, rows: Rows) -> None:
        """out [rows, H] ← the masks of the part's sequences."""
        S, H = self._batch.shape[1], self._H
        keep = self._part_of_draws(part, site, (S, H), self._rate)
        own = rows.among(part.sequences)
        out[own] = keep.reshape(-1, H)[rows.index[own] - part.sequences.start * S]

    def _part_of_draws(self, part: Partition, site: str, shape: tuple[int, ...], rate: float) -> Array:
        """The masks of the part's sequences out of the batch's, which is a part of a larger one where draws say so."""
        draws = self._draws
        assert draws is not None
        begin, _, total = draws.rows or (0, 0, len(self._batch.input_ids))
        a, b = part.sequences.start, part.sequences.stop
        return dataclasses.replace(draws, rows=(begin + a, begin + b, total)).keep(site, (b - a, *shape), rate)

    # Backward

    def backward(self, dtop: Array, gradients: dict[str, Array]) -> Array:
        """The cotangent of the embeddings' sum [N, H] from that of the hidden states [M, H], which is used up.

        The gradients of everything but the three tables go into ``gradients``.
        """
        c, take, N, H = self._c, self._memory.take, len(self._tokens), self._H
        F = max((len(self._p[f"bert.encoder.layer.{i}.intermediate.dense.bias"]) for i in range(c.layers)), default=0)
        narrow, some = take(N, H), self._last is not None
        slim = take(len(dtop), H) if some else narrow
        to = Cotangents(
            dx=take(N, H) if some else dtop, wide=take(N, F), narrow=narrow, slim=slim,
            inputs=self._inputs or [take(N, H), take(N, H)] * c.layers, middles=(take(N, H), take(N, H)),
        )  # fmt: skip
        sums: list[dict[str, Array]] = [{} for _ in self._partitions]
        if c.layers:
            self._allot(c.layers - 1, gradients)

        def work(t: int) -> None:
            part = self._partitions[t]
            for i in reversed(range(c.layers)):
                if not self._again:
                    self._layer_input(i, part.tokens, to.inputs[i])
                elif i < c.layers - 1:
                    self._team.sync()  # what layer i + 1 kept was in the same memory: nobody may still need it
                    self._layer(i, part, to.inputs[i], to.middles[i % 2], to.inputs[i + 1])
                self._layer_back(i, part, dtop if i == c.layers - 1 else to.dx, to, sums[t])
                self._team.sync()
                if t == 0:
                    if i + 1 < c.layers:
                        self._layers[i + 1] = None  # every thread has done with it: its memory serves the gradients
                        if self._again:
                            del to.inputs[i + 1]
                    if i:
                        self._allot(i - 1, gradients)
                self._products(i, t, to.inputs[i], to.middles[i % 2], gradients)
            self._embed_back(part, to.dx, sums[t])

        self._team.run(work)
        self._layers = []
        for name, first in sums[0].items():
            gradients[name] = sum((own[name] for own in sums[1:]), start=first)
        return to.dx

    def _allot(self, i: int, gradients: dict[str, Array]) -> None:
        """Room for the gradients of layer i's weights, before the wait after which they are computed."""
        p = self._layer_params(i)
        for name in _weights():
            gradients[f"bert.encoder.layer.{i}.{name}"] = self._memory.take(*p[name].shape)

    def _layer_back(self, i: int, part: Partition, dy: Array, to: Cotangents, sums: dict[str, Array]) -> None:
        """Cotangents of this part's rows: to.dx from dy, and over what was kept those of every product's result."""
        p, kept, n, m = self._layer_params(i), self._kept(i), part.tokens, self._mine(i, part)
        subset, prefix, d = self._subset(i), f"bert.encoder.layer.{i}.", dy[m]
        dx, wide, narrow, middle = to.dx, to.wide, to.narrow, to.middles[i % 2]
        slim = narrow if subset is None else to.slim
        keep1, keep2 = (None if keep is None else keep[m] for keep in (kept.keep1, kept.keep2))

        norm_back(d, kept.xhat2[m], kept.r2[m], p["output.LayerNorm.weight"], prefix + "output.LayerNorm", sums)
        ddown = self._dropped(d, keep2, kept.xhat2[m])
        add_sums(sums, prefix + "output.dense.bias", ddown)
        np.matmul(ddown, p["output.dense.weight"], out=wide[m])
        dup = kept.slope[m]
        dup *= wide[m]
        add_sums(sums, prefix + "intermediate.dense.bias", dup)
        name = "attention.output"
        affine(kept.xhat1[m], p[f"{name}.LayerNorm.weight"], p[f"{name}.LayerNorm.bias"], middle[m])
        np.matmul(dup, p["intermediate.dense.weight"], out=slim[m])
        d += slim[m]

        norm_back(d, kept.xhat1[m], kept.r1[m], p[f"{name}.LayerNorm.weight"], f"{prefix}{name}.LayerNorm", sums)
        do = self._dropped(d, keep1, kept.xhat1[m])
        add_sums(sums, f"{prefix}{name}.dense.bias", do)
        np.matmul(do, p[f"{name}.dense.weight"], out=slim[m])
        self._sync(part)
        kept.attention.backward(part.t, kept.q, kept.k, kept.v, kept.context, slim, self._scale)
        self._sync(part)

        for projection, cotangent in (("query", kept.q[m]), ("key", kept.k[n]), ("value", kept.v[n])):
            add_sums(sums, f"{prefix}attention.self.{projection}.bias", cotangent)
        weights = {name: p[f"attention.self.{name}.weight"] for name in _PROJECTIONS}
        np.matmul(kept.q[m], weights["query"], out=slim[m])
        d += slim[m]
        if subset is None:
            np.matmul(kept.k[n], weights["key"], out=narrow[n])
            d += narrow[n]
        else:
            np.matmul(kept.k[n], weights["key"], out=dx[n])
        np.matmul(kept.v[n], weights["value"], out=narrow[n])
        dx[n] += narrow[n]
        if subset is not None:
            self._sync(part)
            dx[subset[m]] += d

    def _dropped(self, d: Array, keep: Array | None, out: Array) -> Array:
        """out ← d keep/(1 − rate), or d."""
        if keep is None:
            out[:] = d
        else:
            np.multiply(d, keep, out=out)
            out /= 1 - self._rate
        return out

    def _products(self, i: int, t: int, x: Array, middle: Array, gradients: dict[str, Array]) -> None:
        """The weights' gradients, of this thread's share of the output features."""
        kept, subset, size = self._kept(i), self._subset(i), len(self._partitions)
        M = len(kept.q)
        xq = x if subset is None else x[subset]
        factors = (
            (kept.q, xq), (kept.k, x), (kept.v, x), (kept.xhat1, kept.context), (kept.slope, middle[:M]),
            (kept.xhat2, kept.active),
        )  # fmt: skip
        for name, (cotangent, source) in zip(_weights(), factors, strict=True):
            O = cotangent.shape[1]  # noqa: E741  the papers' letter
            features = partition(O, size)[t]
            out = gradients[f"bert.encoder.layer.{i}.{name}"][features]
            np.matmul(cotangent[:, features].T, source, out=out)

    def _embed_back(self, part: Partition, dx: Array, sums: dict[str, Array]) -> None:
        n, name = part.tokens, "bert.embeddings.LayerNorm"
        if self._keep0 is not None:
            self._drop(dx[n], self._keep0[n])
        norm_back(dx[n], self._embedded[n], self._r0[n], self._p[name + ".weight"], name, sums)


def _weights() -> tuple[str, ...]:
    """The names of a layer's weights, in the order of `Encoder._products`."""
    return (
        *(f"attention.self.{name}.weight" for name in _PROJECTIONS),
        "attention.output.dense.weight",
        "intermediate.dense.weight",
        "output.dense.weight",
    )
