"""Labels: every mistake is named."""

from __future__ import annotations

import numpy as np
import pytest

import refbert
from refbert.errors import InputError
from refbert.labels import read_labels

CONFIG = refbert.BertConfig(vocab_size=11, hidden_size=8, num_attention_heads=2, intermediate_size=8, num_labels=3)
BATCH = refbert.Batch(input_ids=np.ones((4, 5), int))


def read(labels, *heads, config=CONFIG):
    return read_labels(labels, BATCH, heads, config)


def test_one_array_for_one_head():
    out = read(np.zeros((4, 5), int), "masked_lm")
    assert out["labels"].shape == (4, 5)
    assert read([0, 1, 2, -100], "sequence_classification")["labels"].tolist() == [0, 1, 2, -100]


def test_next_sentence_labels_by_both_of_their_names():
    for name in ("labels", "next_sentence_label"):
        assert read({name: [0, 1, 0, 1]}, "next_sentence")["next_sentence_label"].tolist() == [0, 1, 0, 1]


def test_a_pretraining_model_may_be_labelled_for_one_of_its_heads():
    assert set(read({"next_sentence_label": [0, 1, 0, 1]}, "masked_lm", "next_sentence")) == {"next_sentence_label"}


@pytest.mark.parametrize(
    ("labels", "heads", "says"),
    [
        (np.zeros((4, 4), int), ("masked_lm",), r"shape \(4, 4\), expected \(4, 5\)"),
        (np.zeros((4, 5)), ("masked_lm",), "whole numbers"),
        (np.full((4, 5), 11), ("masked_lm",), r"labels\[0, 0\] is 11: must be -100 \(ignored\) or in \[0, 11\)"),
        (np.full((4, 5), -1), ("token_classification",), "is -1"),
        ([0, 1, 3, 0], ("sequence_classification",), r"labels\[2\] is 3.*\[0, 3\)"),
        ([0, 1, 0, 2], ("next_sentence",), r"\[0, 2\)"),
        ([0, 1, 2], ("multiple_choice",), "whole number of choices"),
        ([0, 2], ("multiple_choice",), r"labels\[1\] is 2"),
        ({"lables": [0]}, ("next_sentence",), 'unknown labels "lables"'),
        ({"start_positions": [0, 0, 0, 0]}, ("question_answering",), "no head has all its labels"),
        ([0, 0, 0, 0], ("question_answering",), "several label arrays"),
        ([0, 0, 0, 0], (), "no head"),
    ],
)
def test_mistakes(labels, heads, says):
    with pytest.raises(InputError, match=says):
        read(labels, *heads)


def test_regression_targets():
    config = CONFIG.replace(num_labels=1)
    assert read([0.5, 1, 2, 3], "sequence_classification", config=config)["labels"].shape == (4, 1)
    with pytest.raises(InputError, match="finite"):
        read([np.nan, 1, 2, 3], "sequence_classification", config=config)


def test_a_span_outside_the_window_is_legal():
    out = read({"start_positions": [9, 0, -1, 2], "end_positions": [9, 1, 3, 2]}, "question_answering")
    assert out["start_positions"].tolist() == [9, 0, -1, 2]


SEVERAL = CONFIG.replace(problem_type="multi_label_classification")


@pytest.mark.parametrize("dtype", [int, float, bool])
def test_several_labels_a_sequence(dtype):
    given = np.array([[0, 1, 0], [1, 1, 1], [0, 0, 0], [1, 0, 0]], dtype)
    out = read(given, "sequence_classification", config=SEVERAL)["labels"]
    assert out.dtype == np.int64
    assert out.tolist() == given.tolist()
    ignored = read([[0, 1, -100]] * 4, "sequence_classification", config=SEVERAL)["labels"]
    assert ignored[0].tolist() == [0, 1, -100]
    alone = SEVERAL.replace(num_labels=1)
    assert read([0, 1, 0, 1], "sequence_classification", config=alone)["labels"].tolist() == [[0], [1], [0], [1]]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 1], r"has shape \(4,\), expected \(4, 3\)"),
        ([[0, 1, 2]] * 4, r"labels\[0, 2\] is 2: of several labels each is 0 or 1"),
        ([[0, 1, 0.5]] * 4, r"labels\[0, 2\] is 0.5"),
        ([[0, 1, np.nan]] * 4, "is nan"),
        ([["a", "b", "c"]] * 4, "must be numbers"),
    ],
)
def test_several_labels_that_are_none(labels, message):
    with pytest.raises(InputError, match=message):
        read(labels, "sequence_classification", config=SEVERAL)
