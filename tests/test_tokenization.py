"""Text to ids: Google's own facts, and every kind of text that is refused, cut or warned about."""

from __future__ import annotations

import threading
import time
import warnings

import numpy as np
import pytest
from vocabularies import CHINESE, SPECIAL

from refbert.config.profiles import GOOGLE, HF
from refbert.errors import InputError, RefbertWarning, TokenizerError
from refbert.text.tokenization import Tokenizer

PIECES = [*SPECIAL, "the", "a", "cat", "sat", "##s", "."]
TOKENIZER = Tokenizer.from_vocabulary(PIECES)
WARN = RefbertWarning


def tokens(tokenizer, text, max_length=512):
    return list(tokenizer.encode([text], max_length=max_length)[0].tokens)


def made(words, **settings):
    return Tokenizer.from_vocabulary([*SPECIAL, *words], settings=settings)


class TestGooglesTests:
    """What google-research/bert's tokenization_test.py asserts ([PAD] is added at the end: BERT needs one)."""

    VOCABULARY = ("[UNK]", "[CLS]", "[SEP]", "want", "##want", "##ed", "wa", "un", "runn", "##ing", ",", "[PAD]")

    def test_full(self):
        ids = Tokenizer.from_vocabulary(self.VOCABULARY).encode(["UNwant\u00e9d,running"], max_length=512)[0].input_ids
        assert ids == (1, 7, 4, 5, 10, 8, 9, 2)

    def test_lower_case(self):
        lower = made(["hello", "!", "how", "are", "you", "?"], do_lower_case=True)
        assert tokens(lower, " \tHeLLo!how  \n Are yoU?  ")[1:-1] == ["hello", "!", "how", "are", "you", "?"]
        assert tokens(lower, "H\u00e9llo")[1:-1] == ["hello"]

    def test_case_kept(self):
        cased = made(["HeLLo", "!", "how", "Are", "yoU", "?"], do_lower_case=False)
        assert tokens(cased, " \tHeLLo!how  \n Are yoU?  ")[1:-1] == ["HeLLo", "!", "how", "Are", "yoU", "?"]

    def test_chinese(self):
        assert tokens(made(["ah", "博", "推", "zz"]), "ah博推zz")[1:-1] == ["ah", "博", "推", "zz"]

    def test_one_unknown_piece_makes_the_word_unknown(self):
        wordpiece = Tokenizer.from_vocabulary(self.VOCABULARY, settings={"do_lower_case": False})
        assert tokens(wordpiece, "unwantedX running")[1:-1] == ["[UNK]", "runn", "##ing"]


def test_each_chinese_character_is_a_token():
    chinese = Tokenizer.from_vocabulary(CHINESE)
    expected = ["[CLS]", *"我喜欢吃苹果", "[SEP]"]
    assert tokens(chinese, "我喜欢吃苹果") == tokens(chinese, "我 喜欢 吃 苹果") == expected
    assert len(expected) == 8


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"do_lower_case": True}, ["cafe"]),
        ({"do_lower_case": False}, ["Café"]),
        ({"do_lower_case": True, "strip_accents": False}, ["café"]),
        ({"do_lower_case": False, "strip_accents": True}, ["Cafe"]),
    ],
)
def test_casing_and_accents(settings, expected):
    tokenizer = made(["cafe", "Café", "café", "Cafe"], **settings)
    assert tokens(tokenizer, "Café")[1:-1] == expected


def test_chinese_spacing_can_be_switched_off():
    words = ["苹果", "苹", "果"]
    assert tokens(made(words), "苹果")[1:-1] == ["苹", "果"]
    assert tokens(made(words, tokenize_chinese_chars=False), "苹果")[1:-1] == ["苹果"]


@pytest.mark.parametrize(("profile", "longest"), [(HF, 100), (GOOGLE, 200)])
def test_the_longest_word(profile, longest):
    tokenizer = Tokenizer.from_vocabulary([*SPECIAL, "a", "##a"], profile=profile)
    assert len(tokens(tokenizer, "a" * longest)) == longest + 2
    assert tokens(tokenizer, "a " + "a" * (longest + 1)) == ["[CLS]", "a", "[UNK]", "[SEP]"]


