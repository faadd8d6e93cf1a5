"""What an engine may have computed of texts, right or wrong, and what comes of it on a backend.

Everything is composed of the backend's ops, pooling included, so that `tolerances.noise` reaches all of it. Only the
largest of several numbers and the scaling to length 1 are the host's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.config.heads import HEADS
from refbert.embedder import Dense, Embedder, sigmoid
from refbert.spec.choices import Choices
from refbert.spec.embeddings import embeddings
from refbert.spec.encoder import encoder
from refbert.spec.head_table import head_logits
from refbert.spec.pooler import pooler
from refbert.spec.scope import Scope
from refbert.text.tokenization import Encoding
from refbert_conformance.outputs.files import HIDDEN, POOLER, VECTORS, Array

_MOST = 1 << 21  # numbers of an output that are compared: of larger ones (a vocabulary for each token) every k-th row


@dataclass(frozen=True, eq=False)
class Graph:
    """A model, tokens, and how the one is applied to the other.

    starts: [B], the column of each text's first token; not 0 where padding comes first. vocabulary: the ids whose word
    embeddings are there, in order; None: all. length: columns, None for as
    many as are needed. skip: so many first tokens are not pooled, nor are special ones of the ids unpooled.
    first_position: what positions are counted from; from_column: over the padding before a text, too. bare: [CLS]'s
    state in place of the pooler's output. layers: how many run. wrap: what is put around the backend. ending: what
    follows the outputs of one kind.
    """

    parameters: Mapping[str, Any]
    choices: Choices
    embedder: Embedder
    encodings: tuple[Encoding, ...]
    starts: Host
    pad_id: int
    vocabulary: Host | None = None
    skip: int = 0
    unpooled: tuple[int, ...] = ()
    length: int | None = None
    attends_padding: bool = False
    pools_padding: bool = False
    first_position: int = 0
    from_column: bool = False
    bare: bool = False
    wrap: Callable[[Any], Any] | None = None
    ending: Mapping[str, Callable[[Host], Host]] = field(default_factory=dict)

    @property
    def lengths(self) -> Host:
        """How many tokens each text has, [B]."""
        return np.array([len(e.input_ids) for e in self.encodings])

    @property
    def columns(self) -> int:
        """S."""
        needed = int((self.starts + self.lengths).max())
        return needed if self.length is None else max(needed, self.length)

    def encoder_key(self) -> tuple[Any, ...]:
        """What `encoded` follows from: of two graphs with the same, one is enough."""
        return (
            id(self.parameters), self.choices, tuple((e.input_ids, e.token_type_ids) for e in self.encodings),
            self.columns, self.attends_padding, self.first_position, self.from_column, id(self.wrap),
        )  # fmt: skip

    def changed(self, **fields: Any) -> Graph:
        """With other fields."""
        return replace(self, **fields)

    def tokens(self) -> tuple[Host, Host, Host]:
        """Ids, token types and mask, [B, S]."""
        ids = np.full((len(self.encodings), self.columns), self.pad_id)
        types, mask = np.zeros_like(ids), np.zeros_like(ids)
        for b, (start, e) in enumerate(zip(self.starts, self.encodings, strict=True)):
            here = slice(start, start + len(e.input_ids))
            ids[b, here], types[b, here], mask[b, here] = e.input_ids, e.token_type_ids, 1
        return (ids if self.vocabulary is None else np.searchsorted(self.vocabulary, ids)), types, mask

    def keys(self, array: Array) -> tuple[Host, Host, int]:
        """Which of the array's rows the graph has, by their number; the text of each; how many the array lacks."""
        B = len(self.encodings)
        if not array.per_token:
            return np.arange(B), np.arange(B), 0
        S, width = array.values.shape[1:]
        every = math.ceil(self.lengths.sum() * width / _MOST)
        text = np.repeat(np.arange(B), self.lengths)
        place = np.arange(len(text)) - np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)
        column = place + self.starts[text]
        there = column < S
        keys = text * S + column
        kept = there & (keys % every == 0 if every > 1 else True)
        return keys[kept], text[kept], int((~there).sum())


def encoded(backend: Any, graph: Graph) -> Any:
    """The hidden states [B, S, H], which is most of the work."""
    ops: Any = graph.wrap(backend) if graph.wrap else backend
    p, (ids, types, mask) = graph.parameters, graph.tokens()
    place = np.arange(ids.shape[1]) - (0 if graph.from_column else graph.starts[:, None])
    positions = np.broadcast_to(np.maximum(place, 0) + graph.first_position, ids.shape)
    x, _ = embeddings(ops, Scope(p, "bert.embeddings."), ids, types, graph.choices, positions=positions)
    attended = np.ones_like(mask) if graph.attends_padding else mask
    hidden, _ = encoder(ops, Scope(p, "bert.encoder."), x, attended, graph.choices, gradients=False)
    return hidden


