"""The losses: from logits and labels to one number.

Every loss is `refbert.ops.cross_entropy` (or the squared error) with its denominator made explicit. Each function
returns (loss [], pullback to the cotangent of the logits).

Source   Devlin et al. 2019 A.2 (masked LM, next sentence), §4.1 (classification), §4.2 (spans: the sum of the
         log-likelihoods of start and end; the code halves it), §4.4 (choices), §5.3 (tags).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from refbert.backend import Backend, Host
from refbert.ops.cross_entropy import IGNORE
from refbert.spec.choices import Choices

A = TypeVar("A")
Loss = tuple[A, Callable[[A], tuple[A, ...]]]


def labelled(labels: Host) -> int:
    """How many labels count."""
    return int(np.count_nonzero(labels != IGNORE))


def masked_lm_loss(ops: Backend[A], logits: A, labels: Host, c: Choices) -> Loss[A]:
    """Mean over the labelled positions; logits [P, V], labels [P]. Google divides by their number + 1e-5."""
    return ops.cross_entropy(logits, labels, denominator=labelled(labels) + c.masked_lm_epsilon)


def mean_loss(ops: Backend[A], logits: A, labels: Host) -> Loss[A]:
    """Mean over the labelled rows: next sentence [B, 2], classes [B, K], tags [B, S, K], choices [B, C]."""
    return ops.cross_entropy(logits, labels, denominator=labelled(labels))


def regression_loss(ops: Backend[A], logits: A, targets: Host) -> Loss[A]:
    """Mean squared error over all entries; logits [B, K], targets [B, K]."""
    return ops.mean_squared_error(logits, targets, denominator=targets.size)


def choice_loss(ops: Backend[A], scores: A, labels: Host, choices: int) -> Loss[A]:
    """Softmax over the choices of each question; scores [B·C, 1], labels [B]."""
    rows, reshape_back = ops.reshape(scores, (len(labels), choices))
    loss, loss_back = mean_loss(ops, rows, labels)

    def pullback(dloss: A) -> tuple[A]:
        return (reshape_back(loss_back(dloss)[0])[0],)

    return loss, pullback


def span_loss(ops: Backend[A], logits: Any, starts: Host, ends: Host, c: Choices) -> Loss[A]:
    """Half the sum of the start's and the end's cross-entropy over the S positions; logits [B, S, 2].

    An answer outside the window does not count. Hugging Face clamps positions into [0, S], ignores S, and averages
    each half over the sequences that count; Google's one-hot is zero outside [0, S) and averages over all B.
    """
    B, S, _ = logits.shape
    split, transpose_back = ops.transpose(logits, (2, 0, 1))  # [2, B, S]
    start_logits, start_gather_back = ops.gather(split, np.arange(B))  # rows 0 … B−1: [B, S]
    end_logits, end_gather_back = ops.gather(split, B + np.arange(B))
    start, start_back = _half(ops, start_logits, starts, S, c)
    end, end_back = _half(ops, end_logits, ends, S, c)
    loss, add_back = ops.add(start, end)

    def pullback(dloss: A) -> tuple[A]:
        dstart, dend = add_back(dloss)
        (dsplit_start,) = start_gather_back(start_back(dstart)[0])
        (dsplit_end,) = end_gather_back(end_back(dend)[0])
        dsplit, _ = ops.add(dsplit_start, dsplit_end)
        (dlogits,) = transpose_back(dsplit)
        return (dlogits,)

    return loss, pullback


def _half(ops: Backend[A], logits: A, positions: Host, S: int, c: Choices) -> Loss[A]:
    if c.span_mean_over_batch:
        labels = np.where((positions < 0) | (positions >= S), IGNORE, positions)
        count = len(labels)
    else:
        clamped = np.clip(positions, 0, S)
        labels = np.where(clamped == S, IGNORE, clamped)
        count = labelled(labels)
    return ops.cross_entropy(logits, labels, denominator=2 * count)