@pytest.mark.parametrize("profile", [HF, GOOGLE])
def test_mask_spelled_out_is_the_mask_token(profile):
    tokenizer = Tokenizer.from_vocabulary([*PIECES, "[", "]", "mask"], profile=profile)
    encoding = tokenizer.encode(["the [MASK] sat"], max_length=9)[0]
    assert encoding.tokens == ("[CLS]", "the", "[MASK]", "sat", "[SEP]")
    assert encoding.input_ids[2] == tokenizer.mask_id == 4
    assert encoding.special_tokens_mask == (1, 0, 0, 0, 1)


def test_a_pair_has_two_segments():
    encoding = TOKENIZER.encode([("the cat", "a cat sat.")], max_length=9)[0]
    assert encoding.tokens == ("[CLS]", "the", "cat", "[SEP]", "a", "cat", "sat", ".", "[SEP]")
    assert encoding.token_type_ids == (0, 0, 0, 0, 1, 1, 1, 1, 1)
    assert encoding.special_tokens_mask == (1, 0, 0, 1, 0, 0, 0, 0, 1)


class TestTooLong:
    def test_exactly_the_limit_is_not_too_long(self):
        assert len(tokens(TOKENIZER, "a cat sat", max_length=5)) == 5

    def test_is_an_error_that_names_the_text_its_length_and_the_limit(self):
        says = r"text 2 has 6 tokens, the limit is 5: shorten it, or have it cut \(truncate=True, --truncate\)"
        with pytest.raises(InputError, match=says):
            TOKENIZER.encode(["a cat", "a cat sat."], max_length=5)

    def test_is_cut_at_its_end_where_asked_with_one_warning(self):
        texts = ["a cat sat.", "the cat", "the cat sat the cat"]
        with pytest.warns(WARN) as seen:
            cut = TOKENIZER.encode(texts, max_length=5, truncate=True)
        assert [e.tokens[1:-1] for e in cut] == [("a", "cat", "sat"), ("the", "cat"), ("the", "cat", "sat")]
        assert {(e.tokens[0], e.tokens[-1]) for e in cut} == {("[CLS]", "[SEP]")}
        assert [str(w.message) for w in seen] == ["2 texts cut to 5 tokens: 3 tokens lost (first: text 1)"]

    def test_the_longer_side_of_a_pair_is_cut(self):
        with pytest.warns(WARN, match="6 tokens lost"):
            cut = TOKENIZER.encode([("the cat", "a a a a a a a a")], max_length=7, truncate=True)[0]
        assert cut.tokens == ("[CLS]", "the", "cat", "[SEP]", "a", "a", "[SEP]")
        assert cut.token_type_ids == (0, 0, 0, 0, 1, 1, 1)

    @pytest.mark.parametrize("lengths", [(1, 9), (9, 1), (4, 4), (5, 5), (4, 5), (5, 4), (3, 30), (30, 29)])
    @pytest.mark.parametrize("limit", [5, 6, 7, 8, 10])
    def test_what_stays_is_what_the_library_keeps(self, lengths, limit):
        def text(n):
            return " ".join(["a", "cat", "sat", "the"][i % 4] for i in range(n))

        pair = (text(lengths[0]), text(lengths[1]))
        library = Tokenizer.from_vocabulary(PIECES).library
        library.enable_truncation(limit, strategy="longest_first")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cut = TOKENIZER.encode([pair, text(1), pair[0] + " cat" * 9], max_length=limit, truncate=True)
        for ours, given in zip(cut, (pair, text(1), pair[0] + " cat" * 9), strict=True):
            theirs = library.encode(*([given] if isinstance(given, str) else given))
            for name, value in (("ids", "input_ids"), ("type_ids", "token_type_ids"), ("tokens", "tokens"),
                                ("special_tokens_mask", "special_tokens_mask")):  # fmt: skip
                assert list(getattr(ours, value)) == getattr(theirs, name)

    def test_one_thread_cuts_nothing_of_anothers(self):
        text, lengths = "a cat sat. " * 40, []

        def cut():
            for _ in range(150):
                TOKENIZER.encode([text], max_length=9, truncate=True)

        def whole():
            for _ in range(150):
                lengths.append(len(TOKENIZER.encode([text], max_length=512)[0].input_ids))
                lengths.append(len(TOKENIZER.encode([text, "a cat"], max_length=512)[0].input_ids))

        everyone = [threading.Thread(target=work) for work in (cut, whole, cut, whole)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for one in everyone:
                one.start()
            for one in everyone:
                one.join(60)
        assert set(lengths) == {162}
        assert len(lengths) == 600

    def test_no_side_is_cut_away(self):
        with pytest.raises(InputError, match="text 1 cannot be cut to 4 tokens: at least 5 are needed"):
            TOKENIZER.encode([("the cat", "a cat")], max_length=4, truncate=True)
        with pytest.raises(InputError, match="text 1 cannot be cut to 2 tokens: at least 3"):
            TOKENIZER.encode(["the cat"], max_length=2, truncate=True)
        with pytest.warns(WARN, match="cut"):
            assert len(TOKENIZER.encode([("the cat", "a cat")], max_length=5, truncate=True)[0].tokens) == 5

    def test_one_cut_does_not_shorten_the_next_call(self):
        with pytest.warns(WARN, match="cut"):
            TOKENIZER.encode(["a cat sat."], max_length=4, truncate=True)
        assert len(tokens(TOKENIZER, "a cat sat.")) == 6

    def test_nothing_is_said_where_nothing_is_cut(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            TOKENIZER.encode(["a cat sat."], max_length=6, truncate=True)

    @pytest.mark.parametrize(
        "text", ["a " * 50_000, "猫" * 100_000, "a" * 100_000 + " a" * 600], ids=["words", "cjk", "1"]
    )
    def test_a_hundred_thousand_characters(self, text):
        start = time.perf_counter()
        with pytest.raises(InputError, match=r"has [\d,]+ tokens, the limit is 512"):
            TOKENIZER.encode([text], max_length=512)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", WARN)
            assert len(TOKENIZER.encode([text], max_length=512, truncate=True)[0].input_ids) == 512
        # It takes a fraction of a second; minutes would be a search that is quadratic in the text.
        assert time.perf_counter() - start < 30


class TestRefused:
    @pytest.mark.parametrize("empty", ["", " ", "\n\t", "\u00a0", "\u2028", "\u200b", "\x00", "\ufffd", "\u0301"])
    def test_nothing_to_read(self, empty):
        with pytest.raises(InputError, match="^text 3 is empty$"):
            TOKENIZER.encode(["a", "cat", empty], max_length=9)
        for pair in ((empty, "a"), ("a", empty)):
            with pytest.raises(InputError, match="^text 1 is empty$"):
                TOKENIZER.encode([pair], max_length=9)

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            (None, "NoneType"),
            (5, "int"),
            (b"a", "bytes"),
            (("a", "b", "c"), "tuple"),
            ((), "tuple"),
            (("a", 5), "tuple"),
        ],
    )
    def test_not_text(self, text, named):
        with pytest.raises(InputError, match=f"text 2 must be a string or a pair of strings, not {named}"):
            TOKENIZER.encode(["a", text], max_length=9)

    @pytest.mark.parametrize("texts", ["the cat", 5, None])
    def test_not_a_list(self, texts):
        with pytest.raises(InputError, match="a list of texts is expected"):
            TOKENIZER.encode(texts, max_length=9)

    def test_half_a_surrogate_pair(self):
        with pytest.raises(InputError, match="text 1 is not Unicode text: half a surrogate pair at 4"):
            TOKENIZER.encode(["the \ud800 cat"], max_length=9)


