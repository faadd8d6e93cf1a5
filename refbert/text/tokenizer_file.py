"""tokenizer.json: read by the `tokenizers` library, and taken only if what it describes ends.

The library builds whatever pipeline the file describes, and some take forever: a regular expression that backtracks, a
replacement that doubles the text forty times, a word of any length looked up piece by piece. Others abort the process
or panic, which reaches Python as an exception that is none of `Exception`. BERT's own pipeline has none of these. What
is taken here are the parts whose work grows with the text alone, and regular expressions of a plain kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refbert.errors import RefbertError, TokenizerError
from refbert.files.json import parse_json
from refbert.files.reading import read_bytes

if TYPE_CHECKING:
    import tokenizers

# Looking up a word's pieces takes its length squared; Hugging Face's limit is 100 characters, Google's 200.
_LONGEST_WORD = 1000
_LONGEST_PREFIX = 16  # of a piece that continues a word: "##"
_MOST_SPECIALS = 64  # that are put around a text or a pair: [CLS] and two [SEP]
# Ids beyond the number of entries: a vocab.txt that repeats lines leaves gaps, and so does one filled up to a multiple.
_MOST_GAPS = 1 << 16
# Looking at every id takes a tenth of a first embedding; a number of seven digits is worth it.
_LARGE = re.compile(rb":\s*[0-9]{7}")
_LONGEST_FILE = 1 << 28  # bytes; multilingual BERT's has 3 MB

_PARTS = frozenset(
    {
        "BertNormalizer", "Lowercase", "StripAccents", "Strip", "NFC", "NFD", "NFKC", "NFKD", "Nmt",
        "BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits", "UnicodeScripts",
        "CharDelimiterSplit", "Metaspace", "ByteLevel",
        "WordPiece", "BPEDecoder", "ByteFallback", "Fuse", "CTC",
    }
)  # fmt: skip


@contextmanager
def library_call(what: object) -> Iterator[None]:
    """Turn whatever the `tokenizers` library raises inside the block, panics too, into a `TokenizerError`."""
    try:
        yield
    except (RefbertError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 (the library raises nothing more specific)
        raise TokenizerError(f"{what}: {error}") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(f"{what}: the tokenizers library gave up ({error})") from None


def read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """The library's tokenizer; raises `TokenizerError` if it cannot be read, or may not come to an end."""
    import tokenizers

    content = read_bytes(path, TokenizerError, most=_LONGEST_FILE)
    with library_call(f"{path}: cannot be read"):
        inner = tokenizers.Tokenizer.from_buffer(content)
    kind = type(inner.model).__name__
    if kind != "WordPiece":
        raise TokenizerError(f"{path}: its model is {kind}; refbert reads WordPiece alone")
    if _LARGE.search(content):
        try:
            check_ids(inner.get_vocab(with_added_tokens=True))
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from None
    for part in (inner.normalizer, inner.pre_tokenizer, inner.decoder):
        if part is not None:
            with library_call(f"{path}: cannot be read"):
                described = part.__getstate__()
            _check_part(parse_json(described, path, TokenizerError), path)
    longest = getattr(inner.model, "max_input_chars_per_word", 0)
    if longest > _LONGEST_WORD:
        raise TokenizerError(f"{path}: max_input_chars_per_word is {longest:,}; at most {_LONGEST_WORD:,} is taken")
    if len(getattr(inner.model, "continuing_subword_prefix", None) or "") > _LONGEST_PREFIX:
        raise TokenizerError(f"{path}: continuing_subword_prefix is longer than {_LONGEST_PREFIX} characters")
    unknown = getattr(inner.model, "unk_token", None)
    if unknown is not None and inner.token_to_id(unknown) is None:
        raise TokenizerError(f"{path}: the vocabulary has no {unknown}, which stands for unknown words")
    added = inner.num_special_tokens_to_add(True)
    if added > _MOST_SPECIALS:
        raise TokenizerError(
            f"{path}: puts {added:,} tokens around a pair of texts; at most {_MOST_SPECIALS} are taken"
        )
    return inner


