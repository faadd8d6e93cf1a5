"""Prepare fine-tuning: a checkpoint with the task's head, and the examples as it reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from refbert import checkpoint
from refbert.config import BertConfig
from refbert.config.heads import HEADS, POOLED_HEADS
from refbert.config.parameters import initialize, shapes
from refbert.data.features import Feature, answer_features, encode_words, tag_features, windows
from refbert.data.labelled import Labelled
from refbert.errors import InputError, quiet, warn
from refbert.labels import is_multi_label
from refbert.loading import load
from refbert.model import LoadReport, Model
from refbert.tasks.answering import window_length
from refbert.tasks.classifying import label_names
from refbert.text.batching import Text
from refbert.training.finetuning_settings import Settings

HEAD = {task: name for name, head in HEADS.items() for task in head.tasks}
# The tasks whose labels have names.
NAMED = ("classify", "multi-label", "tag")


def of_the_checkpoint(settings: Settings) -> Settings:
    """The settings; classes are several a text where that is what the checkpoint's configuration says."""
    if settings.task != "classify":
        return settings
    config = BertConfig.from_directory(checkpoint.resolve(settings.model))
    return replace(settings, task="multi-label") if is_multi_label(config) else settings


def begin(settings: Settings, labels: Sequence[str], *, seed: int) -> Model:
    """Load the checkpoint with the task's head: its own, if that has these labels, else a newly initialized one.

    ``labels`` (in order of their numbers) go into ``config.id2label``. A new head, and a pooler where the checkpoint
    has none, are drawn from ``seed``. Warns of what is drawn. Raises what `refbert.load` raises.
    """
    head = HEAD[settings.task]
    where: dict[str, Any] = {
        "backend": settings.backend, "dtype": settings.dtype, "device": settings.device, "profile": settings.profile,
    }  # fmt: skip
    with quiet():
        body = load(settings.model, **where, heads=())
        given, names = body.state_dict(), labels
        if any(name.startswith(("classifier.", "qa_outputs.")) for name in body.report.unused):
            stored = load(settings.model, **where)
            if _fits(settings.task, stored, labels):
                given, names = stored.state_dict(), label_names(stored.config)
    kind = {
        "classify": "single_label_classification", "multi-label": "multi_label_classification", "regress": "regression",
    }.get(settings.task)  # fmt: skip
    changes: dict[str, Any] = {"problem_type": kind}
    if settings.dropout is not None:
        changes |= {f"{name}_dropout_prob": settings.dropout for name in ("hidden", "attention_probs")}
        changes["classifier_dropout"] = settings.dropout
    count = {"regress": 1, "answer": 2, "choose": body.config.num_labels}.get(settings.task, len(names))
    id2label = dict(enumerate(names)) if settings.task in NAMED else {}
    config = body.config.replace(**changes, num_labels=count, id2label=id2label)
    expected = shapes(config, (head,), pooler=head in POOLED_HEADS)
    missing = {name: shape for name, shape in expected.items() if name not in given}
    if missing:
        warn(f"drawn afresh: {', '.join(missing)}", stacklevel=2)
    parameters = given | initialize(missing, config, seed=seed, profile=body.profile)
    tokenizer = body.tokenizer
    model = Model(
        config, {name: parameters[name] for name in expected}, backend=body.backend, profile=body.profile,
        heads=(head,), tokenizer=lambda: tokenizer,
        report=LoadReport(body.report.files, body.report.format, tuple(missing)),
    )  # fmt: skip
    model.gradient_checkpointing = settings.gradient_checkpointing
    return model


def _fits(task: str, stored: Model, labels: Sequence[str]) -> bool:
    """Whether the checkpoint's own head is the task's, and has these labels."""
    if HEAD[task] not in stored.heads:
        return False
    if task == "regress":
        return stored.config.num_labels == 1
    if task in ("classify", "multi-label") and is_multi_label(stored.config) != (task == "multi-label"):
        return False
    return set(labels) <= set(stored.config.id2label.values())


def features(settings: Settings, data: Labelled, model: Model) -> list[Feature]:
    """Encode the examples for the model; cut what is longer than the limit, with one `RefbertWarning`.

    Raises `InputError` for a text that cannot be read.
    """
    tokenizer = model.tokenizer
    limit = model.limit(settings.max_length)
    numbers = {label: i for i, label in model.config.id2label.items()}
    if settings.task == "tag":
        words = encode_words(tokenizer, [s.words for s in data.sentences], max_length=limit)
        return tag_features(words, [[numbers[tag] for tag in s.tags] for s in data.sentences])
    if settings.task == "answer":
        found = windows(
            tokenizer, [(q.question, q.context) for q in data.questions],
            max_length=window_length(model.limit(), settings.max_length), doc_stride=settings.doc_stride,
        )  # fmt: skip
        # A file that is read to learn from has every answer's place.
        learned = [cast("tuple[str, int]", q.answers[0]) if q.answers else None for q in data.questions]
        out, lost = answer_features(found, learned)
        if lost:
            warn(
                f"{data.path}: {len(lost):,} answers are in no window whole, or nothing that is read (first: question "
                f'"{data.questions[lost[0]].id}") and are learned as "no answer"',
                stacklevel=3,
            )
        return out
    texts: list[Text]
    if settings.task == "choose":
        texts = [(c.text, choice) for c in data.choices for choice in c.choices]
    else:
        texts = [example.text for example in data.texts]
    try:
        encodings = tokenizer.encode(texts, max_length=limit, truncate=True)
    except InputError as error:
        raise InputError(f"{data.path}: {error}") from None
    if settings.task == "choose":
        each = len(data.choices[0].choices)
        return [
            Feature(tuple(encodings[i * each : (i + 1) * each]), {"labels": c.label})
            for i, c in enumerate(data.choices)
        ]
    labels: list[Any] = [example.label for example in data.texts]
    if settings.task == "multi-label":
        labels = [[int(name in given) for name in label_names(model.config)] for given in labels]
    elif settings.task == "classify":
        labels = [numbers[label] for label in labels]
    return [Feature((e,), {"labels": label}) for e, label in zip(encodings, labels, strict=True)]
