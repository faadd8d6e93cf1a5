"""From texts to rows and labels: first pieces, windows, and epochs that can be taken up anywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from labelled_files import VOCABULARY, write_model

import refbert
from refbert.data.features import Feature, answer_features, collate, encode_words, tag_features, windows
from refbert.data.stream import Epochs
from refbert.errors import InputError, RefbertWarning
from refbert.ops.cross_entropy import IGNORE
from refbert.tasks.answering import answer
from refbert.tasks.tagging import tag
from refbert.text.tokenization import Tokenizer

TOKENIZER = Tokenizer.from_vocabulary(VOCABULARY)


class TestTags:
    def test_the_first_piece_has_the_label_and_the_rest_none(self):
        (words,) = encode_words(TOKENIZER, [["cats", "sat", "."]], max_length=16)
        assert words.encoding.tokens == ("[CLS]", "cat", "##s", "sat", ".", "[SEP]")
        (feature,) = tag_features([words], [[2, 0, 1]])
        assert feature.labels["labels"] == (IGNORE, 2, IGNORE, 0, 1, IGNORE)

    def test_a_long_sentence_is_cut_and_keeps_its_end(self):
        with pytest.warns(RefbertWarning) as caught:
            (words,) = encode_words(TOKENIZER, [["cats", "sat", "on", "mats"]], max_length=5)
        assert words.encoding.tokens == ("[CLS]", "cat", "##s", "sat", "[SEP]")
        assert words.firsts == (1, 3, None, None)
        assert [str(w.message)[:35] for w in caught] == [
            "1 of 1 sentences cut to 5 tokens: 3",
            "2 words have no token (cut off, or ",
        ]

    def test_a_word_without_a_piece(self):
        with pytest.warns(RefbertWarning, match="1 words have no token"):
            (words,) = encode_words(TOKENIZER, [["cat", "\u200b", "sat"]], max_length=16)
        (feature,) = tag_features([words], [[1, 2, 3]])
        assert feature.labels["labels"] == (IGNORE, 1, 3, IGNORE)

    def test_padding_is_not_labelled(self):
        features = tag_features(
            encode_words(TOKENIZER, [["cat"], ["a", "cat", "sat"]], max_length=16), [[1], [0, 1, 0]]
        )
        batch, labels = collate(features, TOKENIZER)
        assert labels["labels"].tolist() == [[IGNORE, 1, IGNORE, IGNORE, IGNORE], [IGNORE, 0, 1, 0, IGNORE]]
        assert batch.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]


def passage(n):
    return " ".join(VOCABULARY[5 + i % 8] for i in range(n))


class TestWindows:
    def test_a_short_passage_is_one_window(self):
        (window,) = windows(TOKENIZER, [("the cat", "a Cat sat .")], max_length=16, doc_stride=4)
        assert window.encoding.tokens == ("[CLS]", "the", "cat", "[SEP]", "a", "cat", "sat", ".", "[SEP]")
        assert window.encoding.token_type_ids == (0, 0, 0, 0, 1, 1, 1, 1, 1)
        assert ["a Cat sat ."[a:b] for a, b in window.offsets] == ["a", "Cat", "sat", "."]
        assert all(window.central)

    @example(450, 304, 128)  # a last window that is over 100 tokens shorter, so that its length tells
    @given(st.integers(1, 60), st.integers(6, 20), st.integers(1, 20))
    def test_every_token_is_central_once_where_it_has_most_context(self, n, max_length, stride):
        found = windows(TOKENIZER, [("the", passage(n))], max_length=max_length, doc_stride=stride)
        room = max_length - 4
        starts = [0]
        while starts[-1] + room < n:  # as run_squad.py moves the window
            starts.append(starts[-1] + min(stride, room))
        assert [w.offsets[0][0] for w in found] == [len(passage(s)) + (s > 0) for s in starts]
        # run_squad.py: _check_is_max_context, written down again
        central = {}
        for position in range(n):
            scored = []
            for index, start in enumerate(starts):
                length = min(room, n - start)
                if start <= position < start + length:
                    left, right = position - start, start + length - 1 - position
                    scored.append((-(min(left, right) + 0.01 * length), index))
            central[position] = min(scored)[1]
        for index, (start, window) in enumerate(zip(starts, found, strict=True)):
            assert window.central == tuple(central[start + i] == index for i in range(len(window.offsets)))

    def test_an_answer_is_labelled_where_it_is_whole_and_on_cls_elsewhere(self):
        text = "the a cat sat on mat dog ."
        found = windows(TOKENIZER, [("the", text)], max_length=8, doc_stride=2)  # four tokens a window
        start = text.index("cat sat")
        features, lost = answer_features(found, [("cat sat", start)])
        assert lost == []
        for window, feature in zip(found, features, strict=True):
            s, e = feature.labels["start_positions"], feature.labels["end_positions"]
            tokens = window.encoding.tokens
            assert (tokens[s], tokens[e]) == (("cat", "sat") if {"cat", "sat"} <= set(tokens) else ("[CLS]", "[CLS]"))
        assert [f.labels["start_positions"] for f in features] == [5, 3, 0]

    def test_no_answer_and_one_that_fits_no_window(self):
        text = "the a cat sat on mat dog ."
        found = windows(TOKENIZER, [("the", text), ("a", text)], max_length=8, doc_stride=2)
        features, lost = answer_features(found, [None, (text, 0)])
        assert lost == [1]
        assert {f.labels["start_positions"] for f in features} == {0}

    @pytest.mark.parametrize(
        ("text", "answer", "tokens"),
        [
            ("the cat sat", "cat ", ("cat",)),
            ("the cat sat", " cat", ("cat",)),
            ("the cat sat", " cat sat", ("cat", "sat")),
            ("the cat\t\u3000sat", "\t\u3000sat", ("sat",)),
            ("the cat\u0301 sat", "cat\u0301", ("cat",)),
            ("the cat\u0301 sat", "\u0301 sat", ("sat",)),
            ("the \u200bcat\u0000 sat", "\u200bcat\u0000", ("cat",)),
            ("the \ufeffcat\x9b sat", "\ufeffcat\x9b ", ("cat",)),
        ],
    )
    def test_what_is_no_part_of_a_token_does_not_matter(self, text, answer, tokens):
        found = windows(TOKENIZER, [("a", text)], max_length=16, doc_stride=2)
        ((feature,), lost) = answer_features(found, [(answer, text.index(answer))])
        shown = found[0].encoding.tokens
        s, e = feature.labels["start_positions"], feature.labels["end_positions"]
        assert (shown[s : e + 1], lost) == (tokens, [])

    def test_an_answer_that_begins_before_the_window_is_not_there_whole(self):
        text = "the a cat \u0301 sat on mat dog ."
        found = windows(TOKENIZER, [("the", text)], max_length=6, doc_stride=1)  # two tokens a window
        features, lost = answer_features(found, [("cat \u0301 sat", text.index("cat"))])
        assert [f.labels["start_positions"] > 0 for f in features].count(True) == 1
        assert lost == []

    def test_an_answer_of_no_token_is_lost(self):
        text = "the cat \u0301\u200b sat"
        found = windows(TOKENIZER, [("a", text)], max_length=16, doc_stride=2)
        (feature,), lost = answer_features(found, [("\u0301\u200b", text.index("\u0301"))])
        assert (feature.labels["start_positions"], lost) == (0, [0])

    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("the cat\u0301\u0302 sat", ["the", "cat\u0301\u0302", "sat"]),
            ("cat\u0301", ["cat\u0301"]),
            ("cat \u0301 sat", ["cat", "sat"]),
            ("a\u0301.\u0302", ["a\u0301", ".\u0302"]),
        ],
    )
    def test_a_token_is_shown_with_its_marks(self, text, parts):
        (window,) = windows(TOKENIZER, [("a", text)], max_length=16, doc_stride=2)
        assert [text[a:end] for (a, _), end in zip(window.offsets, window.ends, strict=True)] == parts

    def test_a_long_question_is_cut(self):
        with pytest.warns(RefbertWarning, match="1 of 1 questions cut to 64 tokens"):
            (window,) = windows(TOKENIZER, [(passage(70), "cat")], max_length=80, doc_stride=2)
        assert len(window.encoding.input_ids) == 64 + 1 + 3

    @pytest.mark.parametrize(("question", "text", "length"), [("", "cat", 9), ("cat", "", 9), ("the cat", "cat", 5)])
    def test_mistakes(self, question, text, length):
        with pytest.raises(InputError):
            windows(TOKENIZER, [(question, text)], max_length=length, doc_stride=2)


def examples(n):
    encodings = TOKENIZER.encode([passage(1 + i % 5) for i in range(n)], max_length=16)
    return [Feature((e,), {"labels": i}) for i, e in enumerate(encodings)]


class TestEpochs:
    def test_every_example_once_an_epoch_in_another_order(self):
        source = Epochs(examples(10), TOKENIZER, batch_size=4, seed=3)
        assert source.updates == 3
        rounds = []
        for epoch in range(2):
            seen = [source.next(3 * epoch + i)[1]["labels"].tolist() for i in range(3)]
            assert [len(batch) for batch in seen] == [4, 4, 2]
            rounds.append([label for batch in seen for label in batch])
            assert sorted(rounds[-1]) == list(range(10))
        assert rounds[0] != rounds[1]
        assert rounds[0] != list(range(10))

    def test_any_batch_can_be_asked_for_again(self):
        source, other = (Epochs(examples(10), TOKENIZER, batch_size=4, seed=3) for _ in range(2))
        batches = [source.next(step) for step in range(7)]
        other.restore({"batches": 5})
        batch, labels = other.next(5)
        assert np.array_equal(batch.input_ids, batches[5][0].input_ids)
        assert np.array_equal(labels["labels"], batches[5][1]["labels"])
        assert source.state() == {"batches": 7}

    def test_padded_to_the_longest_of_the_batch(self):
        source = Epochs(examples(10), TOKENIZER, batch_size=2, seed=0)
        for step in range(5):
            batch, _ = source.next(step)
            assert batch.shape[1] == batch.lengths.max()


def test_words_and_answers_have_their_marks(tmp_path):
    """What is shown of a text is whole characters, as the people who wrote the answers did."""
    text = "the cat\u0301 sat"
    labels = {"num_labels": 2, "id2label": {0: "B-X", 1: "B-X"}}
    tagger = refbert.load(write_model(tmp_path / "tag", heads=("token_classification",), **labels))
    (found,) = tag(tagger, [text])
    assert found.tagged.words == ("the", "cat\u0301", "sat")
    assert [(e.text, text[e.start : e.stop]) for e in found.entities] == [(w, w) for w in found.tagged.words]
    reader = refbert.load(write_model(tmp_path / "answer", heads=("question_answering",)))
    (answered,) = answer(reader, [("a", text)], n_best=9)
    assert {a.text for a in answered.answers} <= {
        "the", "the cat\u0301", "the cat\u0301 sat", "cat\u0301", "cat\u0301 sat", "sat"
    }  # fmt: skip