class TestUnknown:
    @pytest.mark.parametrize("text", ["zzz", "zzz qqq", "zzz [MASK]", ("zzz", "qqq")])
    def test_nothing_known_is_tokenized_with_a_warning(self, text):
        with pytest.warns(
            WARN, match=r"nothing in 1 text is in the vocabulary \(first: text 2\): every word is \[UNK\]"
        ):
            encodings = TOKENIZER.encode(["cat", text], max_length=9)
        assert "[UNK]" in encodings[1].tokens

    @pytest.mark.parametrize("text", ["zzz cat", "[MASK]", ("zzz", "cat")])
    def test_something_known_is_not_warned_about(self, text):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            TOKENIZER.encode([text], max_length=9)


class TestBatch:
    def test_padding(self):
        batch = TOKENIZER.batch(["the cat sat.", ("a", "cat")], max_length=9)
        assert batch.input_ids.tolist() == [[2, 5, 7, 8, 10, 3], [2, 6, 3, 7, 3, 0]]
        assert batch.token_type_ids.tolist() == [[0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0]]
        assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]]

    def test_the_padding_token_is_the_vocabularys(self):
        batch = Tokenizer.from_vocabulary(["a", "[UNK]", "[CLS]", "[SEP]", "[PAD]"]).batch(["a a", "a"], max_length=9)
        assert batch.input_ids.tolist() == [[2, 0, 0, 3], [2, 0, 3, 4]]

    def test_a_fixed_length(self):
        assert TOKENIZER.batch(["the cat"], max_length=9, pad_to=9).shape == (1, 9)
        with pytest.raises(InputError, match="cannot pad a text of 4 tokens to 3"):
            TOKENIZER.batch(["the cat"], max_length=9, pad_to=3)

    def test_truncation_is_passed_on(self):
        with pytest.warns(WARN, match="cut"):
            assert TOKENIZER.batch(["the cat sat."], max_length=4, truncate=True).shape == (1, 4)

    def test_no_texts(self):
        assert TOKENIZER.batch([], max_length=9).shape == (0, 1)


