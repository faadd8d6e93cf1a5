"""The functions of each head: how it makes its logits, which loss is taken of them, what that is divided by.

The rows are those of refbert.config.heads. Everything that runs or trains a head comes through here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refbert.backend import A, Backend, BlockPullback, Host, KeepMasks
from refbert.config.heads import HEADS
from refbert.ops.cross_entropy import IGNORE
from refbert.spec import heads, losses
from refbert.spec.choices import Choices


@dataclass(frozen=True)
class _Functions:
    """The functions of one head.

    project(ops, p, x, c, positions, draws): the logits, and a pullback to (dx, gradients by full name).
    loss(ops, logits, labels, denominators, c): labels and denominators in the order of `Head.labels`.
    denominator(labels, S, c): what the sum over one array of labels is divided by; S: the rows' length.
    """

    project: Callable[..., Any]
    loss: Callable[..., Any]
    denominator: Callable[[Host, int, Choices], float] = lambda y, S, c: losses.labelled(y)


def _classifier(ops: Any, p: Any, x: Any, c: Choices, positions: object, draws: KeepMasks | None) -> Any:
    return heads.classifier(ops, p, x, c, draws)


def _sequence_loss(ops: Any, logits: Any, labels: Host, denominator: float) -> Any:
    """The loss that fits the labels: one class [B], several [B, K], or numbers [B, K]."""
    if np.issubdtype(labels.dtype, np.floating):
        return losses.regression_loss(ops, logits, labels, denominator)
    if labels.ndim == 2:
        return losses.multi_label_loss(ops, logits, labels, denominator)
    return losses.mean_loss(ops, logits, labels, denominator)


def _mean(ops: Any, logits: Any, y: Sequence[Host], d: Sequence[float], c: Choices) -> Any:
    return losses.mean_loss(ops, logits, y[0], d[0])


_FUNCTIONS: Mapping[str, _Functions] = {
    "masked_lm": _Functions(
        lambda ops, p, x, c, positions, draws: heads.masked_lm(ops, p, x, positions, c),
        lambda ops, logits, y, d, c: losses.masked_lm_loss(ops, logits, y[0], d[0]),
        losses.masked_lm_denominator,
    ),
    "next_sentence": _Functions(lambda ops, p, x, c, positions, draws: heads.next_sentence(ops, p, x), _mean),
    "sequence_classification": _Functions(
        _classifier,
        lambda ops, logits, y, d, c: _sequence_loss(ops, logits, y[0], d[0]),
        losses.sequence_denominator,
    ),
    "token_classification": _Functions(_classifier, _mean),
    "question_answering": _Functions(
        lambda ops, p, x, c, positions, draws: heads.question_answering(ops, p, x),
        lambda ops, logits, y, d, c: losses.span_loss(ops, logits, y[0], y[1], c, d[0], d[1]),
        losses.span_denominator,
    ),
    "multiple_choice": _Functions(
        _classifier,
        lambda ops, logits, y, d, c: losses.choice_loss(ops, logits, y[0], logits.shape[0] // len(y[0]), d[0]),
    ),
}  # fmt: skip


def labelled_heads(names: Collection[str], labels: Mapping[str, Host]) -> list[str]:
    """The heads whose label arrays are all there."""
    return [name for name in names if all(key in labels for key in HEADS[name].labels)]


def denominators(names: Collection[str], labels: Mapping[str, Host], S: int, c: Choices) -> dict[str, float]:
    """What the sum of each head's losses over these labels ([B], [B, S] or [B, K]) is divided by; S: the rows' length.

    By head; question_answering has two sums and so two entries, "question_answering.start" and
    "question_answering.end".
    """
    return {
        entry: _FUNCTIONS[name].denominator(labels[key], S, c)
        for name in names
        for entry, key in zip(_entries(name), HEADS[name].labels, strict=True)
    }


def _entries(name: str) -> tuple[str, ...]:
    keys = HEADS[name].labels
    return (name,) if len(keys) == 1 else tuple(f"{name}.{key.removesuffix('_positions')}" for key in keys)


def head_logits(
    name: str,
    ops: Backend[A],
    p: Mapping[str, A],
    x: A,
    c: Choices,
    *,
    positions: Host | None = None,
    draws: KeepMasks | None = None,
) -> tuple[A, BlockPullback[A]]:
    """A head's logits [..., K] of what it reads, x [B, S, H] or [B, H], and a pullback to (dx, gradients by full name).

    ``positions`` [P]: of a head that reads positions, which ones, counted through the batch (b·S + s).
    """
    logits, pullback = _FUNCTIONS[name].project(ops, p, x, c, positions, draws)
    return logits, pullback


def head_loss(
    name: str,
    ops: Backend[A],
    p: Mapping[str, A],
    x: A,
    labels: Mapping[str, Host],
    c: Choices,
    draws: KeepMasks | None,
    divide_by: Mapping[str, float],
) -> tuple[A, BlockPullback[A]]:
    """A head's loss [] on what it reads, x [B, S, H] or [B, H], and a pullback to (dx, gradients by full name)."""
    arrays, positions = [labels[key] for key in HEADS[name].labels], None
    if HEADS[name].reads == "positions":
        flat = arrays[0].reshape(-1)
        positions = np.flatnonzero(flat != IGNORE)  # [P]: only these are projected onto the vocabulary
        arrays = [flat[positions]]
    logits, head_back = head_logits(name, ops, p, x, c, positions=positions, draws=draws)
    loss, loss_back = _FUNCTIONS[name].loss(ops, logits, arrays, [divide_by[entry] for entry in _entries(name)], c)

    def pullback(dloss: A) -> tuple[A, dict[str, A]]:
        (dlogits,) = loss_back(dloss)
        return head_back(dlogits)

    return loss, pullback
