"""google-research/bert: tokenization.py, as refbert's tokenizer does it with small vocabularies."""

from __future__ import annotations

from collections.abc import Sequence

from refbert.config.profiles import get_profile
from refbert.data.store import encode_sentences
from refbert.text.tokenization import Tokenizer
from refbert_audit import Value, Values

SPECIALS = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")


def pieces(text: str, vocabulary: Sequence[str], *, profile: str = "google", lower: bool = True) -> list[str]:
    """The pieces of a text under a vocabulary, [CLS] and [SEP] taken off."""
    made = Tokenizer.from_vocabulary(
        [*SPECIALS, *vocabulary], settings={"do_lower_case": lower}, profile=get_profile(profile)
    )
    (encoded,) = made.encode([text], max_length=512)
    return list(encoded.tokens[1:-1])


def google_tokenizer_own_test() -> Values:
    """Google's own test, [PAD] added behind its vocabulary."""
    vocabulary = ["[UNK]", "[CLS]", "[SEP]", "want", "##want", "##ed", "wa", "un", "runn", "##ing", ",", "[PAD]"]
    (encoded,) = Tokenizer.from_vocabulary(vocabulary).encode(["UNwant\u00e9d,running"], max_length=16)
    yield Value("ids", encoded.input_ids[1:-1], [7, 4, 5, 10, 8, 9])
    yield Value("pieces", encoded.tokens[1:-1], ["un", "##want", "##ed", ",", "runn", "##ing"])


def google_tokenizer_greedy() -> Values:
    """A word that several cuts fit."""
    yield Value("abcd", pieces("abcd", ["a", "ab", "abc", "##d", "##cd", "##bcd"]), ["abc", "##d"])


def google_tokenizer_unknown() -> Values:
    """A word whose beginning is known and whose end is not; and one that the greedy cut leads into a dead end."""
    yield Value("abz", pieces("ab abz", ["ab", "##z1"]), ["ab", "[UNK]"])
    yield Value("abc, cut as ab + c", pieces("abc", ["ab", "a", "##bc"]), ["[UNK]"])


def google_tokenizer_chinese() -> Values:
    """Characters in a row and between letters."""
    yield Value("我喜欢ab苹果", pieces("我喜欢ab苹果", [*"我喜欢苹果", "ab", "苹果"]), [*"我喜欢", "ab", *"苹果"])


def google_tokenizer_japanese() -> Values:
    """Kana and Hangul in a row."""
    yield Value("かな 한국", pieces("かな 한국", ["かな", "한국"], lower=False), ["かな", "한국"])


def google_tokenizer_accents() -> Values:
    """Résumé, composed and decomposed, under both kinds of vocabulary."""
    words = ["resume", "R\u00e9sum\u00e9"]
    uncased = [pieces(text, words)[0] for text in ("R\u00e9sum\u00e9", "Re\u0301sume\u0301")]
    yield Value("uncased", uncased, ["resume", "resume"])
    yield Value("cased", pieces("R\u00e9sum\u00e9", words, lower=False), ["R\u00e9sum\u00e9"])


def google_tokenizer_punctuation() -> Values:
    """Signs within words."""
    yield Value("a$b^c-d…", pieces("a$b^c-d…", [*"abcd$^-…"]), [*"a$b^c-d…"])


def google_tokenizer_cleaning() -> Values:
    """A word with a NUL, a bell and a replacement character in it; a tab, a line break and a no-break space."""
    yield Value("pieces", pieces("a\x00b\x07\ufffdc\td\ne\u00a0f", ["abc", *"def"]), ["abc", "d", "e", "f"])


def google_tokenizer_long_words() -> Values:
    """The longest row of a's that is not [UNK], in both profiles."""

    def longest(profile: str) -> int:
        return max(n for n in (99, 100, 101, 199, 200, 201) if pieces("a" * n, ["a", "##a"], profile=profile)[0] == "a")

    yield Value("characters, google", longest("google"), 200, claimed=201, by="refbert, profile google")
    yield Value("characters, hf", longest("hf"), 100, claimed=201, by="refbert, profile hf")


def google_tokenizer_mask_literal() -> Values:
    """As refbert reads text for the model, and as it reads a corpus for pretraining, which is Google's way."""
    made = Tokenizer.from_vocabulary([*SPECIALS, "[", "]", "mask", "a"])
    (text,) = made.encode(["a [MASK]"], max_length=16)
    (corpus,) = encode_sentences(made, ["a [MASK]"])
    yield Value("in a text", text.tokens[1:-1], ["a", "[MASK]"])
    yield Value("in a corpus", made.tokens(corpus), ["a", "[", "mask", "]"], claimed=["a", "[MASK]"])


def google_tokenizer_sigma() -> Values:
    """ΟΔΟΣ: Python's rule, which Google uses, makes the last letter ς; the tokenizers library makes it σ."""
    ours = pieces("ΟΔΟΣ", ["οδος", "οδοσ"])
    yield Value("Python", "ΟΔΟΣ".lower(), "οδος", by="Python")
    yield Value("refbert", ours, ["οδοσ"], claimed=["οδος"])


def google_tokenizer_pairs() -> Values:
    """Six and two words in eight places."""
    made = Tokenizer.from_vocabulary([*SPECIALS, *"abcdefgh"])
    (encoded,) = made.encode([("a b c d e f", "g h")], max_length=8, truncate=True)
    yield Value("tokens", encoded.tokens, ["[CLS]", "a", "b", "c", "[SEP]", "g", "h", "[SEP]"])
