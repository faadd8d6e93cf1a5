"""Classes, numbers, choices and next sentences: what the heads on the pooled vector say of texts.

Devlin et al. 2019 §4.1 (classification), §4.4 (choices), §3.1 (next sentence).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from refbert import ops
from refbert.config import BertConfig
from refbert.embedder import sigmoid
from refbert.errors import InputError
from refbert.labels import is_multi_label, is_regression
from refbert.model import Model
from refbert.tasks.reading import Reading, logits_of, require
from refbert.text.batching import Text

# Index 0 of the head's logits: the second text follows the first (the paper's names).
NEXT_SENTENCE = ("IsNext", "NotNext")


@dataclass(frozen=True)
class Score:
    """A label's name, its number among the classifier's outputs, and its probability."""

    label: str
    number: int
    score: float


@dataclass(frozen=True)
class Classified:
    """A text, the likeliest label, and every label's probability, the likeliest first.

    labels: of a model with several labels a text, those of more than one half, by number; None of any other model.
    """

    text: Text
    label: str
    scores: tuple[Score, ...]
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Estimated:
    """A text and the numbers that a regression model gives it, mostly one."""

    text: Text
    values: tuple[float, ...]


@dataclass(frozen=True)
class Chosen:
    """A text, the place of the best choice (from 0), and every choice's probability, in their order."""

    text: str
    choice: int
    scores: tuple[float, ...]


def label_names(config: BertConfig) -> tuple[str, ...]:
    """List the labels in order of their numbers; LABEL_0, … where the checkpoint names none.

    Raises `InputError` where its numbers are not those of the classifier's outputs, which count from 0.
    """
    names, K = config.id2label, config.num_labels
    if names and set(names) != set(range(K)):
        given = ", ".join(map(str, sorted(names)[:8])) + ("" if len(names) <= 8 else ", …")
        raise InputError(f"the configuration's id2label has numbers {given}; the classifier's outputs are 0 to {K - 1}")
    return tuple(names.get(i, f"LABEL_{i}") for i in range(K))


def classify(model: Model, texts: Sequence[Text], **how: Unpack[Reading]) -> list[Classified]:
    """Find the label of every text or pair, in input order; raises `InputError` without a classifier of texts.

    Where a text may have several labels (``problem_type``), each has a probability of its own, σ(logit).
    """
    require(model, "sequence_classification", "classify")
    if is_regression(model.config):
        raise InputError("this model gives numbers, not classes (problem_type is regression)")
    names = label_names(model.config)
    logits = _logits(model, "sequence_classification", texts, **how)
    if is_multi_label(model.config):
        found = _classified(texts, sigmoid(logits), names)
        return [replace(one, labels=tuple(s.label for s in sorted(one.scores, key=lambda s: s.number) if s.score > 0.5))
                for one in found]  # fmt: skip
    return _classified(texts, ops.softmax(logits)[0], names)


def regress(model: Model, texts: Sequence[Text], **how: Unpack[Reading]) -> list[Estimated]:
    """Estimate the numbers of every text or pair; raises `InputError` for a model that was not trained on numbers."""
    require(model, "sequence_classification", "regress")
    if not is_regression(model.config):
        raise InputError("this model gives classes, not a number")
    logits = _logits(model, "sequence_classification", texts, **how)
    return [Estimated(text, tuple(map(float, row))) for text, row in zip(texts, logits, strict=True)]


def next_sentence(model: Model, pairs: Sequence[Text], **how: Unpack[Reading]) -> list[Classified]:
    """Judge whether the second text of each pair follows the first.

    Raises `InputError` without that head, or for what is no pair.
    """
    require(model, "next_sentence", "next-sentence")
    if any(isinstance(pair, str) for pair in pairs):
        raise InputError("next-sentence compares two texts: pass pairs (--pair)")
    logits = _logits(model, "next_sentence", pairs, **how)
    return _classified(pairs, ops.softmax(logits)[0], NEXT_SENTENCE)


def choose(model: Model, questions: Sequence[tuple[str, Sequence[str]]], **how: Unpack[Reading]) -> list[Chosen]:
    """Choose the best of several continuations or answers of each text; each row of a batch is one choice."""
    require(model, "multiple_choice", "choose")
    pairs: list[Text] = [(text, choice) for text, choices in questions for choice in choices]
    logits = _logits(model, "multiple_choice", pairs, **how)[:, 0]
    out, start = [], 0
    for text, choices in questions:
        scores, _ = ops.softmax(logits[start : start + len(choices)])
        start += len(choices)
        out.append(Chosen(text, int(np.argmax(scores)), tuple(float(p) for p in scores)))
    return out


def _logits(
    model: Model, head: str, texts: Sequence[Text], *, truncate: bool = False, max_length: int | None = None,
    **how: Any,
) -> npt.NDArray[np.float64]:  # fmt: skip
    """[N, K] in input order."""
    encodings = model.tokenizer.encode(list(texts), max_length=model.limit(max_length), truncate=truncate)
    return np.array(logits_of(model, head, encodings, **how)).reshape(len(encodings), -1)


def _classified(
    texts: Sequence[Text], probabilities: npt.NDArray[np.floating[Any]], names: Sequence[str]
) -> list[Classified]:
    out = []
    for text, row in zip(texts, probabilities, strict=True):
        scores = tuple(Score(names[k], int(k), float(row[k])) for k in np.argsort(-row, kind="stable"))
        out.append(Classified(text, scores[0].label, scores))
    return out
