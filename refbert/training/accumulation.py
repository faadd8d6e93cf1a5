"""Add up a batch's gradients in pieces: micro-batches, and the rows that one of several processes takes.

    loss = Σ over the labelled / M            M counts the labels of the whole batch
         = Σ over pieces (Σ over the piece's labelled / M)

A mean of the pieces' means would weigh a label in a piece with few of them more than one in a piece with many. So every
piece is divided by the whole batch's denominator, and loss and gradients are sums over pieces, whatever the pieces are.
Dropout's masks are the whole batch's, cut to the rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from refbert.backend import Backend, Host
from refbert.errors import InputError
from refbert.labels import read_labels
from refbert.model import Model
from refbert.randomness import Dropout
from refbert.spec.head_table import denominators, labelled_heads
from refbert.text.batching import Batch
from refbert.training.precision import MixedPrecision


@dataclass
class Sums:
    """Loss, losses by head, and gradients by name in the backend's arrays, summed over pieces of a batch."""

    loss: float
    losses: dict[str, float]
    gradients: dict[str, Any]


def loss_and_gradients(
    model: Model, batch: Batch, labels: object, *, micro_batch: int | None = None, dropout: Dropout | None = None,
    rank: int = 0, processes: int = 1, precision: MixedPrecision | None = None,
) -> Sums:  # fmt: skip
    """Compute this process's part of the batch's loss and gradients, ``micro_batch`` rows at a time.

    ``precision``: the pieces are computed in its dtype and added up in the model's. With one process that is the whole.
    Raises `InputError` for labels that the model does not take, and for a batch that has fewer rows (or questions,
    where a label belongs to several rows) than there are processes.
    """
    batch.check(model.config)
    read = read_labels(labels, batch, model.heads, model.config)
    B, S = batch.shape
    whole = denominators(labelled_heads(model.heads, read), read, S, model.choices)
    together = max([1, *(B // len(array) for array in read.values() if len(array))])  # rows that share a label
    groups = B // together
    if groups < processes:
        raise InputError(f"a batch of {groups} cannot be shared by {processes} processes: use a larger batch")
    first, last = groups * rank // processes, groups * (rank + 1) // processes
    per_piece = max(1, (micro_batch or B) // together)
    computed = model if precision is None else precision.of(model)
    total = Sums(0.0, {}, {})
    for start in range(first, last, per_piece):
        stop = min(start + per_piece, last)
        rows = slice(start * together, stop * together)
        cut = {name: array[_share(array, B, rows)] for name, array in read.items()}
        draws = None if dropout is None else dataclasses.replace(dropout, rows=(rows.start, rows.stop, B))
        loss, losses, gradients = computed.part_of_loss_and_gradients(batch.rows(rows), cut, whole, dropout=draws)
        if precision is not None:
            gradients = precision.widen(gradients)
        total.loss += loss
        total.losses = {name: total.losses.get(name, 0.0) + value for name, value in losses.items()}
        _add(model.backend, total.gradients, gradients)
    return total


def _share(array: Host, B: int, rows: slice) -> slice:
    """The labels of some rows: one each, or one for every B/len rows (multiple choice)."""
    each = B // len(array)
    return slice(rows.start // each, rows.stop // each)


def _add(backend: Backend[Any], total: dict[str, Any], more: dict[str, Any]) -> None:
    """Into ``total``, emptying ``more``: a tensor's two parts are let go as soon as their sum exists."""
    for name in list(more):
        part = more.pop(name)
        total[name] = backend.add(total[name], part)[0] if name in total else part


def first_not_finite(backend: Backend[Any], arrays: Mapping[str, Any]) -> str | None:
    """Return the name of the first array that is not finite throughout, or None."""
    return next((name for name, x in arrays.items() if not np.isfinite(backend.to_numpy(x)).all()), None)
