"""Answers to questions, as spans of a passage: Devlin et al. 2019 §4.2 and §4.3.

The score of a span is the start's logit at its first token plus the end's at its last; "no answer" is the span of [CLS]
alone. A passage longer than the model is read in windows, and a token's score is that of the window that shows most of
what surrounds it (Google's run_squad.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt

from refbert.errors import InputError
from refbert.model import Model
from refbert.tasks.reading import Batching, logits_of, require

if TYPE_CHECKING:
    from refbert.data.features import Window

# Of Google's run_squad.py: answers that are kept, tokens of the longest, from window to window, and of a window.
N_BEST, MAX_ANSWER, DOC_STRIDE, WINDOW = 20, 30, 128, 384


@dataclass(frozen=True)
class Answer:
    """Characters [start, stop) of the passage; score: logits added; probability: among the candidates that are kept."""

    text: str
    start: int
    stop: int
    score: float
    probability: float


@dataclass(frozen=True)
class Answered:
    """The answers to a question, best first. null_margin: how much higher "no answer" scores than the best of them."""

    question: str
    passage: str
    answers: tuple[Answer, ...]
    null_margin: float

    def text(self, threshold: float | None = None) -> str:
        """The best answer, or "" where the margin is above ``threshold`` (None: there always is an answer)."""
        return "" if threshold is not None and self.null_margin > threshold else self.answers[0].text


def answer(
    model: Model,
    pairs: Sequence[Any],
    *,
    n_best: int = N_BEST,
    max_answer: int = MAX_ANSWER,
    doc_stride: int = DOC_STRIDE,
    max_length: int | None = None,
    **how: Unpack[Batching],
) -> list[Answered]:
    """Find the ``n_best`` answers, of ``max_answer`` tokens at most, to (question, passage) pairs.

    ``max_length`` (default: 384, or the model's positions if those are fewer) and ``doc_stride`` are the windows'.
    Candidates are the pairs of the ``n_best`` best starts and ends of each window. Raises `InputError` without a
    question-answering head, or for something that is not a pair.
    """
    from refbert.data.features import windows  # here: other tasks need nothing of refbert.data

    require(model, "question_answering", "answer")
    if n_best < 1 or max_answer < 1:
        raise InputError("n_best and max_answer must be 1 or more")
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        raise InputError("answer takes a question and a passage: pass pairs (--pair)")
    found = windows(model.tokenizer, pairs, max_length=window_length(model.limit(), max_length), doc_stride=doc_stride)
    of: list[list[tuple[Window, npt.NDArray[np.float64]]]] = [[] for _ in pairs]
    for window, row in zip(
        found, logits_of(model, "question_answering", [w.encoding for w in found], **how), strict=True
    ):
        of[window.question].append((window, row))
    return [
        _answered(question, passage, read, n_best, max_answer)
        for (question, passage), read in zip(pairs, of, strict=True)
    ]


def window_length(positions: int, asked: int | None) -> int:
    """Limit a window, in tokens: what was asked, or the usual 384; raises `InputError` beyond the model's positions."""
    if asked is None:
        return min(WINDOW, positions)
    if not 0 < asked <= positions:
        raise InputError(f"max_length must be between 1 and the model's {positions} positions, not {asked}")
    return asked


def _answered(
    question: str, passage: str, read: Sequence[tuple[Window, npt.NDArray[np.float64]]], n_best: int, max_answer: int
) -> Answered:
    null = min(float(row[0].sum()) for _, row in read)
    candidates: list[tuple[float, int, int]] = []
    for window, row in read:
        candidates += _candidates(window, row, n_best, max_answer)
    if not candidates:  # the best starts and ends were [CLS] and the question's: look at every token of the passage
        for window, row in read:
            candidates += _candidates(window, row, len(row), max_answer)
    best = sorted(candidates, key=lambda c: -c[0])[:n_best]
    highest = best[0][0]
    weights = [math.exp(score - highest) for score, _, _ in best]
    answers = tuple(
        Answer(passage[start:stop], start, stop, score, weight / sum(weights))
        for (score, start, stop), weight in zip(best, weights, strict=True)
    )
    return Answered(question, passage, answers, null - highest)


def _candidates(
    window: Window, row: npt.NDArray[np.float64], n_best: int, max_answer: int
) -> list[tuple[float, int, int]]:
    """(score, first character, one after the last) of the spans that the window offers."""
    starts, ends = (
        [int(i) - window.first for i in np.argsort(-row[:, which], kind="stable")[:n_best]] for which in (0, 1)
    )
    n = len(window.offsets)
    return [
        (float(row[window.first + a, 0] + row[window.first + b, 1]), window.offsets[a][0], window.ends[b])
        for a in starts
        if 0 <= a < n and window.central[a]
        for b in ends
        if a <= b < min(n, a + max_answer)
    ]
