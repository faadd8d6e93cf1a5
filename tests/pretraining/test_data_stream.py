"""The stream: layout of a batch, one seed one stream, resumed anywhere, every document once a round."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from corpora import DYNAMIC, documents_of, small_tokenizer, store_of

import refbert.data.stream as stream
from refbert.data import Phase, Pretraining, PretrainingSource, paper_phases
from refbert.errors import InputError

GOOGLE = Pretraining(dupe_factor=3)
PHASES = (Phase(12, 32, 7), Phase(4, 64, 5))
IGNORE = -100


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


@pytest.fixture(scope="module")
def store(tmp_path_factory, tokenizer):
    """Document d is made of the word wd alone."""
    documents = documents_of(70, seed=1, sentences=(1, 5), tokens=(2, 12), own=True)
    return store_of(tmp_path_factory.mktemp("stream"), documents, tokenizer)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(stream, "CHUNK", 16)


def source_of(store, tokenizer, *, seed=1, phases=PHASES, settings=DYNAMIC):
    return PretrainingSource(store, tokenizer, seed=seed, phases=phases, settings=settings)


def arrays(step):
    batch, labels = step
    return {"ids": batch.input_ids, "types": batch.token_type_ids, "mask": batch.attention_mask} | labels


def same(a, b):
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a)


def uncovered(step):
    """The ids before masking."""
    batch, labels = step
    return np.where(labels["labels"] == IGNORE, batch.input_ids, labels["labels"])


@pytest.mark.parametrize("settings", [GOOGLE, DYNAMIC, Pretraining(profile="dynamic", next_sentence=False)])
def test_layout(store, tokenizer, settings):
    source = source_of(store, tokenizer, settings=settings)
    for step in range(16):
        made = source.next(step)
        batch, labels = made
        assert batch.shape == labels["labels"].shape == ((7, 32) if step < 12 else (5, 64))
        assert ("next_sentence_label" in labels) == settings.next_sentence
        ids = uncovered(made)
        for row in range(len(ids)):
            n = int(batch.attention_mask[row].sum())
            assert batch.attention_mask[row, :n].all()
            ends = np.flatnonzero(ids[row] == tokenizer.sep_id).tolist()
            assert len(ends) == (2 if settings.next_sentence else 1)
            assert ends[-1] == n - 1
            assert ids[row, 0] == tokenizer.cls_id
            assert (ids[row, n:] == tokenizer.pad_id).all()
            second = np.zeros(len(ids[row]), dtype=int)
            if settings.next_sentence:
                second[ends[0] + 1 : n] = 1
            assert np.array_equal(batch.token_type_ids[row], second)
            hidden = labels["labels"][row] != IGNORE
            assert hidden.any()
            assert not hidden[[0, *ends]].any()
            assert not hidden[n:].any()
            if settings.next_sentence:
                a, b = ids[row, 1], ids[row, ends[0] + 1]
                assert (ids[row, 1 : ends[0]] == a).all()  # one document's word
                if settings.profile == "dynamic":
                    assert (a != b) == labels["next_sentence_label"][row]
                else:
                    assert a == b or labels["next_sentence_label"][row] == 1


@pytest.mark.parametrize("settings", [GOOGLE, DYNAMIC])
def test_one_seed_one_stream(store, tokenizer, settings):
    a, b, c = (source_of(store, tokenizer, seed=s, settings=settings) for s in (1, 1, 2))
    differ = 0
    for step in range(20):
        one, two, other = (arrays(s.next(step)) for s in (a, b, c))
        assert same(one, two)
        differ += not same(one, other)
    assert differ == 20
    assert a.fingerprint == b.fingerprint != c.fingerprint


@pytest.mark.parametrize("settings", [GOOGLE, DYNAMIC])
def test_resumed_at_any_step_it_goes_on_bitwise(store, tokenizer, settings):
    """Within chunks, at their ends, across rounds (about 20 batches each) and phases."""
    phases = (Phase(45, 32, 7), Phase(10, 64, 5))
    whole = source_of(store, tokenizer, phases=phases, settings=settings)
    states, made = [], []
    for step in range(60):
        states.append(json.dumps(whole.state()))
        made.append(arrays(whole.next(step)))
    seen = [json.loads(state) for state in states]
    assert max(s["round"] for s in seen) >= 2
    assert len({(s["round"], s["chunk"]) for s in seen}) > 10
    assert sum(s["offset"] > 0 for s in seen) > 40
    for step in range(59):
        resumed = source_of(store, tokenizer, phases=phases, settings=settings)
        resumed.restore(json.loads(states[step]))
        assert same(arrays(resumed.next(step)), made[step])
        assert same(arrays(resumed.next(step + 1)), made[step + 1])
    # And back again, in one source.
    whole.restore(json.loads(states[33]))
    assert same(arrays(whole.next(33)), made[33])


def test_another_seed_hides_other_tokens(tmp_path, tokenizer):
    store = store_of(tmp_path, documents_of(70, seed=3, sentences=(1, 1), tokens=(20, 20), own=True), tokenizer)
    settings = Pretraining(profile="dynamic", next_sentence=False, short_sequence_probability=0.0)
    hidden = []
    for seed in (1, 2):
        made = source_of(store, tokenizer, seed=seed, settings=settings, phases=(Phase(1, 32, 70),)).next(0)
        hidden.append(dict(zip(uncovered(made)[:, 1].tolist(), made[1]["labels"] != IGNORE, strict=True)))
    assert len(hidden[0]) == 70
    # Three of 20 tokens: 1,140 ways.
    assert sum(np.array_equal(hidden[0][word], hidden[1][word]) for word in hidden[0]) < 3


def rounds_of(store, tokenizer, settings, rounds):
    """Each round's examples, as bytes; read one at a time."""
    source = source_of(store, tokenizer, settings=settings, phases=(Phase(1, 32, 1),))
    out = [[] for _ in range(rounds)]
    step = number = 0
    while number < rounds:
        out[number].append(b"".join(array.tobytes() for array in arrays(source.next(step)).values()))
        step += 1
        turned = source.state()  # the position turns when the next example is asked for, so look one ahead
        source.next(step)
        number = source.state()["round"]
        source.restore(turned)
    return out


