"""A model's scores on labelled data: predict, then compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refbert.config import BertConfig
from refbert.config.heads import HEADS, PRETRAINING
from refbert.data.labelled import Labelled, check_labels
from refbert.errors import InputError
from refbert.evaluation import classes, numbers
from refbert.evaluation.entities import entity_scores, spans
from refbert.evaluation.squad import best_threshold, normalize, question_scores, squad_scores
from refbert.labels import is_multi_label, is_regression
from refbert.model import Model
from refbert.tasks.answering import DOC_STRIDE, MAX_ANSWER, N_BEST, answer
from refbert.tasks.classifying import choose, classify, label_names, regress
from refbert.tasks.tagging import tag_words

# The score by which one model is preferred to another; higher is better. For tags that are no BIO tags: accuracy.
MAIN = {
    "classify": "accuracy",
    "multi-label": "micro_f1",
    "regress": "spearman",
    "tag": "f1",
    "answer": "f1",
    "choose": "accuracy",
}


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
    main = main_score(task, labels)
    if task == "classify":
        made = ["accuracy", "macro_f1", "matthews", *(["f1"] if len(labels) == 2 else [])]
    elif task == "multi-label":
        made = ["micro_f1", "macro_f1", "accuracy"]
    elif task == "regress":
        made = ["pearson", "spearman", "mean_squared_error"]
    elif task == "tag" and _are_entities(labels):
        types = {span.type for sentence in data.sentences for span in spans(sentence.tags)}
        made = ["precision", "recall", "f1", *(f"f1_{type}" for type in sorted(types)), "accuracy"]
    elif task == "answer":
        made = ["exact_match", "f1"]
        if data.unanswerable:
            kinds = {any(normalize(text) for text, _ in q.answers) for q in data.questions}
            parts = [name for name, kind in (("has_answer", True), ("no_answer", False)) if kind in kinds]
            made += [f"{part}_{score}" for part in (*parts, "best") for score in ("exact_match", "f1")]
    else:
        made = ["accuracy"]
    return (main, *(name for name in made if name != main))


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
    if task == "tag":
        return _tags(model, data, names, how)
    how["truncate"] = True
    if task == "choose":
        chosen = choose(model, [(c.text, c.choices) for c in data.choices], **how)
        truth = [c.label for c in data.choices]
        right = {"accuracy": classes.accuracy(truth, [c.choice for c in chosen])}
        return Evaluation(right, [{"prediction": c.choice, "scores": c.scores} for c in chosen])
    texts = [example.text for example in data.texts]
    if task == "regress":
        if model.config.num_labels != 1:
            raise InputError(f"this model gives {model.config.num_labels} numbers a text; only one can be scored")
        given = [e.values[0] for e in regress(model, texts, **how)]
        wanted = [float(example.label) for example in data.texts]  # type: ignore[arg-type]  # read as numbers
        scores = {
            "pearson": numbers.pearson(wanted, given),
            "spearman": numbers.spearman(wanted, given),
            "mean_squared_error": numbers.mean_squared_error(wanted, given),
        }
        return Evaluation(scores, [{"prediction": value} for value in given])
    found = classify(model, texts, **how)
    if task == "multi-label":
        said = [c.labels or () for c in found]
        sets = [x.label if isinstance(x.label, tuple) else (str(x.label),) for x in data.texts]
        return Evaluation(
            classes.set_scores(sets, said, names),
            [{"prediction": c.labels, "scores": {s.label: s.score for s in c.scores}} for c in found],
        )
    predicted, labels = [c.label for c in found], [str(example.label) for example in data.texts]
    scores = {
        "accuracy": classes.accuracy(labels, predicted),
        "macro_f1": classes.macro_f1(labels, predicted),
        "matthews": classes.matthews(labels, predicted),
    }
    if len(names) == 2:
        scores["f1"] = classes.f1(labels, predicted, names[1])
    return Evaluation(scores, [{"prediction": c.label, "score": c.scores[0].score} for c in found])


def _tags(model: Model, data: Labelled, names: Sequence[str], how: Mapping[str, Any]) -> Evaluation:
    tagged = tag_words(model, [s.words for s in data.sentences], **how)
    truth, predicted = [s.tags for s in data.sentences], [t.tags for t in tagged]
    scores = entity_scores(truth, predicted) if _are_entities(names) else {}
    flat = [[tag for tags in side for tag in tags] for side in (truth, predicted)]
    scores["accuracy"] = classes.accuracy(*flat)
    return Evaluation(scores, [{"words": t.words, "prediction": t.tags} for t in tagged])


def _answers(model: Model, data: Labelled, limits: Limits, how: Mapping[str, Any]) -> Evaluation:
    found = answer(
        model, [(q.question, q.context) for q in data.questions], doc_stride=limits.doc_stride, n_best=limits.n_best,
        max_answer=limits.max_answer, **how,
    )  # fmt: skip
    ids = [q.id for q in data.questions]
    # SQuAD 2.0's script and the paper compare the margin with 0 unless told otherwise.
    threshold = 0.0 if data.unanswerable and limits.null_threshold is None else limits.null_threshold
    said = {name: a.text(threshold) for name, a in zip(ids, found, strict=True)}
    golden = {q.id: [text for text, _ in q.answers] for q in data.questions}
    scores = squad_scores(said, golden, unanswerable=data.unanswerable)
    if data.unanswerable:
        best = {name: a.answers[0].text for name, a in zip(ids, found, strict=True)}
        margins = {name: a.null_margin for name, a in zip(ids, found, strict=True)}
        for place, what in enumerate(("exact_match", "f1")):
            scores[f"best_{what}_threshold"], scores[f"best_{what}"] = best_threshold(
                best,
                golden,
                margins,
                lambda p, g, k=place: question_scores(p, g, unanswerable=True)[k],  # type: ignore[misc]
            )
    return Evaluation(
        scores,
        [
            {"id": name, "prediction": said[name], "null_margin": a.null_margin, "n_best": [vars(x) for x in a.answers]}
            for name, a in zip(ids, found, strict=True)
        ],
    )


def _are_entities(labels: Sequence[str]) -> bool:
    return all(label == "O" or label[:2] in ("B-", "I-", "E-", "S-") for label in labels)
