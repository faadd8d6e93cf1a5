"""A whole training step's forward and backward: what refbert.spec.bert.objective composes of ops, done with less.

What is saved: rows that no loss depends on (refbert_numpy.partition), memory and passes over it (training, masked_lm),
idle threads (threads). Pooler and the small heads are the spec's own, on this backend's ops.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import numpy as np

from refbert.backend import Backend, KeepMasks
from refbert.config.heads import POOLED_HEADS
from refbert.ops.cross_entropy import IGNORE
from refbert.spec import bert, head_table
from refbert.spec.choices import Choices
from refbert.spec.heads import TIED
from refbert.spec.pooler import pooler
from refbert.spec.scope import Scope, accumulate, prefixed
from refbert.text.batching import Batch
from refbert_numpy import threads
from refbert_numpy.masked_lm import MaskedLM
from refbert_numpy.memory import Array, Recycler
from refbert_numpy.partition import rows_to_compute
from refbert_numpy.rows import scatter_add
from refbert_numpy.training import Encoder

# Where a batch has fewer numbers in its hidden states than this for each thread, waits cost more than threads save.
ENOUGH = 1 << 14


def objective(
    ops: Backend[Array], memory: Recycler, p: Mapping[str, Array], batch: Batch, labels: Mapping[str, Array],
    heads: Collection[str], c: Choices, *, draws: KeepMasks | None = None,
    denominators: Mapping[str, float] | None = None,
) -> tuple[Array, dict[str, Array], Callable[[Array], dict[str, Array]]]:  # fmt: skip
    """As refbert.spec.bert.objective. The first pullback uses up what the forward kept; one more computes it again."""
    wanted = head_table.labelled_heads(heads, labels)
    if not wanted or not batch.input_ids.size:
        return bert.objective(ops, p, batch, labels, heads, c, draws=draws, denominators=denominators)
    if denominators is None:
        denominators = head_table.denominators(wanted, labels, batch.input_ids.shape[1], c)
    _check_ids(p, batch)
    p = dict(p)  # the caller's may be updated before the pullback is called
    memory.forget()

    forward = partial(_Step, ops, memory, p, batch, labels, wanted, c, draws, denominators)
    step = forward()
    pending = [step]

    def pullback(dloss: Array) -> dict[str, Array]:
        try:
            step = pending.pop()
        except IndexError:
            step = forward()
        return step.backward(dloss)

    return step.loss, step.terms, pullback


class _Step:
    """The forward pass: ``loss``, ``terms`` by head; and what its one ``backward`` needs."""

    def __init__(
        self, ops: Backend[Array], memory: Recycler, p: Mapping[str, Array], batch: Batch, labels: Mapping[str, Array],
        wanted: list[str], c: Choices, draws: KeepMasks | None, denominators: Mapping[str, float],
    ) -> None:  # fmt: skip
        self._ops, self._p, self._batch, self._memory = ops, p, batch, memory
        self._tokens, self._queries = rows_to_compute(batch, wanted, labels, c.layers, c.mask_value)
        team = threads.Team(max(1, min(threads.threads(), len(self._tokens) * p[TIED].shape[1] // ENOUGH)))
        self._encoder = Encoder(p, batch, c, draws, self._tokens, self._queries, team, memory)
        hidden = self._encoder.forward()  # [M, H]
        self._hidden_shape = hidden.shape
        self._pooler_back, encoded = self._encoded(hidden, wanted)
        self.terms: dict[str, Array] = {}
        self._backs: dict[str, Callable[[Array], tuple[Array, dict[str, Array]]]] = {}
        for name in wanted:
            if name == "masked_lm":
                flat = labels["labels"].reshape(-1)[self._queries.index]
                self._labelled = np.flatnonzero(flat != IGNORE)  # [P], among the queries
                masked = MaskedLM(
                    ops, p, hidden[self._labelled], flat[self._labelled], denominators[name], c, team, memory
                )
                self.terms[name], self._backs[name] = masked.loss, masked.backward
            else:
                self.terms[name], self._backs[name] = head_table.head_loss(
                    name, ops, p, encoded.read_by(name), labels, c, draws, denominators
                )
        loss, *others = self.terms.values()
        for term in others:
            loss, _ = ops.add(loss, term)
        self.loss = loss

    def _encoded(self, hidden: Array, wanted: list[str]) -> tuple[Any, Any]:
        """(the pooler's pullback or None, hidden and pooled as the spec's heads want them); rows left out are 0."""
        if set(wanted) == {"masked_lm"}:
            return None, None
        whole = self._queries.spread(hidden, self._batch.shape)
        pooled, back = None, None
        if POOLED_HEADS & set(wanted):
            pooled, back = pooler(self._ops, Scope(self._p, "bert.pooler."), whole)
        return back, bert.Encoded(whole, pooled)

    def backward(self, dloss: Array) -> dict[str, Array]:
        """The gradients by full name."""
        dhidden = self._memory.take(*self._hidden_shape)
        dhidden.fill(0)
        collected: list[dict[str, Array]] = []
        dpooled: Array | None = None
        for name in self.terms:
            dinput, gradients = self._backs.pop(name)(dloss)  # with it goes what it kept
            if name == "masked_lm":
                dhidden[self._labelled] += dinput
            elif name in POOLED_HEADS:
                dpooled = dinput if dpooled is None else dpooled + dinput
            else:
                dhidden += self._queries.take(dinput)
            collected.append(gradients)
        if dpooled is not None:
            dinput, gradients = self._pooler_back(dpooled)
            dhidden += self._queries.take(dinput)
            collected.append(prefixed("bert.pooler.", gradients))
        encoder: dict[str, Array] = {}
        de = self._encoder.backward(dhidden, encoder)  # [N, H]
        gradients = accumulate(self._ops, encoder, *collected)
        self._tables(de, gradients)
        return gradients

    def _tables(self, de: Array, gradients: dict[str, Array]) -> None:
        """Into ``gradients``: each row of the sum of three lookups back to its row in each table."""
        index = self._tokens.index
        found = {
            "word_embeddings": self._batch.input_ids.reshape(-1)[index],
            "token_type_embeddings": self._batch.token_type_ids.reshape(-1)[index],
            "position_embeddings": index % self._batch.shape[1],
        }
        for name, ids in found.items():
            full = f"bert.embeddings.{name}.weight"
            if full not in gradients:
                gradients[full] = np.zeros(self._p[full].shape, de.dtype)
            scatter_add(gradients[full], ids, de)


def _check_ids(p: Mapping[str, Array], batch: Batch) -> None:
    """IndexError, as the spec's lookups raise, where a table has no such row."""
    limits = (
        ("word_embeddings", batch.input_ids),
        ("token_type_embeddings", batch.token_type_ids),
        ("position_embeddings", np.array(batch.shape[1] - 1)),
    )
    for name, ids in limits:
        V = len(p[f"bert.embeddings.{name}.weight"])
        if not (int(ids.min()) >= 0 and int(ids.max()) < V):
            raise IndexError(f"ids must be in [0, {V}), got {int(ids.min())} to {int(ids.max())}")
