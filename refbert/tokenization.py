"""Text to ids, through the `tokenizers` library: WordPiece as in Devlin et al. 2019 §3.

    clean → space out CJK → split → lower-case and strip accents (uncased) → split off punctuation → greedy WordPiece
    [CLS] A [SEP]   or   [CLS] A [SEP] B [SEP], with segment 0 for the first and 1 for "B [SEP]"

A ``tokenizer.json`` is taken as it is (its truncation and padding switched off: refbert does both itself, so that it
can say what was cut). Without one the tokenizer is built from ``vocab.txt`` and ``tokenizer_config.json``.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from refbert.batching import Batch
from refbert.config import BertConfig
from refbert.errors import InputError, RefbertWarning, TokenizerError
from refbert.profiles import HF, Profile

if TYPE_CHECKING:
    import tokenizers

Text = str | tuple[str, str]

# Role -> BERT's own spelling, used unless the checkpoint's files say otherwise.
SPECIALS = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}


@dataclass(frozen=True)
class Encoding:
    """One text, tokenized: ids, segments and tokens, [CLS] and [SEP] included, not padded."""

    input_ids: tuple[int, ...]
    token_type_ids: tuple[int, ...]
    tokens: tuple[str, ...]


class Tokenizer:
    """A BERT tokenizer; ``settings`` are those of the checkpoint's ``tokenizer_config.json``."""

    def __init__(self, inner: tokenizers.Tokenizer, settings: Mapping[str, Any] | None = None) -> None:
        inner.no_truncation()
        inner.no_padding()
        self._inner = inner
        self.settings = dict(settings or {})
        self._specials = {role: _content(self.settings.get(f"{role}_token")) or word for role, word in SPECIALS.items()}
        self._ids = {role: inner.token_to_id(word) for role, word in self._specials.items()}
        for role in ("unk", "sep", "pad", "cls"):
            if self._ids[role] is None:
                raise TokenizerError(f"the vocabulary has no {self._specials[role]}, which BERT needs")

    @classmethod
    def from_directory(
        cls, directory: str | Path, *, profile: Profile = HF, config: BertConfig | None = None
    ) -> Tokenizer:
        """Read ``tokenizer.json``, or else ``vocab.txt`` with ``tokenizer_config.json`` if that is there.

        Raises `TokenizerError` if there is neither, if one cannot be read, or if the vocabulary has more entries than
        ``config.vocab_size``.
        """
        directory = Path(directory)
        settings = _read_json(directory / "special_tokens_map.json") | _read_json(directory / "tokenizer_config.json")
        if (directory / "tokenizer.json").is_file():
            import tokenizers

            try:
                inner = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
            except Exception as error:  # noqa: BLE001 (the library raises nothing more specific)
                raise TokenizerError(f"{directory / 'tokenizer.json'}: cannot be read ({error})") from None
            made = cls(inner, settings)
        elif (directory / "vocab.txt").is_file():
            vocabulary = read_vocabulary(directory / "vocab.txt")
            made = cls.from_vocabulary(vocabulary, settings=settings, profile=profile)
        else:
            raise TokenizerError(
                f"{directory}: no tokenizer.json and no vocab.txt, so text cannot be read; pass a Batch of input_ids"
            )
        if config is not None and made.vocab_size > config.vocab_size:
            raise TokenizerError(
                f"{directory}: the vocabulary has {made.vocab_size} entries, the model {config.vocab_size} embeddings"
            )
        return made

    @classmethod
    def from_vocabulary(
        cls, vocabulary: Sequence[str], *, settings: Mapping[str, Any] | None = None, profile: Profile = HF
    ) -> Tokenizer:
        """Build from a list of word pieces, where a piece's place is its id.

        ``settings`` are ``tokenizer_config.json``'s: do_lower_case (default: true, as Hugging Face's), strip_accents
        (default: as do_lower_case), tokenize_chinese_chars (default: true), and the special tokens.
        """
        from tokenizers import AddedToken
        from tokenizers import Tokenizer as Inner
        from tokenizers.decoders import WordPiece as WordPieceDecoder
        from tokenizers.models import WordPiece
        from tokenizers.normalizers import BertNormalizer
        from tokenizers.pre_tokenizers import BertPreTokenizer
        from tokenizers.processors import BertProcessing

        settings = dict(settings or {})
        words = {role: _content(settings.get(f"{role}_token")) or word for role, word in SPECIALS.items()}
        ids = {piece: i for i, piece in enumerate(vocabulary)}
        for role in ("unk", "sep", "pad", "cls"):
            if words[role] not in ids:
                raise TokenizerError(f"the vocabulary has no {words[role]}, which BERT needs")
        inner = Inner(WordPiece(ids, unk_token=words["unk"], max_input_chars_per_word=profile.max_chars_per_word))
        inner.normalizer = BertNormalizer(
            clean_text=True,
            handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
            strip_accents=settings.get("strip_accents"),
            lowercase=bool(settings.get("do_lower_case", True)),
        )
        inner.pre_tokenizer = BertPreTokenizer()
        inner.post_processor = BertProcessing((words["sep"], ids[words["sep"]]), (words["cls"], ids[words["cls"]]))
        inner.decoder = WordPieceDecoder(prefix="##")
        inner.add_special_tokens([AddedToken(word, special=True) for word in words.values() if word in ids])
        return cls(inner, settings)

    # Vocabulary

    @property
    def vocab_size(self) -> int:
        """How many ids there are, added tokens included."""
        return int(self._inner.get_vocab_size(with_added_tokens=True))

    @property
    def mask_token(self) -> str:
        """The spelling of [MASK]."""
        return self._specials["mask"]

    @property
    def mask_id(self) -> int:
        """The id of [MASK]; raises `TokenizerError` if the vocabulary has none."""
        if self._ids["mask"] is None:
            raise TokenizerError(f"the vocabulary has no {self.mask_token}")
        return self._ids["mask"]

    @property
    def pad_id(self) -> int:
        """The id of [PAD]."""
        return self._known("pad")

    @property
    def cls_id(self) -> int:
        """The id of [CLS]."""
        return self._known("cls")

    @property
    def sep_id(self) -> int:
        """The id of [SEP]."""
        return self._known("sep")

    @property
    def unk_id(self) -> int:
        """The id of [UNK]."""
        return self._known("unk")

    def _known(self, role: str) -> int:
        found = self._ids[role]
        assert found is not None  # checked on construction
        return found

    def token(self, token_id: int) -> str:
        """The token of an id; ids that only the model has (padding of the vocabulary) come back as ``[id]``."""
        return self._inner.id_to_token(token_id) or f"[{token_id}]"

    def tokens(self, token_ids: Sequence[int]) -> list[str]:
        """The tokens of some ids."""
        return [self.token(int(i)) for i in token_ids]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Ids back to text, without special tokens; casing and spacing are lost where the vocabulary lost them."""
        return str(self._inner.decode([int(i) for i in token_ids]))

    # Text

    def encode(self, texts: Sequence[Text], *, max_length: int, truncate: bool = False) -> list[Encoding]:
        """Tokenize texts and pairs, special tokens added, none longer than ``max_length`` tokens.

        Raises `InputError` for something that is not text, an empty text (or side of a pair), or one that is too long;
        with ``truncate=True`` the longer side is cut at its end until the text fits, and one `RefbertWarning` says
        how much went. A text of which nothing is known ([UNK] throughout) is tokenized, with a `RefbertWarning`.
        """
        items = [_check(number, text) for number, text in enumerate(texts)]
        encoded = self._inner.encode_batch(items)
        long = [i for i, e in enumerate(encoded) if len(e.ids) > max_length]
        if long:
            if not truncate:
                i = long[0]
                raise InputError(
                    f"text {i + 1} has {len(encoded[i].ids):,} tokens, the limit is {max_length}: shorten it, or "
                    "have it cut (truncate=True, --truncate)"
                )
            encoded = self._cut(items, encoded, long, max_length)
        unknown = [i for i, e in enumerate(encoded) if self._nothing_known(e)]
        if unknown:
            warnings.warn(
                f"nothing in {_count(len(unknown), 'text')} is in the vocabulary (first: text {unknown[0] + 1}): "
                f"every token is {self._specials['unk']}",
                RefbertWarning,
                stacklevel=3,
            )
        return [Encoding(tuple(e.ids), tuple(e.type_ids), tuple(e.tokens)) for e in encoded]

    def _cut(self, items: list[Text], encoded: list[Any], long: list[int], max_length: int) -> list[Any]:
        pair = any(not isinstance(items[i], str) for i in long)
        needed = self._inner.num_special_tokens_to_add(pair) + 1
        if max_length < needed:
            raise InputError(f"{max_length} tokens leave no room for text beside the special tokens")
        self._inner.enable_truncation(max_length, strategy="longest_first")
        try:
            shorter = self._inner.encode_batch([items[i] for i in long])
        finally:
            self._inner.no_truncation()
        lost = sum(len(encoded[i].ids) for i in long) - sum(len(e.ids) for e in shorter)
        warnings.warn(
            f"{_count(len(long), 'text')} cut to {max_length} tokens: {lost:,} tokens lost (first: text {long[0] + 1})",
            RefbertWarning,
            stacklevel=4,
        )
        out = list(encoded)
        for i, e in zip(long, shorter, strict=True):
            out[i] = e
        return out

    def _nothing_known(self, encoding: Any) -> bool:
        words = [i for i, special in zip(encoding.ids, encoding.special_tokens_mask, strict=True) if not special]
        return bool(words) and all(i == self._ids["unk"] for i in words)

    def pad(self, encodings: Sequence[Encoding], *, length: int | None = None) -> Batch:
        """A Batch of the longest's length (or ``length``): padding has the id of [PAD], segment 0 and mask 0."""
        longest = max((len(e.input_ids) for e in encodings), default=1)
        S = longest if length is None else length
        if longest > S:
            raise InputError(f"cannot pad a text of {longest} tokens to {S}")
        ids = np.full((len(encodings), S), self.pad_id)
        types, mask = np.zeros_like(ids), np.zeros_like(ids)
        for row, e in enumerate(encodings):
            n = len(e.input_ids)
            ids[row, :n], types[row, :n], mask[row, :n] = e.input_ids, e.token_type_ids, 1
        return Batch(input_ids=ids, token_type_ids=types, attention_mask=mask)

    def batch(self, texts: Sequence[Text], *, max_length: int, truncate: bool = False) -> Batch:
        """`encode`, then `pad`."""
        return self.pad(self.encode(texts, max_length=max_length, truncate=truncate))

    # Files

    def save(self, directory: str | Path) -> None:
        """Write tokenizer.json, vocab.txt and tokenizer_config.json: the same tokenizer for Hugging Face."""
        directory = Path(directory)
        self._inner.save(str(directory / "tokenizer.json"))
        vocabulary = self._inner.get_vocab(with_added_tokens=True)
        pieces = sorted(vocabulary, key=vocabulary.__getitem__)
        (directory / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
        normalizer = json.loads(self._inner.to_str()).get("normalizer") or {}
        settings = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": normalizer.get("lowercase", True),
            "strip_accents": normalizer.get("strip_accents"),
            "tokenize_chinese_chars": normalizer.get("handle_chinese_chars", True),
            **{f"{role}_token": word for role, word in self._specials.items()},
        }
        if "model_max_length" in self.settings:
            settings["model_max_length"] = self.settings["model_max_length"]
        text = json.dumps(settings, indent=2, ensure_ascii=False)
        (directory / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def read_vocabulary(path: Path) -> list[str]:
    """``vocab.txt``: one piece a line, the line's number (from 0) its id. Raises `TokenizerError` for repetitions."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path}: cannot be read ({error})") from None
    pieces = [line.rstrip("\r") for line in lines]
    if pieces and not pieces[-1]:
        pieces.pop()
    seen: dict[str, int] = {}
    for number, piece in enumerate(pieces):
        if piece in seen:
            raise TokenizerError(f"{path}: lines {seen[piece] + 1} and {number + 1} are both {piece!r}")
        seen[piece] = number
    return pieces


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        source = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{path}: cannot be read ({error})") from None
    if not isinstance(source, dict):
        raise TokenizerError(f"{path}: a JSON object is expected")
    return source


def _content(token: object) -> str | None:
    """A special token as it is written: a string, or an object with its "content"."""
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _check(number: int, text: object) -> Text:
    sides = (text,) if isinstance(text, str) else text
    if not isinstance(sides, tuple | list) or not 1 <= len(sides) <= 2 or not all(isinstance(s, str) for s in sides):
        raise InputError(f"text {number + 1} must be a string or a pair of strings, not {type(text).__name__}")
    if any(not side.strip() for side in sides):
        raise InputError(f"text {number + 1} is empty")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
