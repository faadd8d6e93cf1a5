"""The vocabulary: the same for the same text, begins as BERT's do, and reads what it was learned from."""

from __future__ import annotations

import pydoc
import random

import pytest

from refbert.data import train_wordpiece
from refbert.data.store import tokenizer_fingerprint
from refbert.data.wordpiece import _repeated
from refbert.errors import InputError

# English and code: enough different words for many pairs that are equally frequent.
SENTENCES = [line for module in (pydoc, random) for line in (module.__doc__ or "").splitlines()] + [
    f"{name}: {value.__doc__}" for name, value in sorted(vars(str).items()) + sorted(vars(pydoc).items())
]


def pieces(tokenizer):
    return tokenizer.tokens(range(tokenizer.vocab_size))


@pytest.mark.parametrize("cased", [False, True])
def test_the_same_text_gives_the_same_vocabulary(cased):
    found = [pieces(train_wordpiece(iter(SENTENCES), size=700, cased=cased)) for _ in range(4)]
    assert len(found[0]) == 700
    assert all(other == found[0] for other in found)
    shuffled = random.Random(1).sample(SENTENCES, len(SENTENCES))
    assert pieces(train_wordpiece(shuffled, size=700, cased=cased)) == found[0]
    assert found[0][:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(set(found[0])) == 700
    assert ("A" in found[0]) == cased


def test_it_reads_what_it_was_learned_from():
    tokenizer = train_wordpiece(SENTENCES, size=700, cased=False)
    encoded = tokenizer.encode([s for s in SENTENCES if s.strip()], max_length=10**6)
    assert all(tokenizer.unk_id not in e.input_ids for e in encoded)
    few = train_wordpiece(["low lower lowest low low lower"] * 9, size=1000, cased=False)
    assert few.vocab_size < 40
    assert few.encode(["lower lowest"], max_length=99)[0].tokens[1:-1] == ("lower", "lowest")


def test_room_is_made_for_the_pieces_that_there_can_be():
    """The library allocates for the size that it is told, and ends the process where there is no such memory."""
    assert pieces(train_wordpiece(SENTENCES, size=10**12, cased=False)) == pieces(
        train_wordpiece(SENTENCES, size=10**5, cased=False)
    )


def test_it_is_saved_and_loaded(tmp_path):
    from refbert.text.tokenization import Tokenizer

    tokenizer = train_wordpiece(["Été Zürich, low lower"] * 3, size=100, cased=True)
    tokenizer.save(tmp_path)
    again = Tokenizer.from_directory(tmp_path)
    assert again.encode(["Été lower"], max_length=9) == tokenizer.encode(["Été lower"], max_length=9)
    assert "Z" in pieces(tokenizer)
    assert tokenizer.encode(["Zürich"], max_length=9)[0].tokens[1].startswith("Z")
    # A store made with the one is read with the other.
    assert tokenizer_fingerprint(again) == tokenizer_fingerprint(tokenizer)


def test_rare_characters_are_left_out(monkeypatch):
    import refbert.data.wordpiece as module

    monkeypatch.setattr(module, "_ALPHABET", 3)
    tokenizer = train_wordpiece(["aab abc abc", "abz q"], size=50, cased=False)
    assert not {"z", "q", "##z"} & set(pieces(tokenizer))
    assert tokenizer.encode(["aab abz"], max_length=9)[0].tokens[-2] == "[UNK]"


def test_each_chinese_character_that_stands_twice_is_a_piece():
    """There are more of them than the alphabet's thousand, and each is a word."""
    characters = [chr(0x4E00 + i) for i in range(3000)]
    rare = "龥"
    text = ["".join(characters), "".join(reversed(characters)), f"low lower lowest {rare}"]
    found = set(pieces(train_wordpiece(text, size=8000, cased=False)))
    assert found >= set(characters)
    assert not {rare, f"##{characters[0]}"} & found
    # Where there is no room for all, half of the vocabulary is the most frequent ones.
    frequent = ["".join(characters[:500])] * 2
    few = set(pieces(train_wordpiece(text + frequent, size=2000, cased=False)))
    assert few >= set(characters[:500])
    assert 900 < len(few & set(characters)) <= 1000


def test_long_words_are_not_held_a_thousand_times():
    """A Parquet file of 100 KB can hold one word of 1,000 letters a million times."""
    words = {"a" * 1000: 5001, "b" * 200_000: 3, "c": 100_000}
    texts = list(_repeated(words))
    assert sum(map(len, texts)) == sum((len(word) + 1) * count for word, count in words.items())
    assert max(len(text) for text in texts if "b" not in text) <= 2**16
    assert [text for text in texts if "b" in text] == ["b" * 200_000 + " "] * 3


def test_what_is_more_frequent_is_learned_first():
    sentences = ["zq"] * 3000 + ["ab"] * 2000
    assert pieces(train_wordpiece(sentences, size=12, cased=False))[5:] == ["a", "b", "q", "z", "##b", "##q", "zq"]


def test_chinese_and_punctuation_stand_alone():
    found = pieces(train_wordpiece(["我喜欢苹果。 (low)-lower"] * 2, size=100, cased=False))
    assert {"我", "果", "。", "(", "-"} <= set(found)
    assert not {"##喜", "##-", "##)"} & set(found)


def test_input_that_cannot_be():
    with pytest.raises(InputError, match="no text to learn"):
        train_wordpiece(["", " \n"], size=100, cased=False)
    with pytest.raises(InputError, match=r"a vocabulary of 20 is too small: .* are \d+$"):
        train_wordpiece(SENTENCES, size=20, cased=False)
