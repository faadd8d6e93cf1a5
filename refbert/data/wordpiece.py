"""A WordPiece vocabulary from sentences, trained by the `tokenizers` library; the same text gives the same vocabulary.

Source   Devlin et al. 2019 §3 names WordPiece (Wu et al. 2016) and publishes no trainer; the library's counts pairs as
         byte-pair encoding does (Sennrich et al. 2016).

The library numbers the "##" characters in the order of a hash table, which changes from run to run and decides between
pairs that are equally frequent. So words are counted here, and the characters handed over in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from refbert.errors import InputError
from refbert.text.tokenization import Tokenizer
from refbert.text.vocabulary import SPECIALS

# As Google's released vocabularies begin, but for their unused entries.
_SPECIALS = tuple(SPECIALS[role] for role in ("pad", "unk", "cls", "sep", "mask"))
_ALPHABET = 1000  # characters kept, the most frequent; a word with another is [UNK] (the library's default for BERT)
_FEWEST = 2  # a piece stands in the text at least so often
_TOGETHER = 2**16  # characters in one call of the library, which holds some hundred of them


def train_wordpiece(sentences: Iterable[str], *, size: int, cased: bool) -> Tokenizer:
    """A tokenizer with at most ``size`` pieces; a small corpus gives fewer.

    Sentences are read once, one at a time; the distinct words are held. Raises `InputError` if there are none, or if
    ``size`` has no room for the special tokens and the single characters.
    """
    from tokenizers import Tokenizer as Inner
    from tokenizers import models, pre_tokenizers, trainers

    words = _count_words(sentences, cased)
    if not words:
        raise InputError("no text to learn a vocabulary from")
    frequency: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            frequency[character] += count
    alphabet = {*_most_frequent(frequency)[:_ALPHABET], *_words_of_one_character(words)[: size // 2]}
    kept = {word: count for word, count in words.items() if alphabet.issuperset(word)}
    inside = {character for word in kept for character in word[1:]}
    first = [*_SPECIALS, *sorted(alphabet), *(f"##{character}" for character in sorted(inside))]
    if size < len(first):
        raise InputError(
            f"a vocabulary of {size} is too small: the special tokens and the single characters are {len(first)}"
        )
    inner = Inner(models.WordPiece(unk_token=SPECIALS["unk"]))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # There can be no more pieces than that, and the library makes room at once for as many as it is told.
    size = min(size, len(first) + sum(map(len, kept)))
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=first, min_frequency=_FEWEST, show_progress=False
    )
    inner.train_from_iterator(_repeated(kept), trainer)
    found = inner.get_vocab(with_added_tokens=True)
    vocabulary = sorted(found, key=found.__getitem__)
    return Tokenizer.from_vocabulary(vocabulary, settings={"do_lower_case": not cased})


def _most_frequent(counts: Counter[str]) -> list[str]:
    """All of them, the most frequent first, equals in their order."""
    return sorted(counts, key=lambda key: (-counts[key], key))


def _words_of_one_character(words: Counter[str]) -> list[str]:
    """Words of one character, which a tokenizer that splits at Chinese characters makes of each of them.

    Chinese text has some thousands, and each is a piece of the vocabulary like any other word, without a "##" form.
    """
    return _most_frequent(Counter({word: n for word, n in words.items() if len(word) == 1 and n >= _FEWEST}))


def _count_words(sentences: Iterable[str], cased: bool) -> Counter[str]:
    """What BERT's tokenizer looks up in the vocabulary: normalized, split at white space and around punctuation."""
    from tokenizers import normalizers, pre_tokenizers

    normalizer = normalizers.BertNormalizer(lowercase=not cased)
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    rough: Counter[str] = Counter()
    for text in _joined(sentences):
        rough.update(normalizer.normalize_str(text).split())
    words: Counter[str] = Counter()
    for word, count in rough.items():
        if word.isascii() and word.isalnum():
            words[word] += count
        else:
            for part, _ in split(word):
                words[part] += count
    return words


def _joined(sentences: Iterable[str]) -> Iterator[str]:
    part: list[str] = []
    size = 0
    for sentence in sentences:
        part.append(sentence)
        size += len(sentence)
        if size >= _TOGETHER:
            yield "\n".join(part)
            part, size = [], 0
    yield "\n".join(part)


def _repeated(words: dict[str, int]) -> Iterator[str]:
    """Each word as often as it was counted, in texts of at most `_TOGETHER` characters, or of one word."""
    for word, count in words.items():
        some = max(1, _TOGETHER // (len(word) + 1))
        for start in range(0, count, some):
            yield f"{word} " * min(some, count - start)