def outputs(backend: Any, graph: Graph, arrays: Sequence[Array], hidden: Any = None) -> dict[str, Host]:
    """The graph's rows [R, D] for each array, those that `Graph.keys` names; hidden: `encoded`, if that is known."""
    ops: Any = graph.wrap(backend) if graph.wrap else backend
    host, c, p = backend.to_numpy, graph.choices, graph.parameters
    mask = graph.tokens()[2]
    B, S = mask.shape
    if hidden is None:
        hidden = encoded(backend, graph)
    first = np.arange(B) * S + graph.starts
    found: dict[str, Host] = {}

    def pooled() -> Any:
        rows, _ = ops.gather(hidden, first)
        if graph.bare:
            return rows
        return pooler(ops, Scope(p, "bert.pooler."), ops.reshape(rows, (B, 1, hidden.shape[-1]))[0])[0]

    for array in arrays:
        keys, text, _ = graph.keys(array)
        if array.kind == VECTORS:
            made = _vectors(ops, graph, hidden, mask, pooled)
        elif array.kind == POOLER:
            made = host(pooled())
        else:
            flat = text * S + keys % array.values.shape[1] if array.per_token else text
            if array.kind == HIDDEN:
                made = host(ops.gather(hidden, flat)[0])
            elif HEADS[array.kind].reads == "pooled":
                made = host(head_logits(array.kind, ops, p, pooled(), c, positions=flat)[0])
            else:
                logits = host(head_logits(array.kind, ops, p, hidden, c, positions=flat)[0])
                made = logits if logits.ndim == 2 else logits.reshape(B * S, -1)[flat]
                if array.part is not None:
                    made = made[:, array.part : array.part + 1]
        if array.kind in graph.ending:
            made = graph.ending[array.kind](made)
        found[array.name] = made
    return found


def _vectors(ops: Any, graph: Graph, hidden: Any, mask: Host, pooled: Callable[[], Any]) -> Host:
    host, how = ops.to_numpy, graph.embedder
    B, S, H = hidden.shape
    seen = np.ones_like(mask) if graph.pools_padding else mask.copy()
    for b, (start, e) in enumerate(zip(graph.starts, graph.encodings, strict=True)):
        left = np.array(e.special_tokens_mask, bool) & np.isin(e.input_ids, graph.unpooled)
        left[: graph.skip] = True
        seen[b, start : start + len(left)][left] = 0
    rows, _ = ops.reshape(hidden, (B * S, H))
    turned, _ = ops.transpose(rows, (1, 0))
    parts = []
    for name in how.pooling:
        if name == "pooler":
            parts.append(host(pooled()))
        elif name == "max":
            states = host(hidden)
            parts.append(np.stack([states[b, seen[b] > 0].max(axis=0) for b in range(B)]))
        else:
            weights = np.zeros((B, B, S))
            weights[np.arange(B), np.arange(B)] = _WEIGHTS[name](seen, np.arange(1, S + 1) - graph.starts[:, None])
            sums, _ = ops.linear(turned, ops.asarray(weights.reshape(B, B * S)), ops.asarray(np.zeros(B)))
            parts.append(host(ops.transpose(sums, (1, 0))[0]))
    x = np.concatenate(parts, axis=1)
    for module in how.modules:
        x = _dense(ops, module, x) if isinstance(module, Dense) else module(x)
    x = x[:, : how.dimensions]
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True) if how.normalize else x)


def _share(weights: Host) -> Host:
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


# What a pooling that is a sum multiplies each token's state with, [B, S], of which are pooled and their numbers from 1.
_WEIGHTS: Mapping[str, Callable[[Host, Host], Host]] = {
    "mean": lambda seen, number: _share(seen),
    "mean_sqrt_len_tokens": lambda seen, number: seen / np.sqrt(seen.sum(axis=1, keepdims=True)),
    "weightedmean": lambda seen, number: _share(seen * np.maximum(number, 0)),
    "cls": lambda seen, number: np.asarray(seen.cumsum(axis=1) * seen == 1),
    "lasttoken": lambda seen, number: np.asarray(seen.cumsum(axis=1) * seen == seen.sum(axis=1, keepdims=True)),
}


def _dense(ops: Any, module: Dense, x: Host) -> Host:
    zeros = np.zeros(len(module.weight))
    weight, bias = module.weight.astype(np.float64), zeros if module.bias is None else module.bias.astype(np.float64)
    given = ops.asarray(x)
    y, _ = ops.linear(given, ops.asarray(weight), ops.asarray(bias))
    if module.activation == "tanh":
        y, _ = ops.tanh(y)
    elif module.activation == "relu":
        y, _ = ops.relu(y)
    elif module.activation == "gelu":
        y, _ = ops.gelu(y, form="erf")
    elif module.activation == "sigmoid":
        y = ops.asarray(sigmoid(ops.to_numpy(y)))
    if module.residual is not None:
        more, _ = ops.linear(given, ops.asarray(module.residual.astype(np.float64)), ops.asarray(zeros))
        y, _ = ops.add(y, more)
    return np.asarray(ops.to_numpy(y))