class TestVocabulary:
    def test_ids_and_tokens(self):
        assert (TOKENIZER.pad_id, TOKENIZER.unk_id, TOKENIZER.cls_id, TOKENIZER.sep_id) == (0, 1, 2, 3)
        assert TOKENIZER.vocab_size == len(PIECES)
        assert TOKENIZER.token(9) == "##s"
        assert TOKENIZER.tokens(np.array([7, 9])) == ["cat", "##s"]
        assert TOKENIZER.decode([2, 5, 7, 9, 8, 10, 3]) == "the cats sat."

    def test_an_id_that_only_the_model_has(self):
        assert TOKENIZER.token(len(PIECES)) == "[11]"

    @pytest.mark.parametrize("missing", ["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    def test_a_missing_special_token(self, missing):
        with pytest.raises(TokenizerError, match=rf"the vocabulary has no \{missing[:-1]}\], which BERT needs"):
            Tokenizer.from_vocabulary([piece for piece in PIECES if piece != missing])

    def test_a_vocabulary_without_mask_reads_text_all_the_same(self):
        tokenizer = Tokenizer.from_vocabulary([piece for piece in PIECES if piece != "[MASK]"])
        assert tokens(tokenizer, "the cat") == ["[CLS]", "the", "cat", "[SEP]"]
        with pytest.raises(TokenizerError, match=r"no \[MASK\]"):
            _ = tokenizer.mask_id

    def test_other_spellings_of_the_special_tokens(self):
        spelled = {"cls_token": "<s>", "sep_token": {"content": "</s>"}, "mask_token": "<mask>"}
        tokenizer = Tokenizer.from_vocabulary(["[PAD]", "[UNK]", "<s>", "</s>", "<mask>", "cat"], settings=spelled)
        assert tokens(tokenizer, "cat <mask>") == ["<s>", "cat", "<mask>", "</s>"]
        assert (tokenizer.mask_token, tokenizer.mask_id, tokenizer.cls_id) == ("<mask>", 4, 2)
