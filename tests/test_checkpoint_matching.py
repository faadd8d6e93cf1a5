"""Heads that a checkpoint holds, and the match of its tensors with a model's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoint_files import TINY, assert_bitwise, weights

from refbert.checkpoint import Checkpoint, heads_in, match
from refbert.config.heads import HEADS, POOLED_HEADS
from refbert.config.parameters import shapes
from refbert.errors import CheckpointError

WORDS = "bert.embeddings.word_embeddings.weight"


def checkpoint(tensors):
    return Checkpoint(tensors, "safetensors", (Path("there/model.safetensors"),), ())


@pytest.mark.parametrize("head", HEADS)
def test_each_head_is_recognised(head):
    architecture = {
        "sequence_classification": "BertForSequenceClassification",
        "token_classification": "BertForTokenClassification",
        "multiple_choice": "BertForMultipleChoice",
    }.get(head, "Whatever")
    config = TINY.replace(architectures=(architecture,))
    pooler = head in POOLED_HEADS
    assert heads_in(weights(heads=(head,), pooler=pooler), config) == ((head,), pooler)


def test_pretraining_heads_and_no_head():
    assert heads_in(weights(), TINY) == (("masked_lm", "next_sentence"), True)
    assert heads_in(weights(heads=()), TINY) == ((), True)
    assert heads_in(weights(heads=(), pooler=False), TINY) == ((), False)


def test_a_classifier_that_the_configuration_does_not_name():
    assert heads_in(weights(heads=("sequence_classification",)), TINY)[0] == ("sequence_classification",)
    assert heads_in(weights(heads=("token_classification",), pooler=False), TINY)[0] == ("token_classification",)
    assert heads_in(weights(heads=("multiple_choice",)), TINY)[0] == ("multiple_choice",)
    regression = TINY.replace(num_labels=1)
    assert heads_in(weights(regression, ("sequence_classification",)), regression)[0] == ("sequence_classification",)
    # Without arrays the shape is unknown.
    assert heads_in(list(weights(heads=("multiple_choice",))), TINY)[0] == ("sequence_classification",)


def test_half_a_head_is_none():
    tensors = weights()
    del tensors["cls.predictions.bias"]
    assert heads_in(tensors, TINY)[0] == ("next_sentence",)


def test_a_match_reports_missing_and_unused_in_order():
    tensors = weights(heads=("masked_lm",)) | {"lstm.weight": np.zeros(1, np.float32)}
    expected = shapes(TINY, ("next_sentence",))
    matched = match(checkpoint(tensors), expected)
    assert matched.missing == ("cls.seq_relationship.weight", "cls.seq_relationship.bias")
    assert set(matched.unused) == {"lstm.weight", *(name for name in tensors if name.startswith("cls.predictions"))}
    assert_bitwise(matched.parameters, {name: x for name, x in tensors.items() if name in expected})
    assert list(matched.parameters) == [name for name in expected if name in tensors]
    assert all(matched.parameters[name] is tensors[name] for name in matched.parameters)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("bert.encoder.layer.1.output.dense.weight", (12, 8), r"\[12, 8\], .*\[8, 12\] \(it is transposed\)"),
        (WORDS, (30, 8), r"\[30, 8\].*\[23, 8\] \(vocab_size is 23, the tensor says 30\)"),
        (WORDS, (23, 9), r"\[23, 9\].*another checkpoint"),
        (
            "bert.embeddings.position_embeddings.weight",
            (512, 8),
            ".*position_embeddings is 16, the tensor says 512",
        ),
        ("bert.embeddings.token_type_embeddings.weight", (16, 8), ".*type_vocab_size is 2, the tensor says 16"),
        ("bert.pooler.dense.bias", (1, 8), r"\[1, 8\].*\[8\]"),
        ("cls.predictions.bias", (), r"\[\]"),
    ],
)
def test_a_wrong_shape_is_an_error(name, shape, message):
    tensors = weights() | {name: np.zeros(shape, np.float32)}
    with pytest.raises(CheckpointError, match=f"model.safetensors: {name} has shape {message}"):
        match(checkpoint(tensors), shapes(TINY, ("masked_lm", "next_sentence")))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_weights_that_are_no_numbers_are_an_error(bad, dtype):
    tensors = weights(dtype=dtype)
    tensors["bert.encoder.layer.1.output.dense.weight"][3, 5] = bad
    with pytest.raises(CheckpointError, match=r"bert.encoder.layer.1.output.dense.weight holds NaN or infinite"):
        match(checkpoint(tensors), shapes(TINY))
