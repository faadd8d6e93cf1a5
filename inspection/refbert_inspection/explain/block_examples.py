"""The examples of the blocks: a BERT of three features, with parameters in tenths."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refbert.backend.reference import ReferenceBackend
from refbert.config import BertConfig
from refbert.config.parameters import shapes
from refbert.ops.cross_entropy import IGNORE
from refbert.spec.choices import Choices
from refbert.spec.scope import Scope
from refbert.text.batching import Batch
from refbert_inspection.explain.numbers import Example, Host

OPS = ReferenceBackend()
CHOICES = Choices(
    layers=1, heads=1, activation="gelu_erf", layer_norm_eps=1e-12, mask_value=-math.inf, hidden_dropout=0.0,
    attention_dropout=0.0, classifier_dropout=0.0, masked_lm_epsilon=0.0, span_mean_over_batch=False,
)  # fmt: skip
V, F = 5, 2
_CONFIG = BertConfig(
    vocab_size=V, hidden_size=3, num_hidden_layers=1, num_attention_heads=1, intermediate_size=F,
    max_position_embeddings=3, num_labels=2,
)  # fmt: skip
_HIDDEN = np.array([[[1, -0.5, 2], [0.5, 1.5, -1]]])  # [1, 2, 3]
_DHIDDEN = np.array([[[1, -1, 0.5], [2, 0, -0.5]]])
_MASK = np.array([[1, 1]])


def tenths(shape: tuple[int, ...], seed: int) -> Host:
    """Numbers from −0.5 to 0.5 with one decimal."""
    return np.random.default_rng(seed).integers(-5, 6, shape) / 10


def parameters(prefix: str, *heads: str) -> dict[str, Host]:
    """The parameters whose names start so, under the rest of their names; LayerNorm's gains between 0.5 and 1.5."""
    made = {
        name: tenths(shape, i) + (name.endswith("LayerNorm.weight"))
        for i, (name, shape) in enumerate(shapes(_CONFIG, heads).items())
    }
    return dict(Scope(made, prefix))


def _block(prefix: str, cotangent: Host, *heads: str, **arguments: Any) -> Example:
    names = {"ops": OPS, "p": parameters(prefix, *heads)}
    return Example(names | arguments, (np.asarray(cotangent, np.float64),))


def embeddings() -> Example:
    """Two tokens."""
    ids, types = np.array([[3, 1]]), np.array([[0, 1]])
    return _block("bert.embeddings.", _DHIDDEN, input_ids=ids, token_type_ids=types, c=CHOICES)


def self_attention() -> Example:
    """Two positions, one head."""
    return _block("bert.encoder.layer.0.attention.", _DHIDDEN, x=_HIDDEN, mask=_MASK, c=CHOICES)


def feed_forward() -> Example:
    """Two positions through two features."""
    p = parameters("bert.encoder.layer.0.")
    own = {name: value for name, value in p.items() if not name.startswith("attention.")}
    return Example({"ops": OPS, "p": own, "x": _HIDDEN, "c": CHOICES}, (_DHIDDEN,))


def encoder_layer() -> Example:
    """Both sublayers."""
    return _block("bert.encoder.layer.0.", _DHIDDEN, x=_HIDDEN, mask=_MASK, c=CHOICES)


def encoder() -> Example:
    """One layer over three positions, of which the last is padding."""
    x, dy = (np.concatenate([a, [[[0.5, 2, 1]]]], axis=1) for a in (_HIDDEN, _DHIDDEN))
    return _block("bert.encoder.", dy, x=x, mask=np.array([[1, 1, 0]]), c=CHOICES)


def pooler() -> Example:
    """The first of two positions."""
    return _block("bert.pooler.", np.array([[1, -2, 0.5]]), hidden=_HIDDEN)


def masked_lm() -> Example:
    """One position of two, five words."""
    p = {k: v for k, v in parameters("", "masked_lm").items() if k.startswith("cls.") or "word_embeddings" in k}
    return Example(
        {"ops": OPS, "p": p, "hidden": _HIDDEN, "positions": np.array([1]), "c": CHOICES},
        (np.array([[1, -1, 0.5, 0, 2]]),),
    )


