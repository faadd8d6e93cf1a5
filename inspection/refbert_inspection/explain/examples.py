"""The examples: for each op and block, arguments with few and short numbers, so that a page can be checked by hand.

LayerNorm's gain is not 1 and cotangents are uneven: with ones, a wrong gradient looks right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
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
from refbert_inspection.explain.catalogue import Entry
from refbert_inspection.explain.worked_examples import Example, Worked, work


def examples(name: str) -> Sequence[Example]:
    """The examples of an entry."""
    return OPS[name] if name in OPS else BLOCKS.get(name, ())


def worked(entry: Entry) -> Iterator[Worked]:
    """Every example of an entry, worked through."""
    for example in examples(entry.name):
        yield work(entry, example)


def _(*rows: Any) -> Any:
    return np.array(rows, dtype=np.float64)


def _op(*, dy: Any = None, outputs: tuple[str, ...] = (), note: str = "", **arguments: Any) -> Example:
    return Example(arguments, () if dy is None else (dy,), outputs, note)


# An update: the second step of two parameters.
_STEP: dict[str, Any] = {
    "p": _(1, -2), "g": _(0.5, 0.1), "m": _(0.1, 0), "v": _(0.01, 0.04), "lr": 0.1, "beta1": 0.9, "beta2": 0.99,
    "eps": 1e-6, "weight_decay": 0.01, "outputs": ("new p", "new m", "new v"),
}  # fmt: skip
# Attention: two positions, two heads of one feature.
_QK: dict[str, Any] = {"q": _([[1, 2], [-1, 0.5]]), "k": _([[0.5, 1], [2, -1]])}
_TWO_HEADS: dict[str, Any] = {"heads": 2, "mask_value": -math.inf}
_DP = _([[[1, -1], [2, 0.5]], [[0, 1], [-2, 1]]])

OPS: Mapping[str, Sequence[Example]] = {
    "add": [_op(x=_([1, -2], [0.5, 3]), z=_([0.25, 1], [-1, 2]), dy=_([1, 2], [3, -1]))],
    "linear": [_op(
        x=_([1, 2, -1], [0, 1, 3]), w=_([0.5, 1, -1], [2, 0, 0.25]), b=_(0.1, -0.2), dy=_([1, -1], [2, 0.5]),
        note="w has one row for each output: y[0, 0] = 1·0.5 + 2·1 + (−1)·(−1) + 0.1.",
    )],
    # Mean 3, deviations −2, −1, 3
    "layer_norm": [_op(
        x=_([1, 2, 6]), gamma=_(2, 0.5, -1), beta=_(0.1, 0, 0.3), eps=1e-12, dy=_([1, -2, 0.5]),
        note="dx adds up to 0, and so does dx times xhat: a row may be shifted and scaled without moving xhat.",
    )],
    "gelu": [
        _op(x=_(-1, 0, 0.5, 2), form="erf", dy=_(1, 2, -1, 0.5),
            note="Φ(0) = ½, and Φ(−1) = 0.158655 is in every table."),
        _op(x=_(-1, 0, 0.5, 2), form="tanh", dy=_(1, 2, -1, 0.5), note="The same x: compare with the form above."),
    ],
    "relu": [_op(x=_(-1.5, -0.25, 0.5, 2), dy=_(1, 2, -1, 0.5))],
    "tanh": [_op(
        x=_(0, 0.5 * math.log(3), -2), dy=_(1, -2, 3), note="x[1] = ½ ln 3, where tanh is ½ and 1 − y² is ¾."
    )],
    "softmax": [_op(
        x=np.log(_([1, 2, 5])), dy=_([1, -1, 2]), note="x = ln 1, ln 2, ln 5: the probabilities are 1/8, 2/8, 5/8."
    )],
    "embedding": [_op(
        table=_([1, 2], [3, 4], [5, 6]), ids=np.array([2, 0, 2]), dy=_([0.1, 0.2], [1, -1], [0.3, 0.5]),
        note="Row 2 was looked up twice and gets the sum; row 1 never, and gets 0.",
    )],
    "gather": [_op(
        x=_([[1, 2], [3, 4]], [[5, 6], [7, 8]]), positions=np.array([3, 0, 3]), dy=_([1, -1], [2, 0.5], [0.25, 3]),
        note="Position 3 is b·S + s = 1·2 + 1: the second of the second sequence.",
    )],
    "dropout": [_op(
        x=_(1, -2, 3, 0.5), keep=np.array([1, 0, 1, 1]), rate=0.25, dy=_(1, 2, -1, 0.5),
        note="What is kept is divided by 1 − 0.25, so that the mean stays.",
    )],
    "attention_probabilities": [
        _op(**_QK, mask=np.array([[1, 1]]), **_TWO_HEADS, dy=_DP, note="D = 1, so that √D = 1."),
        _op(**_QK, mask=np.array([[1, 0]]), **_TWO_HEADS, dy=_DP,
            note="One visible key takes all the probability, and no gradient passes."),
    ],
    "attention": [
        _op(
            q=_([[1, 0.5], [0, 2], [1, 1]]), k=_([[1, -1], [0.5, 1], [2, 2]]), v=_([[1, 0], [0, 2], [3, -1]]),
            mask=np.array([[1, 1, 0]]), heads=1, mask_value=-math.inf, dy=_([[1, -1], [0.5, 2], [0, 1]]),
            note="The masked key has no weight, k and v no gradient.",
        ),
        _op(
            **_QK, v=_([[1, -2], [3, 0.5]]), mask=np.array([[1, 1]]), **_TWO_HEADS,
            keep=np.array([[[[1, 0], [1, 1]], [[1, 1], [0, 1]]]]), rate=0.5, dy=_([[1, -1], [0.5, 2]]),
            note="With dropout the weights of a row no longer add up to 1.",
        ),
    ],
    "cross_entropy": [_op(
        logits=np.log(_([1, 2, 5], [1, 1, 2], [4, 1, 1])), labels=np.array([1, IGNORE, 0]), denominator=2.0,
        dy=np.array(1.5), note="Row 0: p = 1/8, 2/8, 5/8 and label 1, so −ln ¼; row 2: −ln 4/6. Half their sum.",
    )],
    "mean_squared_error": [_op(
        x=_([1], [3.5]), targets=_([2], [3]), denominator=2.0, dy=np.array(2.0),
        note="((1 − 2)² + (3.5 − 3)²)/2 = 0.625.",
    )],
    "reshape": [_op(x=_([1, 2, 3], [4, 5, 6]), shape=(3, 2), dy=_([1, -1], [2, 0.5], [3, 0]))],
    "transpose": [_op(x=_([1, 2, 3], [4, 5, 6]), axes=(1, 0), dy=_([1, -1], [2, 0.5], [3, 0]))],
    "bert_adam": [_op(**_STEP, note="m = 0.9·0.1 + 0.1·0.5 = 0.14 and no correction.")],
    "adamw": [_op(**_STEP, step=2, note="1 − 0.9² = 0.19 and 1 − 0.99² = 0.0199.")],
    "lamb": [_op(**_STEP | {"p": _(3, -4)}, step=2, note="‖p‖ = 5, so p moves by exactly lr·5 = 0.5.")],
    "clip_by_global_norm": [_op(
        gradients={"a": _(3, -4), "b": _([12])}, max_norm=6.5, outputs=("clipped", "norm"),
        note="√(9 + 16 + 144) = 13, twice what is allowed.",
    )],
    "mask_tokens": [_op(
        input_ids=np.array([1, 7, 8, 9, 6, 2]), special=np.array([1, 0, 0, 0, 0, 1]),
        select=_(0.05, 0.1, 0.12, 0.02, 0.6, 0.9), action=_(0, 0.3, 0.85, 0.95, 0.1, 0.5),
        random_ids=np.array([4, 5, 4, 6, 7, 5]), rate=0.15, mask_id=3, outputs=("input_ids", "labels"),
        note="By position: special; [MASK]; random; chosen but kept; not chosen; special.",
    )],
}  # fmt: skip


# The blocks: a BERT of three features, with parameters in tenths.
_REFERENCE = ReferenceBackend()
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
    return Example({"ops": _REFERENCE, "p": p} | arguments, tuple(np.asarray(d, np.float64) for d in dy), outputs, note)


def _loss(*, outputs: tuple[str, ...] = (), note: str = "", **arguments: Any) -> Example:
    return Example({"ops": _REFERENCE} | arguments, (np.array(1.0),), outputs, note)


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