def check_ids(vocabulary: Mapping[str, int]) -> int:
    """The highest id plus one; raises `TokenizerError` for one that so few entries cannot have: lists of as many places
    are made of it, here and in the library, which aborts the process where they do not fit."""
    piece, highest = max(vocabulary.items(), key=lambda item: item[1])
    if highest >= 2 * len(vocabulary) + _MOST_GAPS:
        raise TokenizerError(f'"{piece}" has the id {highest:,} in a vocabulary of {len(vocabulary):,} entries')
    return 1 + highest


def _check_part(part: Mapping[str, Any], path: Path) -> None:
    kind = part.get("type")
    if kind == "Sequence":
        for name in ("normalizers", "pretokenizers", "decoders"):
            for inner in part.get(name, ()):
                _check_part(inner, path)
        return
    if kind in _PARTS:
        return
    pattern = part.get("pattern")
    if isinstance(pattern, Mapping) and kind in ("Split", "Replace"):
        text, expression = pattern.get("String"), pattern.get("Regex")
        if text and len(part.get("content", "")) <= len(text):
            return
        if expression is not None and kind == "Split":
            if _ends(expression):
                return
            raise TokenizerError(
                f"{path}: splits texts by {expression!r}, which may take forever: a repeated group, a reference back, "
                "or repeats and choices in a row"
            )
    raise TokenizerError(f"{path}: has a {kind}, which refbert does not take: it may grow a text or take forever")


# Not an escape of one character: a reference or a call, and a control character, which takes what follows with it.
_ESCAPES = re.compile(r"\\[pP]\{[^}]*\}|\\[^\dkgcCM]")
_CLASSES = re.compile(r"\[[^\]]*\]")
# References back, calls, control characters.
_MORE = re.compile(r"\\[\dkgcCM]")
# Comments, conditions, absence, flags that change what the rest means; and what repeats a repeat, as {1,3}+ does too.
_NEVER = re.compile(r"\(\?(?:[#(~&>]|[A-Za-z-]*x)|\)(?:[*+]|\{)|[*+?][?+]?+[*+?{]|\}\??[*+{]")
_PIECES = re.compile(r"\(\??|(?:[*+]|\{[^}]*\})[?+]?|\?[?+]?|.", re.DOTALL)
_EXACT = re.compile(r"\{(\d{1,3})\}\??")
# Ways to match, a repeat counted as 8, though it has as many as the text is long: "a?(b|c)d*" has 2 · 2 · 8.
_MOST_WAYS = 256
_REPEAT = 8


@dataclass
class _Group:
    """ways, repeats: of the alternative that is being read. before: the ways of those before it. most: their repeats,
    at most."""

    ways: int = 1
    repeats: int = 0
    before: int = 0
    most: int = 0

    def close(self) -> None:
        """The alternative has ended."""
        self.before, self.most = self.before + self.ways, max(self.most, self.repeats)
        self.ways, self.repeats = 1, 0


def _ends(expression: str) -> bool:
    """Whether a regular expression is of a kind that takes no more at any place of a text than the text's length, times
    `_MOST_WAYS`: one repeat in a row, or a second at the end, behind which nothing can fail."""
    escaped = _ESCAPES.sub("e", expression)
    plain = _CLASSES.sub("c", escaped)
    if _MORE.search(escaped) or _NEVER.search(plain):
        return False
    groups = [_Group()]
    for piece in _PIECES.findall(plain):
        here = groups[-1]
        if here.repeats == 2 and (piece != "|" or len(groups) > 1):
            return False
        if piece == "|":
            here.close()
        elif piece[0] == "(":
            groups.append(_Group())
        elif piece == ")" and len(groups) > 1:
            here.close()
            groups.pop()
            groups[-1].ways *= here.before
            groups[-1].repeats += here.most
            if groups[-1].repeats == 2:
                return False
        elif piece[0] == "?":
            here.ways *= 2
        elif exact := _EXACT.fullmatch(piece):
            here.ways *= max(1, int(exact[1]))
        elif piece[0] in "*+{":
            here.ways *= _REPEAT
            here.repeats += 1
            if here.repeats == 2 and (piece[0] == "{" or len(groups) > 1):
                return False
        if groups[-1].ways > _MOST_WAYS:
            return False
    return True
