"""The losses: from logits and labels to one number.

Every loss is `refbert.ops.cross_entropy` (or the squared error) with its denominator made explicit. Each function
returns (loss [], pullback to the cotangent of the logits).

The denominators are functions of their own, because the batch that a mean is over may be larger than the rows at hand:
summed over micro-batches or over processes, losses divided by the whole batch's denominators are the whole batch's.

Source   Devlin et al. 2019 A.2 (masked LM, next sentence), §4.1 (classification), §4.2 (spans: the sum of the
         log-likelihoods of start and end; the code halves it), §4.4 (choices), §5.3 (tags).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refbert.backend import A, Backend, Host, Out
from refbert.ops.cross_entropy import IGNORE
from refbert.spec.choices import Choices


def labelled(labels: Host) -> int:
    """How many labels [...] count."""
    return int(np.count_nonzero(labels != IGNORE))


def masked_lm_denominator(labels: Host, S: int, c: Choices) -> float:
    """The labelled positions of [B, S]; Google divides by their number + 1e-5."""
    return labelled(labels) + c.masked_lm_epsilon


def masked_lm_loss(ops: Backend[A], logits: A, labels: Host, denominator: float) -> Out[A]:
    """Mean over the labelled positions; logits [P, V], labels [P].

    Shapes   logits [P, V], labels [P]  ->  loss, a scalar (shape [])

        loss = 1/M Σ_n (lse(z_n) − z_{n,c_n})         M the labelled positions; in Google's code that number + 1e-5

        Backward: cross_entropy's, dz_nj = dloss/M (p_nj − δ_{j,c_n}) with p = softmax(z).
    """
    return ops.cross_entropy(logits, labels, denominator=denominator)


def mean_loss(ops: Backend[A], logits: A, labels: Host, denominator: float) -> Out[A]:
    """Mean over the labelled rows: next sentence [B, 2], classes [B, K], tags [B, S, K], choices [B, C].

    Shapes   logits [..., C], labels [...]  ->  loss, a scalar (shape [])

        loss = 1/M Σ_{n labelled} (lse(z_n) − z_{n,c_n})         M the labelled rows

        Backward: cross_entropy's, dz_nj = dloss/M (p_nj − δ_{j,c_n}) with p = softmax(z); 0 in rows that do not count.
    """
    return ops.cross_entropy(logits, labels, denominator=denominator)


def regression_loss(ops: Backend[A], logits: A, targets: Host, denominator: float) -> Out[A]:
    """Mean squared error over all entries; logits [B, K], targets [B, K].

    Shapes   logits [B, K], targets [B, K]  ->  loss, a scalar (shape [])

        loss = 1/M Σ_nk (x_nk − t_nk)²         M = B·K

        Backward: mean_squared_error's, dx_nk = dloss · 2 (x_nk − t_nk)/M.
    """
    return ops.mean_squared_error(logits, targets, denominator=denominator)


def sequence_denominator(labels: Host, S: int, c: Choices) -> float:
    """How many entries numbers [B, K] have, or how many labels count: of [B], or of [B, K] with several a sequence."""
    return labels.size if np.issubdtype(labels.dtype, np.floating) else labelled(labels)


def multi_label_loss(ops: Backend[A], logits: A, labels: Host, denominator: float) -> Out[A]:
    """Mean over all entries, each a yes or no of its own with probability σ(x) = 1/(1 + e⁻ˣ); logits, labels [B, K].

    Shapes   logits [B, K], labels [B, K] of 0, 1 and IGNORE  ->  loss, a scalar (shape [])

        z_bk = (0, x_bk),     loss = 1/M Σ_bk (lse(z_bk) − z_{bk,t_bk})         M the labelled of the B·K

        σ(x) is the softmax's second number for (0, x). So this is binary cross-entropy,
        1/M Σ_bk (−t ln σ(x) − (1 − t) ln(1 − σ(x))), and overflows nowhere.

        Backward: cross_entropy's for z, of which the second number goes on: dx_bk = dloss/M (σ(x_bk) − t_bk).
    """
    column, column_back = ops.reshape(logits, (labels.size, 1))
    beside_zero = ops.asarray(np.array([[0.0], [1.0]])), ops.asarray(np.zeros(2))
    pairs, pairs_back = ops.linear(column, *beside_zero)  # [B·K, 2]
    loss, loss_back = ops.cross_entropy(pairs, labels.reshape(-1), denominator=denominator)

    def pullback(dloss: A) -> tuple[A]:
        (dpairs,) = loss_back(dloss)
        return (column_back(pairs_back(dpairs)[0])[0],)

    return loss, pullback


def choice_loss(ops: Backend[A], scores: A, labels: Host, choices: int, denominator: float) -> Out[A]:
    """Softmax over the choices of each question; scores [B·C, 1], labels [B].

    Shapes   scores [B·C, 1], labels [B]  ->  loss, a scalar (shape [])

        z_bc = scores_{b·C + c},     loss = 1/M Σ_b (lse(z_b) − z_{b,label_b})         M the labelled questions

        Backward: cross_entropy's for z, then the same numbers as a column: dscores_{b·C + c} = dz_bc.
    """
    rows, reshape_back = ops.reshape(scores, (len(labels), choices))
    loss, loss_back = mean_loss(ops, rows, labels, denominator)

    def pullback(dloss: A) -> tuple[A]:
        return (reshape_back(loss_back(dloss)[0])[0],)

    return loss, pullback


def span_loss(
    ops: Backend[A], logits: Any, starts: Host, ends: Host, c: Choices, start_denominator: float, end_denominator: float
) -> Out[A]:
    """Half the sum of the start's and the end's cross-entropy over the S positions; logits [B, S, 2].

    An answer outside the window does not count. Hugging Face clamps positions into [0, S], ignores S, and averages
    each half over the sequences that count; Google's one-hot is zero outside [0, S) and averages over all B.

    Shapes   logits [B, S, 2], starts [B], ends [B]  ->  loss, a scalar (shape [])

        a_bs = logits_bs0,     e_bs = logits_bs1
        loss = 1/M_a Σ_b (lse(a_b) − a_{b,start_b}) + 1/M_e Σ_b (lse(e_b) − e_{b,end_b})

        M_a and M_e are the given denominators: twice the sequences that are averaged over, which makes it half the sum.

        Backward: both halves get dloss as it is; their gradients are cross_entropy's, each in its own column of logits.
    """
    B, S, _ = logits.shape
    split, transpose_back = ops.transpose(logits, (2, 0, 1))  # [2, B, S]
    start_logits, start_gather_back = ops.gather(split, np.arange(B))  # rows 0 … B−1: [B, S]
    end_logits, end_gather_back = ops.gather(split, B + np.arange(B))
    start, start_back = mean_loss(ops, start_logits, _inside(starts, S, c), start_denominator)
    end, end_back = mean_loss(ops, end_logits, _inside(ends, S, c), end_denominator)
    loss, add_back = ops.add(start, end)

    def pullback(dloss: A) -> tuple[A]:
        dstart, dend = add_back(dloss)
        (dsplit_start,) = start_gather_back(start_back(dstart)[0])
        (dsplit_end,) = end_gather_back(end_back(dend)[0])
        dsplit, _ = ops.add(dsplit_start, dsplit_end)
        (dlogits,) = transpose_back(dsplit)
        return (dlogits,)

    return loss, pullback


def _inside(positions: Host, S: int, c: Choices) -> Host:
    """The positions, IGNORE for those that do not count."""
    if c.span_mean_over_batch:
        return np.where((positions < 0) | (positions >= S), IGNORE, positions)
    clamped = np.clip(positions, 0, S)
    return np.where(clamped == S, IGNORE, clamped)


def span_denominator(positions: Host, S: int, c: Choices) -> float:
    """Twice the sequences [B] that a half of the span loss is averaged over, since the loss is half the sum of both."""
    return 2 * (len(positions) if c.span_mean_over_batch else labelled(_inside(positions, S, c)))