def next_sentence() -> Example:
    """One pooled vector."""
    p = {k: v for k, v in parameters("", "next_sentence").items() if k.startswith("cls.")}
    return Example({"ops": OPS, "p": p, "pooled": _HIDDEN[:, 0]}, (np.array([[1, -2]]),))


def classifier() -> Example:
    """Two classes of one pooled vector, without dropout."""
    p = {k: v for k, v in parameters("", "sequence_classification").items() if k.startswith("classifier.")}
    return Example({"ops": OPS, "p": p, "x": _HIDDEN[:, 0], "c": CHOICES}, (np.array([[1, -2]]),))


def question_answering() -> Example:
    """Start and end of two positions."""
    p = {k: v for k, v in parameters("", "question_answering").items() if k.startswith("qa_outputs.")}
    return Example({"ops": OPS, "p": p, "hidden": _HIDDEN}, (np.array([[[1, -2], [0.5, 3]]]),))


_LOSS = np.array(1.0)


def masked_lm_loss() -> Example:
    """Two predictions of three words; Google's denominator."""
    logits = np.log(np.array([[1.0, 2, 5], [1, 1, 2]]))
    return Example(
        {"ops": OPS, "logits": logits, "labels": np.array([1, 2]), "denominator": 2 + 1e-5}, (_LOSS,), ("loss",),
        note="(ln 4 + ln 2)/(2 + 1e-5).",
    )  # fmt: skip


def mean_loss() -> Example:
    """Two rows of two classes, one not labelled."""
    logits = np.log(np.array([[1.0, 3], [2, 2]]))
    return Example(
        {"ops": OPS, "logits": logits, "labels": np.array([1, IGNORE]), "denominator": 1.0}, (_LOSS,), ("loss",),
        note="−ln ¾.",
    )  # fmt: skip


def regression_loss() -> Example:
    """Two scores."""
    return Example(
        {"ops": OPS, "logits": np.array([[1], [3.5]]), "targets": np.array([[2.0], [3]]), "denominator": 2.0}, (_LOSS,),
        ("loss",),
    )  # fmt: skip


def multi_label_loss() -> Example:
    """One text with the first of two labels."""
    logits = np.log(np.array([[3.0, 1]]))
    return Example(
        {"ops": OPS, "logits": logits, "labels": np.array([[1, 0]]), "denominator": 2.0}, (_LOSS,), ("loss",),
        note="½ (−ln ¾ − ln ½).",
    )  # fmt: skip


def choice_loss() -> Example:
    """One question with three choices."""
    scores = np.log(np.array([[1.0], [2], [5]]))
    return Example(
        {"ops": OPS, "scores": scores, "labels": np.array([2]), "choices": 3, "denominator": 1.0},
        (_LOSS,), note="−ln 5/8.",
    )  # fmt: skip


def span_loss() -> Example:
    """Two positions: the answer is both."""
    logits = np.log(np.array([[[1.0, 1], [3, 4]]]))
    return Example(
        {"ops": OPS, "logits": logits, "starts": np.array([0]), "ends": np.array([1]), "c": CHOICES,
         "start_denominator": 2.0, "end_denominator": 2.0}, (_LOSS,), note="½ (ln 4 + ln 5/4).",
    )  # fmt: skip


def bert() -> Example:
    """Two tokens through one layer."""
    batch = Batch(np.array([[3, 1]]), np.array([[0, 1]]))
    return Example(
        {"ops": OPS, "p": parameters(""), "batch": batch, "c": CHOICES}, (_DHIDDEN, np.array([[1, -2, 0.5]]))
    )  # fmt: skip


def objective() -> Example:
    """One masked token and one next-sentence label."""
    heads = ("masked_lm", "next_sentence")
    labels = {"labels": np.array([[IGNORE, 4]]), "next_sentence_label": np.array([1])}
    arguments = {
        "ops": OPS,
        "p": parameters("", *heads),
        "batch": Batch(np.array([[3, 1]]), np.array([[0, 1]])),
        "labels": labels,
    }
    return Example(
        arguments | {"heads": heads, "c": CHOICES}, (_LOSS,),
        note="The word embeddings' gradient is the sum of the lookup's and the output projection's.",
    )  # fmt: skip