def test_google_repeats_after_dupe_factor_rounds_in_another_order(store, tokenizer):
    rounds = rounds_of(store, tokenizer, GOOGLE, 7)
    for r in range(4):
        assert sorted(rounds[r]) == sorted(rounds[r + 3])
        assert rounds[r] != rounds[r + 3]
    for a, b in itertools.combinations(range(3), 2):
        assert not set(rounds[a]) & set(rounds[b])


def test_dynamic_never_repeats(store, tokenizer):
    rounds = rounds_of(store, tokenizer, DYNAMIC, 7)
    for a, b in itertools.combinations(rounds, 2):
        # Documents of four tokens have few different masks; the rounds are others all the same.
        assert len(set(a) & set(b)) < len(a) / 10


@pytest.mark.parametrize("settings", [GOOGLE, DYNAMIC])
def test_a_round_shows_every_document_once(tmp_path, tokenizer, settings):
    store = store_of(tmp_path, documents_of(70, seed=2, sentences=(1, 1), tokens=(3, 9), own=True), tokenizer)
    source = source_of(store, tokenizer, settings=settings, phases=(Phase(1, 32, 7),))
    orders = []
    for r in range(3):
        words = [uncovered(source.next(step))[:, 1].tolist() for step in range(r * 10, r * 10 + 10)]
        orders.append(list(itertools.chain(*words)))
        assert len(set(orders[-1])) == 70
    assert orders[0] != orders[1] != orders[2]
    # Not only within chunks: other documents share a chunk.
    assert len({frozenset(order[:16]) for order in orders}) == 3


def test_what_decides_is_in_the_fingerprint(store, tokenizer, tmp_path):
    def fingerprint(**changes):
        return source_of(store, tokenizer, **changes).fingerprint

    long, short = PHASES
    different = [
        fingerprint(),
        fingerprint(seed=2),
        fingerprint(settings=GOOGLE),
        fingerprint(settings=Pretraining(profile="dynamic", rate=0.2)),
        fingerprint(phases=(long,)),
        fingerprint(phases=(Phase(13, 32, 7), short)),
        fingerprint(phases=(Phase(12, 32, 6), short)),
        fingerprint(phases=(long, Phase(4, 63, 5))),
        source_of(store_of(tmp_path, documents_of(70, seed=9), tokenizer), tokenizer).fingerprint,
    ]
    assert len(set(different)) == len(different)
    # A run may go on for longer: the last phase's steps decide nothing.
    assert fingerprint(phases=(long, Phase(400, 64, 5))) == fingerprint()


def test_the_last_phase_goes_on(store, tokenizer):
    source = source_of(store, tokenizer, phases=(Phase(1, 32, 3), Phase(1, 64, 2)))
    assert [source.next(step)[0].shape for step in range(4)] == [(3, 32), (2, 64), (2, 64), (2, 64)]
    # The second phase has begun a round of its own.
    assert source.state() == {"step": 4, "phase": 1, "round": 0, "chunk": 0, "offset": 6}
    with pytest.raises(ValueError, match="step 4 is next"):
        source.next(6)


def test_the_papers_phases():
    short, long = Phase(1, 128, 256), Phase(1, 512, 64)
    assert paper_phases(1000, short=short, long=long) == (Phase(900, 128, 256), Phase(100, 512, 64))
    assert paper_phases(1, short=short, long=long) == (Phase(1, 128, 256),)


def test_input_that_cannot_be(store, tokenizer, tmp_path):
    one = store_of(tmp_path / "one", documents_of(1, seed=1, sentences=(9, 9)), tokenizer)
    few = store_of(tmp_path / "few", documents_of(3, seed=1, sentences=(1, 1)), tokenizer)
    for message, make in {
        "the corpus is one document": lambda: source_of(one, tokenizer),
        "gives 3 examples of up to 32 tokens, fewer than a batch of 7": lambda: source_of(few, tokenizer),
        "made with another tokenizer": lambda: source_of(store, small_tokenizer(400)),
        "at least one phase": lambda: source_of(store, tokenizer, phases=()),
        "at least 5 tokens": lambda: Phase(1, 4, 1),
        "at least one step": lambda: Phase(0, 32, 1),
        "place in the data is damaged": lambda: source_of(store, tokenizer).restore({"step": 3}),
        "profile must be google or dynamic": lambda: Pretraining(profile="other"),
        "rate must be from 0 to 1": lambda: Pretraining(rate=1.5),
        "dupe_factor must be 1 or more": lambda: Pretraining(dupe_factor=0),
        "max_predictions must be 1 or more": lambda: Pretraining(max_predictions=0),
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            make()
        assert "\n" not in str(caught.value)
    # One document is enough where nothing is taken from another.
    settings = Pretraining(next_sentence=False)
    assert source_of(one, tokenizer, settings=settings, phases=(Phase(1, 32, 2),)).next(0)[0].shape == (2, 32)
