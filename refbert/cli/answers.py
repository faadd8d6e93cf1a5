"""What `refbert run` says with a fine-tuned model: labels, numbers, entities, answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from refbert.answering import Answered, answer
from refbert.classifying import Classified, Estimated, classify, next_sentence, regress
from refbert.cli.output import print_json
from refbert.cli.tables import Table, print_table
from refbert.errors import InputError
from refbert.labels import is_regression
from refbert.model import Model, Text
from refbert.tagging import TaggedText, tag

Answers = Sequence[Classified | Estimated | TaggedText | Answered]


def answers_of(model: Model, task: str, texts: Sequence[Text], *, top_k: int, **how: Any) -> Answers:
    """The task's results; raises `InputError` for a model without its head, and for texts that it does not take."""
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


def print_answers(answers: Answers, as_json: bool, *, top_k: int, null_threshold: float | None) -> None:
    """One JSON object for each text, or a table."""
    if as_json:
        for one in answers:
            print_json(_as_json(one, top_k, null_threshold))
        return
    table = Table()
    table.add_column("text")
    table.add_column("answer")
    table.add_column("", "figure")
    for one in answers:
        for row, (text, number) in enumerate(_rows(one, top_k, null_threshold)):
            table.add_row(_asked(one) if row == 0 else "", text, number)
    print_table(table)


def _as_json(one: Any, top_k: int, null_threshold: float | None) -> dict[str, Any]:
    if isinstance(one, Estimated):
        return {"text": one.text, "value": one.values[0] if len(one.values) == 1 else list(one.values)}
    if isinstance(one, Classified):
        several = {} if one.labels is None else {"labels": list(one.labels)}
        shared = len({s.label for s in one.scores}) < len(one.scores)
        scores = [
            {"label": s.label, **({"number": s.number} if shared else {}), "score": s.score} for s in one.scores[:top_k]
        ]
        return {"text": one.text, "label": one.label, **several, "scores": scores}
    if isinstance(one, TaggedText):
        words = zip(one.tagged.words, one.tagged.tags, one.tagged.scores, strict=True)
        return {
            "text": one.text,
            "words": [{"word": word, "tag": tag, "score": score} for word, tag, score in words],
            "entities": [vars(entity) for entity in one.entities],
        }
    return {
        "question": one.question,
        "passage": one.passage,
        "answer": one.text(null_threshold),
        "null_margin": one.null_margin,
        "answers": [vars(candidate) for candidate in one.answers[:top_k]],
    }


def _asked(one: Any) -> str:
    if isinstance(one, Answered):
        return one.question
    return one.text if isinstance(one.text, str) else "  |  ".join(one.text)


def _rows(one: Any, top_k: int, null_threshold: float | None) -> list[tuple[str, str]]:
    if isinstance(one, Estimated):
        return [("", f"{value:.4f}") for value in one.values]
    if isinstance(one, Classified):
        return [(s.label, f"{s.score:.4f}") for s in one.scores[:top_k]]
    if isinstance(one, TaggedText):
        return [(entity.text, entity.type) for entity in one.entities] or [("(no entity)", "")]
    none = [("(no answer)", "")] if one.text(null_threshold) == "" else []
    return none + [(candidate.text, f"{candidate.probability:.4f}") for candidate in one.answers[:top_k]]
