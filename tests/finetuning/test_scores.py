"""Scores against scikit-learn, SciPy, seqeval, and the rules of SQuAD's scripts written down again."""

from __future__ import annotations

import collections
import math
import re
import string
import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities

from refbert.evaluation import entities, scores, squad

PAIRS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcde")), min_size=1, max_size=40)
SETS = st.sets(st.sampled_from("abcd"))
FLOATS = st.floats(-1e3, 1e3).map(lambda x: round(x, 1))


class TestClasses:
    @given(PAIRS)
    def test_against_scikit_learn(self, pairs):
        reference, predicted = ([pair[side] for pair in pairs] for side in (0, 1))
        assert scores.accuracy(reference, predicted) == pytest.approx(
            sklearn.metrics.accuracy_score(reference, predicted)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            macro = sklearn.metrics.f1_score(reference, predicted, average="macro", zero_division=0.0)
            one = sklearn.metrics.f1_score(reference, predicted, labels=["b"], average="macro", zero_division=0.0)
            matthews = sklearn.metrics.matthews_corrcoef(reference, predicted)
        assert scores.macro_f1(reference, predicted) == pytest.approx(macro)
        assert scores.f1(reference, predicted, "b") == pytest.approx(one)
        assert scores.matthews(reference, predicted) == pytest.approx(matthews, abs=1e-12)

    @given(st.lists(st.tuples(SETS, SETS), min_size=1, max_size=20))
    def test_sets_against_scikit_learn(self, pairs):
        reference, predicted = ([pair[side] for pair in pairs] for side in (0, 1))
        found = scores.set_scores(reference, predicted, "abcd")
        t, p = (np.array([[name in one for name in "abcd"] for one in side]) for side in (reference, predicted))
        assert found["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(t, p))
        for average in ("micro", "macro"):
            expected = sklearn.metrics.f1_score(t, p, average=average, zero_division=0.0)
            assert found[f"{average}_f1"] == pytest.approx(expected)

    def test_one_class_only(self):
        assert scores.matthews(["a", "a"], ["a", "a"]) == 0.0
        assert scores.f1(["a"], ["a"], "b") == 0.0

    def test_lengths_that_differ(self):
        with pytest.raises(ValueError):
            scores.accuracy(["a"], ["a", "b"])


class TestNumbers:
    @given(st.lists(st.tuples(FLOATS, FLOATS), min_size=3, max_size=30))
    def test_against_scipy(self, pairs):
        x, y = np.array(pairs).T
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pearson, spearman = scipy.stats.pearsonr(x, y)[0], scipy.stats.spearmanr(x, y)[0]
        assert scores.pearson(x, y) == pytest.approx(pearson, abs=1e-9, nan_ok=True)
        assert scores.spearman(x, y) == pytest.approx(spearman, abs=1e-9, nan_ok=True)

    def test_ties_share_a_rank(self):
        assert scores.spearman([1, 2, 2, 3], [10, 20, 20, 30]) == pytest.approx(1.0)
        assert scores.spearman([1, 2, 2, 3], [10, 20, 30, 40]) == pytest.approx(
            scipy.stats.spearmanr([1, 2, 2, 3], [1, 2, 3, 4])[0]
        )

    def test_undefined(self):
        assert math.isnan(scores.pearson([1.0, 1.0], [1.0, 2.0]))
        assert math.isnan(scores.spearman([1.0], [2.0]))

    def test_tiny_numbers(self):
        assert scores.pearson([0, 1e-200, 3e-200], [0, 1e-200, 3e-200]) == pytest.approx(1.0)


TAG = st.sampled_from(["O", "O", "B-X", "I-X", "B-Y", "I-Y", "E-X", "S-X", "E-Y", "S-Y"])


class TestEntities:
    @given(st.lists(TAG, min_size=1, max_size=12))
    def test_spans_against_seqeval(self, tags):
        ours = [(span.type, span.start, span.stop - 1) for span in entities.spans(tags)]
        assert ours == get_entities(tags)

    @given(st.lists(st.lists(st.tuples(TAG, TAG), min_size=1, max_size=8), min_size=1, max_size=5))
    def test_scores_against_seqeval(self, sentences):
        reference, predicted = ([[pair[side] for pair in s] for s in sentences] for side in (0, 1))
        ours = entities.entity_scores(reference, predicted)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
            for name, score in theirs.items():
                assert ours[name] == pytest.approx(score(reference, predicted, zero_division=0))

    def test_an_entity_does_not_run_over_the_end_of_a_sentence(self):
        scores = entities.entity_scores([["B-X"], ["I-X"]], [["B-X"], ["O"]])
        assert scores["precision"] == 1.0
        assert scores["recall"] == 0.5


# The rules of evaluate-v1.1.py and evaluate-v2.0.py (Rajpurkar et al.), written down again from their description.


def script_normalize(s):
    s = "".join(ch for ch in s.lower() if ch not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", s).split())


def script_f1(predicted, gold, version):
    p, g = script_normalize(predicted).split(), script_normalize(gold).split()
    if version == 2 and (len(p) == 0 or len(g) == 0):
        return int(p == g)
    common = collections.Counter(p) & collections.Counter(g)
    same = sum(common.values())
    if same == 0:
        return 0
    precision, recall = same / len(p), same / len(g)
    return 2 * precision * recall / (precision + recall)


TRICKY = [
    ("the  Cat.", "cat", 1.0), ("The", "a", 1.0), ("U.S.", "us", 1.0), ("in 1990–91", "1990–91", 0.0), ("", "", 1.0),
    ("", "cat", 0.0), ("theory", "ory", 0.0), ("an-other", "another", 1.0), ("Ä", "ä", 1.0), ("a. b", "b", 1.0),
    ("the the cat", "cat", 1.0), ("it's", "its", 1.0), ("“cat”", "cat", 0.0), ("the_cat", "cat", 0.0),
    ("cat cat", "cat", 0.0), ("10,000", "10000", 1.0),
]  # fmt: skip
ANSWER = st.text(alphabet="aAtheTn .,-'“é 1", max_size=12)


class TestSquad:
    @pytest.mark.parametrize(("predicted", "gold", "exact"), TRICKY)
    def test_tricky_answers(self, predicted, gold, exact):
        assert squad.exact(predicted, gold) == exact
        assert squad.normalize(predicted) == script_normalize(predicted)
        for version in (1, 2):
            assert squad.word_f1(predicted, gold, empty_matches=version == 2) == script_f1(predicted, gold, version)

    @given(ANSWER, ANSWER)
    def test_any_answer(self, predicted, gold):
        assert squad.normalize(predicted) == script_normalize(predicted)
        for version in (1, 2):
            ours = squad.word_f1(predicted, gold, empty_matches=version == 2)
            assert ours == pytest.approx(script_f1(predicted, gold, version))

    def test_words_count_as_often_as_they_occur(self):
        assert squad.word_f1("cat cat", "cat cat dog") == pytest.approx(4 / 5)

    def test_the_best_of_the_answers_counts(self):
        scores = squad.squad_scores({"q": "big cat"}, {"q": ["dog", "big cat sat", "cat"]}, unanswerable=False)
        assert scores == {"exact_match": 0.0, "f1": pytest.approx(80.0)}

    def test_a_question_without_a_prediction_is_wrong(self):
        scores = squad.squad_scores({"q": "cat"}, {"q": ["cat"], "r": ["dog"]}, unanswerable=False)
        assert scores == {"exact_match": 50.0, "f1": 50.0}

    def test_no_answer(self):
        answers = {"q": ["cat"], "r": [], "s": ["The"]}  # of "The" nothing is left, so 2.0 counts s as unanswerable
        scores = squad.squad_scores({"q": "", "r": "", "s": ""}, answers, unanswerable=True)
        assert scores["exact_match"] == pytest.approx(200 / 3)
        assert scores["has_answer_f1"] == 0.0
        assert scores["no_answer_exact_match"] == 100.0

    @given(
        st.lists(
            st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), st.booleans(), st.booleans()), min_size=1, max_size=12
        )
    )
    def test_the_best_threshold_is_the_best_of_all(self, questions):
        answers = {str(i): ["cat"] if has else [] for i, (_, has, _) in enumerate(questions)}
        best = {str(i): "cat" if right else "dog" for i, (_, _, right) in enumerate(questions)}
        margins = {str(i): margin for i, (margin, _, _) in enumerate(questions)}

        def score(predicted, golden):
            return squad.question_scores(predicted, golden, unanswerable=True)[0]

        def total(threshold):
            said = {name: "" if margins[name] > threshold else best[name] for name in answers}
            return 100 * sum(score(said[name], answers[name]) for name in answers) / len(answers)

        threshold, reached = squad.best_threshold(best, answers, margins, score)
        assert reached == pytest.approx(total(threshold))
        assert reached == pytest.approx(max(total(t) for t in (-5.0, -1.0, 0.0, 0.5, 2.0)))
