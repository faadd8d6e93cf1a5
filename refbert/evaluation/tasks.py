"""A model's scores on labelled data: predict, then compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from refbert.config import BertConfig
from refbert.config.heads import HEADS, PRETRAINING
from refbert.data.labelled import Labelled, check_labels
from refbert.errors import InputError
from refbert.evaluation import scores as score
from refbert.evaluation.entities import entity_scores
from refbert.evaluation.squad import best_threshold, question_scores, squad_scores
from refbert.labels import is_multi_label, is_regression
from refbert.model import Model
from refbert.tasks.answering import DOC_STRIDE, MAX_ANSWER, N_BEST, answer
from refbert.tasks.classifying import choose, classify, label_names, regress
from refbert.tasks.tagging import tag_words

# The score by which one model is preferred to another; higher is better. For tags that are no BIO tags: accuracy.
MAIN = {
    "classify": "accuracy", "multi-label": "micro_f1", "regress": "spearman", "tag": "f1", "answer": "f1",
    "choose": "accuracy",
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """How texts are read: tokens at most, rows at once, the step from window to window, the no-answer threshold."""

    max_length: int | None = None
    batch_size: int = 32
    doc_stride: int = DOC_STRIDE
    n_best: int = N_BEST
    max_answer: int = MAX_ANSWER
    null_threshold: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """Scores by name, and every prediction as JSON, in the file's order."""

    scores: Mapping[str, float]
    predictions: Sequence[Mapping[str, Any]]


def default_evaluation(model: Model) -> str:
    """Return the task that the model's head is for; raises `InputError` if there is none."""
    for name in model.heads:
        if name not in PRETRAINING:
            return _of_sequences(model.config) if HEADS[name].label == "problem" else HEADS[name].tasks[0]
    hint = "; its masked_lm head is scored with --task masked-lm" if "masked_lm" in model.heads else ""
    raise InputError(f"this model has no fine-tuned head (it has: {', '.join(model.heads) or 'none'}){hint}")


def _of_sequences(config: BertConfig) -> str:
    return "regress" if is_regression(config) else "multi-label" if is_multi_label(config) else "classify"


def main_score(task: str, labels: Sequence[str]) -> str:
    """Return the name of the score that decides."""
    return "accuracy" if task == "tag" and not _are_entities(labels) else MAIN[task]


def score_names(task: str, labels: Sequence[str], data: Labelled) -> tuple[str, ...]:
    """The scores that `evaluate` makes of ``data`` and by which models can be told apart, the main one first."""
    if task == "answer":
        answers = {q.id: q.answers[0][0] if q.answers else "" for q in data.questions}
        made = _answer_scores(data, answers, answers, dict.fromkeys(answers, 0.0))
    else:
        reference = _reference(task, data)
        made = _scores(task, labels, reference, reference)
    main = main_score(task, labels)
    return (main, *(name for name in made if name != main and not name.endswith("_threshold")))


