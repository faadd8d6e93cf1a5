"""Sentence pairs, against the original's rules on lists of tokens, draw by draw."""

from __future__ import annotations

import numpy as np
import pytest
from corpora import DYNAMIC, documents_of, small_tokenizer, store_of, within
from original import instances, truncate

from refbert.data.draws import Draws
from refbert.data.pairs import _shortened, examples
from refbert.data.settings import Pretraining
from refbert.errors import InputError

GOOGLE = Pretraining()


class Recorded(Draws):
    """The coins that were tossed, and the ends of cuts from a stream of their own."""

    def __init__(self, *key):
        super().__init__(*key)
        self.uniforms = []
        self._other = Draws("ends", *key)

    def uniform(self):
        self.uniforms.append(super().uniform())
        return self.uniforms[-1]

    def between(self, low, high):
        return low + int(super().uniform() * (high - low + 1))

    def heads(self, tosses):
        return self._other.heads(tosses)

    # What the restatement calls them.
    random, randint = uniform, between


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


@pytest.fixture(scope="module")
def typical(tmp_path_factory, tokenizer):
    """Documents of 1 to 40 sentences of 5 to 45 tokens."""
    documents = documents_of(400, seed=1, sentences=(1, 40), tokens=(5, 45))
    return documents, store_of(tmp_path_factory.mktemp("typical"), documents, tokenizer)


def tokens(store, start, stop):
    return store.ids(start, stop).tolist()


@pytest.mark.parametrize("length", [5, 16, 64, 128, 512])
@pytest.mark.parametrize("short", [0.0, 0.1, 1.0])
def test_every_choice_is_the_originals(typical, tokenizer, length, short):
    texts, store = typical
    documents = [[[tokenizer.library.token_to_id(w) for w in s.split()] for s in document] for document in texts]
    settings = Pretraining(short_sequence_probability=short)
    compared = 0
    for index in range(0, len(documents), 4 if length > 5 else 16):
        expected = instances(documents, index, length, short, Recorded(index), coin=lambda: True)
        found = examples(store, index, length, settings, Recorded(index))
        assert len(found) == len(expected)
        for ours, (a, b, label) in zip(found, expected, strict=True):
            assert (ours.a_stop - ours.a_start, ours.b_stop - ours.b_start) == (len(a), len(b))
            assert ours.label == label
            if len(a) + len(b) < length - 3:  # nothing was cut
                assert (tokens(store, ours.a_start, ours.a_stop), tokens(store, ours.b_start, ours.b_stop)) == (a, b)
            compared += 1
    assert compared > 100


def test_what_is_cut_is_cut_as_the_original_does():
    for n_a in range(1, 30):
        for n_b in range(1, 30):
            for room in (2, 7, 20, 40):
                a, b = list(range(n_a)), list(range(n_b))
                truncate(a, b, room, lambda: True)
                (a0, a1), (b0, b1) = _shortened((0, n_a), (100, 100 + n_b), room, Draws(n_a, n_b, room))
                assert (a1 - a0, b1 - b0) == (len(a), len(b)), (n_a, n_b, room)
                assert 0 <= a0 < a1 <= n_a
                assert 100 <= b0 < b1 <= 100 + n_b


def test_each_cut_token_goes_at_a_random_end():
    front = sum(_shortened((0, 100), (0, 100), 125, Draws("ends", k))[0][0] for k in range(1000))
    assert within(front, 37 * 1000, 0.5)  # 75 go: 38 of B, which is cut first, and 37 of A


def test_half_are_random_where_a_coin_decides_and_more_than_half_in_all(typical):
    _, store = typical
    coins, labels = [], []
    for key in range(3):
        for document in range(store.documents):
            draws = Recorded("nsp", key, document)
            found = examples(store, document, 128, GOOGLE, draws)
            coins += [u < 0.5 for u in draws.uniforms[1:]]  # the first: a short sequence or not
            labels += [example.label for example in found]
    forced = len(labels) - len(coins)
    assert forced > 0
    assert within(sum(coins), len(coins), 0.5)
    assert sum(labels) == sum(coins) + forced  # one-sentence chunks are random, whatever the coin would say
    share = sum(labels) / len(labels)
    print(f"random by the coin {sum(coins) / len(coins):.3f}, in all {share:.3f} of {len(labels)}")
    assert 0.5 < share < 0.6


