"""Classes, numbers, choices and next sentences: what the heads on the pooled vector say of texts.

Devlin et al. 2019 §4.1 (classification), §4.4 (choices), §3.1 (next sentence).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from refbert import ops
from refbert.config import BertConfig
from refbert.data.features import by_length
from refbert.errors import InputError
from refbert.labels import is_regression
from refbert.model import Model, Text

# Index 0 of the head's logits: the second text follows the first (the paper's names).
NEXT_SENTENCE = ("IsNext", "NotNext")


@dataclass(frozen=True)
class Classified:
    """A text, the likeliest label, and every label's probability, the likeliest first."""

    text: Text
    label: str
    scores: dict[str, float]


@dataclass(frozen=True)
class Estimated:
    """A text and the number that a regression model gives it."""

    text: Text
    value: float


@dataclass(frozen=True)
class Chosen:
    """A text, the place of the best choice (from 0), and every choice's probability, in their order."""

    text: str
    choice: int
    scores: tuple[float, ...]


def label_names(config: BertConfig) -> tuple[str, ...]:
    """The labels in order of their numbers; LABEL_0, … where the checkpoint names none."""
    return tuple(config.id2label.get(i, f"LABEL_{i}") for i in range(config.num_labels))


def classify(
    model: Model,
    texts: Sequence[Text],
    *,
    batch_size: int = 32,
    truncate: bool = False,
    max_length: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[Classified]:
    """The label of every text or pair, in input order; raises `InputError` without a classifier of texts."""
    require(model, "sequence_classification", "classify")
    if is_regression(model.config):
        raise InputError("this model gives numbers, not classes (problem_type is regression)")
    logits = _logits(model, "sequence_classification", texts, batch_size, truncate, max_length, progress)
    return _classified(texts, logits, label_names(model.config))


def regress(
    model: Model,
    texts: Sequence[Text],
    *,
    batch_size: int = 32,
    truncate: bool = False,
    max_length: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[Estimated]:
    """The number of every text or pair; raises `InputError` for a model that was not trained on numbers."""
    require(model, "sequence_classification", "regress")
    if not is_regression(model.config) or model.config.num_labels != 1:
        raise InputError("this model gives classes, not a number")
    logits = _logits(model, "sequence_classification", texts, batch_size, truncate, max_length, progress)
    return [Estimated(text, float(row[0])) for text, row in zip(texts, logits, strict=True)]


def next_sentence(
    model: Model,
    pairs: Sequence[Text],
    *,
    batch_size: int = 32,
    truncate: bool = False,
    max_length: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[Classified]:
    """Whether the second text of each pair follows the first; raises `InputError` without that head, or for no pair."""
    require(model, "next_sentence", "next-sentence")
    if any(isinstance(pair, str) for pair in pairs):
        raise InputError("next-sentence compares two texts: pass pairs (--pair)")
    logits = _logits(model, "next_sentence", pairs, batch_size, truncate, max_length, progress)
    return _classified(pairs, logits, NEXT_SENTENCE)


def choose(
    model: Model,
    questions: Sequence[tuple[str, Sequence[str]]],
    *,
    batch_size: int = 32,
    truncate: bool = False,
    max_length: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[Chosen]:
    """The best of several continuations or answers of each text; each row of a batch is one choice."""
    require(model, "multiple_choice", "choose")
    pairs: list[Text] = [(text, choice) for text, choices in questions for choice in choices]
    logits = _logits(model, "multiple_choice", pairs, batch_size, truncate, max_length, progress)[:, 0]
    out, start = [], 0
    for text, choices in questions:
        scores, _ = ops.softmax(logits[start : start + len(choices)])
        start += len(choices)
        out.append(Chosen(text, int(np.argmax(scores)), tuple(float(p) for p in scores)))
    return out


def require(model: Model, head: str, task: str) -> None:
    """Raise `InputError` if the model lacks the head that the task reads."""
    if head not in model.heads:
        raise InputError(f"{task} needs a {head} head; this model has: {', '.join(model.heads) or 'no head'}")


def _logits(
    model: Model,
    head: str,
    texts: Sequence[Text],
    batch_size: int,
    truncate: bool,
    max_length: int | None,
    progress: Callable[[int], object] | None,
) -> npt.NDArray[np.float64]:
    """[N, K] in input order."""
    encodings = model.tokenizer.encode(list(texts), max_length=model.limit(max_length), truncate=truncate)
    rows: list[Any] = [None] * len(encodings)
    for indices in by_length(encodings, batch_size):
        logits = model(model.tokenizer.pad([encodings[i] for i in indices]), heads=(head,)).logits[head]
        for i, row in zip(indices, logits, strict=True):
            rows[i] = row
        if progress is not None:
            progress(len(indices))
    return np.array(rows, dtype=np.float64).reshape(len(encodings), -1)


def _classified(texts: Sequence[Text], logits: npt.NDArray[np.float64], names: Sequence[str]) -> list[Classified]:
    out = []
    for text, row in zip(texts, ops.softmax(logits)[0], strict=True):
        order = np.argsort(-row, kind="stable")
        out.append(Classified(text, names[order[0]], {names[k]: float(row[k]) for k in order}))
    return out