def evaluate(
    model: Model,
    task: str,
    data: Labelled,
    limits: Limits = Limits(),
    *,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Score ``model`` on ``data``; long texts are cut with a `RefbertWarning`, as in training.

    classify: accuracy, macro_f1, matthews; of two classes also f1, of the second. regress: pearson, spearman,
    mean_squared_error. multi-label: micro_f1, macro_f1, accuracy of whole sets. tag: precision, recall and f1 of the
    entities (and f1_TYPE), accuracy of the tags. answer: exact_match and f1 in percent. choose: accuracy. Raises
    `InputError` for a label that the model does not have, and for a task that is not the model's.
    """
    if task in ("classify", "multi-label", "regress") and task != (fits := _of_sequences(model.config)):
        raise InputError(f"this model's problem_type is {model.config.problem_type}: score it with the task {fits}")
    names = label_names(model.config) if task in ("classify", "multi-label", "tag") else ()
    check_labels(task, data, names)
    how: dict[str, Any] = {"max_length": limits.max_length, "batch_size": limits.batch_size, "progress": progress}
    if task == "answer":
        return _answers(model, data, limits, how)
    predicted, rows = _predict(model, task, data, how)
    return Evaluation(_scores(task, names, _reference(task, data), predicted), rows)


def _predict(
    model: Model, task: str, data: Labelled, how: dict[str, Any]
) -> tuple[Sequence[Any], Sequence[Mapping[str, Any]]]:
    """(what is compared with `_reference`, each prediction as JSON)."""
    if task == "tag":
        tagged = tag_words(model, [s.words for s in data.sentences], **how)
        return [t.tags for t in tagged], [{"words": t.words, "prediction": t.tags} for t in tagged]
    how["truncate"] = True
    if task == "choose":
        chosen = choose(model, [(c.text, c.choices) for c in data.choices], **how)
        return [c.choice for c in chosen], [{"prediction": c.choice, "scores": c.scores} for c in chosen]
    texts = [example.text for example in data.texts]
    if task == "regress":
        if model.config.num_labels != 1:
            raise InputError(f"this model gives {model.config.num_labels} numbers a text; only one can be scored")
        given = [e.values[0] for e in regress(model, texts, **how)]
        return given, [{"prediction": value} for value in given]
    found = classify(model, texts, **how)
    if task == "multi-label":
        rows = [{"prediction": c.labels, "scores": {s.label: s.score for s in c.scores}} for c in found]
        return [c.labels or () for c in found], rows
    return [c.label for c in found], [{"prediction": c.label, "score": c.scores[0].score} for c in found]


def _reference(task: str, data: Labelled) -> list[Any]:
    """What there is to predict."""
    if task == "tag":
        return [s.tags for s in data.sentences]
    return [example.label for example in (data.choices if task == "choose" else data.texts)]


def _scores(task: str, labels: Sequence[str], reference: Sequence[Any], predicted: Sequence[Any]) -> dict[str, float]:
    """The scores of every task but answers."""
    if task == "regress":
        return {
            "pearson": score.pearson(reference, predicted),
            "spearman": score.spearman(reference, predicted),
            "mean_squared_error": score.mean_squared_error(reference, predicted),
        }
    if task == "multi-label":
        return score.set_scores(reference, predicted, labels)
    if task == "tag":
        of_entities = entity_scores(reference, predicted) if _are_entities(labels) else {}
        return of_entities | {"accuracy": score.accuracy([*chain(*reference)], [*chain(*predicted)])}
    scores = {"accuracy": score.accuracy(reference, predicted)}
    if task == "classify":
        scores |= {
            "macro_f1": score.macro_f1(reference, predicted),
            "matthews": score.matthews(reference, predicted),
        }
        if len(labels) == 2:
            scores["f1"] = score.f1(reference, predicted, labels[1])
    return scores


def _answers(model: Model, data: Labelled, limits: Limits, how: Mapping[str, Any]) -> Evaluation:
    found = answer(
        model, [(q.question, q.context) for q in data.questions], doc_stride=limits.doc_stride, n_best=limits.n_best,
        max_answer=limits.max_answer, **how,
    )  # fmt: skip
    by_id = {q.id: a for q, a in zip(data.questions, found, strict=True)}
    # SQuAD 2.0's script and the paper compare the margin with 0 unless told otherwise.
    threshold = 0.0 if data.unanswerable and limits.null_threshold is None else limits.null_threshold
    said = {name: a.text(threshold) for name, a in by_id.items()}
    best = {name: a.answers[0].text for name, a in by_id.items()}
    rows = [
        {"id": name, "prediction": said[name], "null_margin": a.null_margin, "n_best": [vars(x) for x in a.answers]}
        for name, a in by_id.items()
    ]
    return Evaluation(_answer_scores(data, said, best, {name: a.null_margin for name, a in by_id.items()}), rows)


def _answer_scores(
    data: Labelled, said: Mapping[str, str], best: Mapping[str, str], margins: Mapping[str, float]
) -> dict[str, float]:
    """The scores of what is said to each question; ``best``: what would be said whatever the margin of "no answer"."""
    golden = {q.id: [text for text, _ in q.answers] for q in data.questions}
    scores = squad_scores(said, golden, unanswerable=data.unanswerable)
    if data.unanswerable:
        for place, what in enumerate(("exact_match", "f1")):
            scores[f"best_{what}_threshold"], scores[f"best_{what}"] = best_threshold(
                best,
                golden,
                margins,
                lambda p, g, k=place: question_scores(p, g, unanswerable=True)[k],  # type: ignore[misc]
            )
    return scores


def _are_entities(labels: Sequence[str]) -> bool:
    return all(label == "O" or label[:2] in ("B-", "I-", "E-", "S-") for label in labels)
