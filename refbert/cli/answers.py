"""What `refbert run` asks a fine-tuned model: labels, numbers, entities, answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from refbert.errors import InputError
from refbert.labels import is_regression
from refbert.model import Model, Text
from refbert.tasks.answering import Answered, answer
from refbert.tasks.classifying import Classified, Estimated, classify, next_sentence, regress
from refbert.tasks.tagging import TaggedText, tag

Answers = Sequence[Classified | Estimated | TaggedText | Answered]


def answers_of(model: Model, task: str, texts: Sequence[Text], *, top_k: int, **how: Any) -> Answers:
    """Return the task's results; raises `InputError` for a model without its head, and for unsuitable texts."""
    if top_k < 1:
        raise InputError(f"top-k must be 1 or more, not {top_k}")
    if task == "answer":
        how.pop("truncate")  # a long passage is read in windows
        return answer(model, texts, n_best=max(20, top_k), **how)
    if task == "tag":
        return tag(model, texts, **how)
    if task == "next-sentence":
        return next_sentence(model, texts, **how)
    if "sequence_classification" in model.heads and is_regression(model.config):
        return regress(model, texts, **how)
    return classify(model, texts, **how)