def test_documents_of_two_short_sentences_have_two_thirds_random(tmp_path, tokenizer):
    """With probability ½ one pair that follows; else two random ones, since the second sentence is put back."""
    store = store_of(tmp_path, documents_of(3000, seed=2, sentences=(2, 2), tokens=(3, 8)), tokenizer)
    made = [examples(store, d, 64, DYNAMIC, Draws(d)) for d in range(store.documents)]
    whole = [found for found in made if len(found) == 1]
    # A short target (5 % of documents aim at under 30 tokens) may split them; that only adds random ones.
    settings = Pretraining(profile="dynamic", short_sequence_probability=0.0)
    made = [examples(store, d, 64, settings, Draws(d)) for d in range(store.documents)]
    whole = [found for found in made if len(found) == 1]
    assert within(len(whole), len(made), 0.5)
    assert all(found[0].label == 0 for found in whole)
    assert all([e.label for e in found] == [1, 1] for found in made if len(found) > 1)


def test_documents_of_one_sentence_are_all_random(tmp_path, tokenizer):
    store = store_of(tmp_path, documents_of(200, seed=3, sentences=(1, 1)), tokenizer)
    for settings in (GOOGLE, DYNAMIC):
        assert {e.label for d in range(200) for e in examples(store, d, 64, settings, Draws(d))} == {1}


def test_a_random_part_is_of_another_document(tmp_path, tokenizer):
    """Always under the dynamic profile; the original gives up after ten tries, one in 1,024 of two documents."""
    store = store_of(tmp_path, documents_of(2, seed=4, sentences=(30, 30), own=True), tokenizer)
    same = {GOOGLE.profile: 0, "dynamic": 0}
    drawn = 0
    for settings in (GOOGLE, DYNAMIC):
        for key in range(400):
            for example in examples(store, 0, 32, settings, Draws(key)):
                a, b = (tokens(store, *span)[0] for span in (example[:2], example[2:4]))
                assert (a == b) or example.label == 1
                if example.label == 1:
                    drawn += settings.profile == "google"
                    same[settings.profile] += a == b
    assert same["dynamic"] == 0
    assert within(same["google"], drawn, 0.5**10)


@pytest.mark.parametrize("profile", ["google", "dynamic"])
def test_a_random_part_is_of_a_document_nearby(tmp_path, tokenizer, profile):
    """Of ten documents each with words of its own: those within two, at the ends too, and all of them."""
    store = store_of(tmp_path, documents_of(10, seed=4, sentences=(12, 12), own=True), tokenizer)
    settings = Pretraining(profile=profile, random_within=2)
    starts = [int(store.boundaries(*store.document(d))[0]) for d in range(10)]
    for document, nearby in ((0, {1, 2}), (5, {3, 4, 6, 7}), (9, {7, 8})):
        found = set()
        for key in range(60):
            for example in examples(store, document, 32, settings, Draws(key)):
                if example.label == 1:
                    found.add(int(np.searchsorted(starts, example.b_start, side="right")) - 1)
        assert found - {document} == nearby
        if profile == "dynamic":
            assert document not in found


def test_nearby_is_at_least_one_document():
    with pytest.raises(InputError, match="random_within must be 1 or more, not 0"):
        Pretraining(random_within=0)


def test_the_original_tries_ten_times(tmp_path, tokenizer):
    class Own(Draws):
        """Always the first: this very document."""

        asked = 0

        def between(self, low, high):
            self.asked += high == 1  # of two documents
            return low

    store = store_of(tmp_path, [["w0 w0"], ["w1 w1 w1"]], tokenizer)
    draws = Own("own")
    settings = Pretraining(short_sequence_probability=0.0)
    (example,) = examples(store, 0, 32, settings, draws)
    assert draws.asked == 10
    assert tokens(store, *example[:2]) == tokens(store, *example[2:4])


def test_every_sentence_is_an_a_or_follows_one(tmp_path, tokenizer):
    """Nothing is lost: where nothing is cut, the document's own parts, in order, are the document."""
    store = store_of(tmp_path, documents_of(50, seed=5, tokens=(1, 5)), tokenizer)
    for d in range(50):
        first, last = store.document(d)
        place = int(store.boundaries(first, last)[0])
        for e in examples(store, d, 512, DYNAMIC, Draws(d)):
            if e.a_stop - e.a_start + e.b_stop - e.b_start == 509:
                break
            assert e.a_start == place
            place = e.a_stop
            if e.label == 0:
                assert e.b_start == place
                place = e.b_stop
        else:
            assert place == store.boundaries(first, last)[-1]


def test_without_next_sentence_there_is_one_segment_of_whole_sentences(typical):
    _, store = typical
    settings = Pretraining(next_sentence=False, short_sequence_probability=0.0)
    for d in range(0, 400, 7):
        first, last = store.document(d)
        chunks = [[]]
        for size in np.diff(store.boundaries(first, last)).tolist():
            if sum(chunks[-1]) >= 126:
                chunks.append([])
            chunks[-1].append(size)
        found = examples(store, d, 128, settings, Draws(d))
        assert [e.a_stop - e.a_start for e in found] == [min(126, sum(chunk)) for chunk in chunks]
        assert all(e.b_start == e.b_stop for e in found)
