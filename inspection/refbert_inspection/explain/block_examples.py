"""The examples of the blocks: a BERT of three features, with parameters in tenths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.backend.reference import ReferenceBackend
from refbert.config import BertConfig
from refbert.config.heads import PRETRAINING
from refbert.config.parameters import shapes
from refbert.ops.cross_entropy import IGNORE
from refbert.spec.choices import Choices
from refbert.spec.scope import Scope
from refbert.text.batching import Batch
from refbert_inspection.explain.worked_examples import Example

OPS = ReferenceBackend()
CHOICES = Choices.of_layer(heads=1, mask_value=-math.inf, activation="gelu_erf", eps=1e-12)
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


def _block(p: Mapping[str, Host], *dy: Any, outputs: tuple[str, ...] = (), note: str = "", **arguments: Any) -> Example:
    return Example({"ops": OPS, "p": p} | arguments, tuple(np.asarray(d, np.float64) for d in dy), outputs, note)


def _loss(*, outputs: tuple[str, ...] = (), note: str = "", **arguments: Any) -> Example:
    return Example({"ops": OPS} | arguments, (np.array(1.0),), outputs, note)


def _head(head: str, *starts: str) -> dict[str, Host]:
    return {name: x for name, x in parameters("", head).items() if name.startswith(starts)}


_LAYER = "bert.encoder.layer.0."
_SUBLAYER = {name: x for name, x in parameters(_LAYER).items() if not name.startswith("attention.")}
_WORDS = "bert.embeddings.word_embeddings"
_TEXT = Batch(np.array([[3, 1]]), np.array([[0, 1]]))

BLOCKS: Mapping[str, Sequence[Example]] = {
    "embeddings": [_block(
        parameters("bert.embeddings."), _DHIDDEN, input_ids=_TEXT.input_ids, token_type_ids=_TEXT.token_type_ids,
        c=CHOICES,
    )],
    "self_attention": [_block(parameters(_LAYER + "attention."), _DHIDDEN, x=_HIDDEN, mask=_MASK, c=CHOICES)],
    "feed_forward": [_block(_SUBLAYER, _DHIDDEN, x=_HIDDEN, c=CHOICES)],
    "encoder_layer": [_block(parameters(_LAYER), _DHIDDEN, x=_HIDDEN, mask=_MASK, c=CHOICES)],
    # Three positions, of which the last is padding
    "encoder": [_block(
        parameters("bert.encoder."), np.append(_DHIDDEN, [[[0.5, 2, 1]]], axis=1),
        x=np.append(_HIDDEN, [[[0.5, 2, 1]]], axis=1), mask=np.array([[1, 1, 0]]), c=CHOICES,
    )],
    "pooler": [_block(parameters("bert.pooler."), [[1, -2, 0.5]], hidden=_HIDDEN)],
    "masked_lm": [_block(
        _head("masked_lm", "cls.", _WORDS), [[1, -1, 0.5, 0, 2]], hidden=_HIDDEN, positions=np.array([1]), c=CHOICES
    )],
    "next_sentence": [_block(_head("next_sentence", "cls."), [[1, -2]], pooled=_HIDDEN[:, 0])],
    "classifier": [_block(_head("sequence_classification", "classifier."), [[1, -2]], x=_HIDDEN[:, 0], c=CHOICES)],
    "question_answering": [_block(
        _head("question_answering", "qa_outputs."), [[[1, -2], [0.5, 3]]], hidden=_HIDDEN
    )],
    # Google's denominator
    "masked_lm_loss": [_loss(
        logits=np.log(np.array([[1.0, 2, 5], [1, 1, 2]])), labels=np.array([1, 2]), denominator=2 + 1e-5,
        outputs=("loss",), note="(ln 4 + ln 2)/(2 + 1e-5).",
    )],
    "mean_loss": [_loss(
        logits=np.log(np.array([[1.0, 3], [2, 2]])), labels=np.array([1, IGNORE]), denominator=1.0, outputs=("loss",),
        note="−ln ¾.",
    )],
    "regression_loss": [_loss(
        logits=np.array([[1], [3.5]]), targets=np.array([[2.0], [3]]), denominator=2.0, outputs=("loss",)
    )],
    "multi_label_loss": [_loss(
        logits=np.log(np.array([[3.0, 1]])), labels=np.array([[1, 0]]), denominator=2.0, outputs=("loss",),
        note="½ (−ln ¾ − ln ½).",
    )],
    "choice_loss": [_loss(
        scores=np.log(np.array([[1.0], [2], [5]])), labels=np.array([2]), choices=3, denominator=1.0, note="−ln 5/8."
    )],
    # Two positions: the answer is both.
    "span_loss": [_loss(
        logits=np.log(np.array([[[1.0, 1], [3, 4]]])), starts=np.array([0]), ends=np.array([1]), c=CHOICES,
        start_denominator=2.0, end_denominator=2.0, note="½ (ln 4 + ln 5/4).",
    )],
    "bert": [_block(parameters(""), _DHIDDEN, [[1, -2, 0.5]], batch=_TEXT, c=CHOICES)],
    "objective": [_block(
        parameters("", *PRETRAINING), 1.0, batch=_TEXT,
        labels={"labels": np.array([[IGNORE, 4]]), "next_sentence_label": np.array([1])}, heads=PRETRAINING, c=CHOICES,
        note="The word embeddings' gradient is the sum of the lookup's and the output projection's.",
    )],
}  # fmt: skip
