"""What a classifier's outputs become: probabilities by number, whatever the labels are called."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from calling import cli

import refbert
from refbert.errors import ConfigError, InputError
from refbert.tasks.classifying import classify, regress

LOGITS = np.array([-7.0, -6.0, -9.0])


def made(names=("a", "b", "c"), **changes):
    """A model of which every text gets `LOGITS`."""
    base = refbert.load("small-english")
    names = dict(enumerate(names)) if not isinstance(names, dict) else names
    config = base.config.replace(num_labels=3, id2label=names, **changes)
    model = refbert.from_config(config, heads=("sequence_classification",))
    model.parameters["classifier.weight"] *= 0
    model.parameters["classifier.bias"] = LOGITS.astype(np.float32)
    model.tokenizer = base.tokenizer
    return model


def by_number(found):
    return [s.score for s in sorted(found.scores, key=lambda s: s.number)]


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


# Logits of 7 bits are exact in float32, and all after them is float64.
EXACT = 8 * 2.0**-53


class TestClasses:
    def test_two_labels_of_one_name(self):
        (found,) = classify(made(("neg", "pos", "pos")), ["hello"])
        assert np.abs(by_number(found) - softmax(LOGITS)).max() <= EXACT
        assert [(s.label, s.number) for s in found.scores] == [("pos", 1), ("neg", 0), ("pos", 2)]
        assert (found.label, found.labels) == ("pos", None)

    def test_two_labels_of_one_name_in_json(self, tmp_path, capsys):
        made(("neg", "pos", "pos")).save(tmp_path / "model")
        _, out, _ = cli(capsys, "run", "--model", tmp_path / "model", "--json", "hello")
        assert [(s["label"], s["number"], round(s["score"], 3)) for s in json.loads(out)["scores"]] == [
            ("pos", 1, 0.705), ("neg", 0, 0.259), ("pos", 2, 0.035),
        ]  # fmt: skip

    @pytest.mark.parametrize("names", [{1: "a", 2: "b", 3: "c"}, {0: "a", 2: "c", 3: "d"}, {0: "a"}])
    def test_numbers_that_are_not_the_outputs(self, names):
        with pytest.raises(InputError, match="the classifier's outputs are 0 to 2"):
            classify(made(names), ["hello"])

    def test_no_names(self):
        assert [s.label for s in classify(made({}), ["a"])[0].scores] == ["LABEL_1", "LABEL_0", "LABEL_2"]


class TestSeveralLabels:
    def test_each_has_a_probability_of_its_own(self):
        (found,) = classify(made(problem_type="multi_label_classification"), ["hello"])
        assert np.abs(by_number(found) - 1 / (1 + np.exp(-LOGITS))).max() <= EXACT
        assert (found.label, found.labels) == ("b", ())

    def test_those_above_one_half_by_number(self):
        model = made(("x", "y", "y"), problem_type="multi_label_classification")
        model.parameters["classifier.bias"] = np.array([1000, -1000, 2000], np.float32)
        (found,) = classify(model, ["hello"])
        assert found.labels == ("x", "y")
        assert by_number(found) == [1, 0, 1]

    def test_the_loss_is_binary_cross_entropy(self):
        model = made(problem_type="multi_label_classification")
        loss, gradients = model.loss_and_gradients(model.batch(["a", "b"]), [[1, 0, 0], [0, 1, 1]])
        p = 1 / (1 + np.exp(-LOGITS))
        t = np.array([[1, 0, 0], [0, 1, 1]])
        expected = -(t * np.log(p) + (1 - t) * np.log1p(-p)).mean()
        assert math.isclose(loss, expected, rel_tol=8 * 2.0**-24)
        assert np.abs(gradients["classifier.bias"] - (p - t).sum(0) / 6).max() <= 8 * 2.0**-24

    def test_command_line(self, tmp_path, capsys):
        model = made(("toxic", "insult", "threat"), problem_type="multi_label_classification")
        model.save(tmp_path / "model")
        status, out, _ = cli(capsys, "run", "--model", tmp_path / "model", "--json", "hello")
        found = json.loads(out)
        assert status == 0
        assert (found["label"], found["labels"]) == ("insult", [])
        assert [(s["label"], round(s["score"], 4)) for s in found["scores"]] == [
            ("insult", 0.0025), ("toxic", 0.0009), ("threat", 0.0001),
        ]  # fmt: skip


class TestNumbers:
    def test_several(self, tmp_path, capsys):
        model = made(problem_type="regression")
        assert regress(model, ["a", "b"])[1].values == tuple(LOGITS)
        model.save(tmp_path / "model")
        _, out, _ = cli(capsys, "run", "--model", tmp_path / "model", "--json", "hello")
        assert json.loads(out) == {"text": "hello", "value": list(LOGITS)}
        _, out, _ = cli(capsys, "run", "--model", tmp_path / "model", "hello")
        assert all(f"{x:.4f}" in out for x in LOGITS)

    def test_classes_are_no_numbers(self):
        with pytest.raises(InputError, match="classes, not a number"):
            regress(made(), ["a"])
        with pytest.raises(InputError, match="numbers, not classes"):
            classify(made(problem_type="regression"), ["a"])


def test_a_problem_type_that_nobody_knows():
    with pytest.raises(ConfigError, match="problem_type 'ranking' is none of"):
        made(problem_type="ranking")
