"""Text to ids, through the `tokenizers` library: WordPiece as in Devlin et al. 2019 §3.

    clean → space out CJK → split → lower-case and strip accents (uncased) → split off punctuation → greedy WordPiece
    [CLS] A [SEP]   or   [CLS] A [SEP] B [SEP], with segment 0 for the first and 1 for "B [SEP]"

A ``tokenizer.json`` is taken as it is, with two exceptions: its truncation and padding are switched off (refbert does
both itself, so that it can say what was cut), and where ``tokenizer_config.json`` states another casing, that wins, as
in Hugging Face transformers. Without one the tokenizer is built from ``vocab.txt`` and ``tokenizer_config.json``. At
which end texts are cut, and whether segments are told apart, is as either file says. Padding is always at the end,
where it changes nothing.

Google's releases have a ``vocab.txt`` alone, and their casing is the user's to know (run_classifier.py's
``--do_lower_case``, checked only against the names of the released models). Here the vocabulary tells: one with a
capital letter among its pieces was learned from cased text, since lower-casing could never produce that piece.

A special token that a text spells out, such as "[MASK]", is that token in both profiles; Google's own tokenizer would
split it into punctuation and a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from refbert.config import BertConfig
from refbert.config.profiles import HF, Profile
from refbert.errors import CheckpointError, InputError, TextError, TokenizerError, warn
from refbert.files.json import write_json
from refbert.files.reading import is_file
from refbert.files.writing import write_text
from refbert.text.added_tokens import add_stated, read_all_settings, stated
from refbert.text.batching import Batch, Text
from refbert.text.tokenizer_file import check_ids, library_call, read_tokenizer
from refbert.text.vocabulary import (
    FILE_ONLY,
    NORMALIZER,
    SPECIALS,
    apply_stated,
    build,
    check_settings,
    cut_side,
    has_segments,
    looks_cased,
    lower_first,
    read_vocabulary,
    require_wordpiece,
    special_tokens,
)

if TYPE_CHECKING:
    import tokenizers


@dataclass(frozen=True)
class Encoding:
    """One text, tokenized: ids, segments and tokens, [CLS] and [SEP] included, not padded.

    ``special_tokens_mask`` is 1 for the [CLS] and [SEP] that were added, 0 for what the text itself holds.
    """

    input_ids: tuple[int, ...]
    token_type_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    special_tokens_mask: tuple[int, ...]


class Tokenizer:
    """A BERT tokenizer; ``settings`` are those of the checkpoint's ``tokenizer_config.json``.

    unk_id, sep_id, pad_id, cls_id: the special tokens' ids. mask_token: how [MASK] is spelled.
    library: the `tokenizers` object underneath, for character offsets and for words that are split already. Its
    settings are every thread's: leave them as they are.

    Raises `TokenizerError` if the vocabulary lacks [UNK], [SEP], [PAD] or [CLS]. Nothing changes once it is made, so
    several threads may use one.
    """

    def __init__(self, inner: tokenizers.Tokenizer, settings: Mapping[str, Any] | None = None) -> None:
        self.settings = dict(settings or {})
        self.cut_side, self._segments = cut_side(inner, self.settings), has_segments(self.settings)
        inner.no_truncation()
        inner.no_padding()
        self.library = inner
        self._specials = special_tokens(self.settings)
        self._ids: dict[str, Any] = {role: inner.token_to_id(word) for role, word in self._specials.items()}
        for role in ("unk", "sep", "pad", "cls"):
            if self._ids[role] is None:
                raise TokenizerError(f"the vocabulary has no {self._specials[role]}, which BERT needs")
        self.unk_id, self.sep_id, self.pad_id, self.cls_id, _ = self._ids.values()
        self.mask_token = self._specials["mask"]

    @classmethod
    def from_directory(
        cls,
        directory: str | Path,
        *,
        profile: Profile = HF,
        config: BertConfig | None = None,
        lower_case_first: bool = False,
    ) -> Tokenizer:
        """Read ``tokenizer.json``, or else ``vocab.txt`` with ``tokenizer_config.json`` if that is there.

        Tokens that the files state besides are added (`added_tokens`). ``profile`` sets the longest word where
        the tokenizer is built from ``vocab.txt``. ``lower_case_first`` lower-cases texts before whatever the files say,
        as sentence-transformers' do_lower_case does. Raises `TokenizerError` if there is neither, if one cannot be
        read, if a special token is missing, if the files name a tokenizer that is not WordPiece, or if the vocabulary
        has more entries than ``config.vocab_size``.
        """
        directory = Path(directory)
        settings = read_all_settings(directory)
        if named := require_wordpiece(directory, settings):
            settings["tokenizer_class"] = named
        if is_file(source := directory / "tokenizer.json", TokenizerError):
            inner = read_tokenizer(source)
            apply_stated(inner, settings)
        elif is_file(source := directory / "vocab.txt", TokenizerError):
            vocabulary = read_vocabulary(source)
            if not is_file(directory / "tokenizer_config.json", TokenizerError):
                settings.setdefault("do_lower_case", not looks_cased(vocabulary))
            inner = build(vocabulary, settings, profile)
        else:
            raise TokenizerError(
                f"{directory}: no tokenizer.json and no vocab.txt, so text cannot be read; pass a Batch of input_ids"
            )
        if lower_case_first:
            lower_first(inner)
        try:
            add_stated(inner, settings)
            made = cls(inner, settings)
            if config is not None and made._exceeds(config.vocab_size):
                raise TokenizerError(
                    f"the vocabulary has {made.vocab_size} entries, the model {config.vocab_size} embeddings"
                )
        except TokenizerError as error:
            raise TokenizerError(f"{source}: {error}") from None
        return made

    @classmethod
    def from_vocabulary(
        cls, vocabulary: Sequence[str], *, settings: Mapping[str, Any] | None = None, profile: Profile = HF
    ) -> Tokenizer:
        """Build from a list of word pieces, where a piece's place is its id (its last place, if it is repeated).

        ``settings`` are ``tokenizer_config.json``'s: do_lower_case (default: true, as Hugging Face's), strip_accents
        (default: as do_lower_case), tokenize_chinese_chars (default: true), and the special tokens. ``profile`` sets
        the longest word that is not [UNK]. Raises `TokenizerError` if a special token is missing or a setting is of the
        wrong type.
        """
        check_settings(settings or {}, "settings")
        inner = build(vocabulary, settings or {}, profile)
        add_stated(inner, settings or {})
        return cls(inner, settings)

    # Vocabulary

    @cached_property
    def vocab_size(self) -> int:
        """The highest id plus one, added tokens included: how many rows the word embeddings need.

        Raises `TokenizerError` for an id that is out of all proportion to the number of entries.
        """
        # Ids may have gaps (a vocab.txt that repeats a line), so the highest counts, not how many there are.
        return check_ids(self.library.get_vocab(with_added_tokens=True))

    def _exceeds(self, embeddings: int) -> bool:
        """Whether there are ids from ``embeddings`` on: `vocab_size` takes 20 ms, a tenth of a first embedding.

        Where ids below have gaps, some beyond may be missed; `Batch.check` names such an id when it occurs.
        """
        return self.library.get_vocab_size() > embeddings or self.library.id_to_token(embeddings) is not None

    @property
    def mask_id(self) -> int:
        """The id of [MASK]; raises `TokenizerError` if the vocabulary has none."""
        if self._ids["mask"] is None:
            raise TokenizerError(f"the vocabulary has no {self.mask_token}")
        return int(self._ids["mask"])

    def token(self, token_id: int) -> str:
        """The token of an id; ids that only the model has (padding of the vocabulary) come back as ``[id]``."""
        return self.library.id_to_token(token_id) or f"[{token_id}]"

    def tokens(self, token_ids: Sequence[int]) -> list[str]:
        """The tokens of some ids."""
        return [self.token(int(i)) for i in token_ids]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Ids back to text, without special tokens; casing and spacing are lost where the vocabulary lost them."""
        with library_call("the tokens cannot be read back"):
            return str(self.library.decode([int(i) for i in token_ids]))

    # Text

    def encode(self, texts: Sequence[Text], *, max_length: int, truncate: bool = False) -> list[Encoding]:
        """Tokenize texts and pairs, special tokens added, none longer than ``max_length`` tokens.

        Raises `InputError` for something that is not text, and `TextError` for a text that is empty (or a side of it)
        or too long; with ``truncate=True`` the longer side is cut until the text fits, at its end (at its beginning
        where ``cut_side`` is "left"), and one `RefbertWarning` says how much went. A text counts as empty if nothing of
        it is left to read: white space, control characters. One of which nothing is known ([UNK] throughout) is
        tokenized, with a `RefbertWarning`.
        """
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise InputError(f"a list of texts is expected, not {type(texts).__name__}")
        items = [_check(number, text) for number, text in enumerate(texts)]
        with library_call("the texts cannot be tokenized"):
            encoded = self.library.encode_batch(items)
        for number, (item, e) in enumerate(zip(items, encoded, strict=True)):
            sides = {0} if isinstance(item, str) else {0, 1}
            if not sides <= set(e.sequence_ids):
                raise TextError(number, "is empty")
        long = [i for i, e in enumerate(encoded) if len(e.ids) > max_length]
        if long:
            if not truncate:
                tokens, advice = len(encoded[long[0]].ids), "shorten it, or have it cut (truncate=True, --truncate)"
                raise TextError(long[0], f"has {tokens:,} tokens, the limit is {max_length}: {advice}")
            encoded = self._cut(items, encoded, long, max_length)
        specials = {self._ids[role] for role in SPECIALS if role != "unk"}
        unknown = [i for i, e in enumerate(encoded) if set(e.ids) - specials == {self.unk_id}]
        if unknown:
            warn(
                f"nothing in {_count(len(unknown), 'text')} is in the vocabulary (first: text {unknown[0] + 1}): "
                f"every word is {self._specials['unk']}",
                stacklevel=3,
            )
        return [
            Encoding(tuple(e.ids), self.segments(e.type_ids), tuple(e.tokens), tuple(e.special_tokens_mask))
            for e in encoded
        ]

    def _cut(self, items: list[Text], encoded: list[Any], long: list[int], max_length: int) -> list[Any]:
        # The library's own truncation is a setting of the tokenizer: meanwhile other threads' texts would be cut, too.
        sides = {i: [text] if isinstance(text := items[i], str) else [*text] for i in long}
        for i, each in sides.items():
            needed = self.library.num_special_tokens_to_add(len(each) == 2) + len(each)  # one of each side stays
            if max_length < needed:
                raise InputError(f"text {i + 1} cannot be cut to {max_length} tokens: at least {needed} are needed")
        parts = iter(self.library.encode_batch([s for each in sides.values() for s in each], add_special_tokens=False))
        shorter = []
        for each in sides.values():
            first, second = next(parts), next(parts) if len(each) == 2 else None
            room = max_length - self.library.num_special_tokens_to_add(second is not None)
            if second is None:
                first.truncate(room, direction=self.cut_side)
            else:
                least = min(len(first.ids), len(second.ids), room // 2)
                first_is_longer = len(first.ids) > len(second.ids)
                first.truncate(room - least if first_is_longer else least, direction=self.cut_side)
                second.truncate(least if first_is_longer else room - least, direction=self.cut_side)
            shorter.append(self.library.post_process(first, second))
        lost = sum(len(encoded[i].ids) for i in long) - sum(len(e.ids) for e in shorter)
        warn(
            f"{_count(len(long), 'text')} cut to {max_length} tokens: {lost:,} tokens lost (first: text {long[0] + 1})",
            stacklevel=4,
        )
        cut = dict(zip(long, shorter, strict=True))
        return [cut.get(i, e) for i, e in enumerate(encoded)]

    def segments(self, type_ids: Sequence[int]) -> tuple[int, ...]:
        """The segments as the model is given them: all 0 where its settings say that it is given none."""
        return tuple(type_ids) if self._segments else (0,) * len(type_ids)

    def pad(self, encodings: Sequence[Encoding], *, length: int | None = None) -> Batch:
        """A Batch of the longest's length (or ``length``): padding has the id of [PAD], segment 0 and mask 0.

        Raises `InputError` if the longest does not fit.
        """
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

    def batch(
        self, texts: Sequence[Text], *, max_length: int, truncate: bool = False, pad_to: int | None = None
    ) -> Batch:
        """`encode`, then `pad` (to the longest text, or to ``pad_to`` tokens)."""
        return self.pad(self.encode(texts, max_length=max_length, truncate=truncate), length=pad_to)

    # Files

    def save(self, directory: str | Path) -> None:
        """Write tokenizer.json, vocab.txt and tokenizer_config.json: the same tokenizer for Hugging Face.

        transformers' BertTokenizer is built from the settings, so it is named only where that gives this tokenizer;
        otherwise (other longest word, other normalizer) the class is the one that reads tokenizer.json as it is. Each
        file is there whole or as it was before. Raises `CheckpointError` if it cannot be written.
        """
        directory = Path(directory)
        vocabulary = self.library.get_vocab(with_added_tokens=True)
        pieces = dict.fromkeys(range(self.vocab_size), "") | {i: piece for piece, i in vocabulary.items()}
        file = json.loads(self.library.to_str())
        normalizer = file["normalizer"] or {}
        plain = (
            normalizer.get("type") == "BertNormalizer"
            and normalizer["clean_text"]
            and (file["pre_tokenizer"] or {}).get("type") == "BertPreTokenizer"
            and file["model"].get("max_input_chars_per_word") == HF.max_chars_per_word
        )
        settings = {
            "tokenizer_class": "BertTokenizer" if plain else FILE_ONLY[0],
            "model_input_names": ["input_ids", *(["token_type_ids"] if self._segments else []), "attention_mask"],
            **({"truncation_side": "left"} if self.cut_side == "left" else {}),
            **({name: normalizer[theirs] for name, theirs in NORMALIZER.items()} if plain else {}),
            **{f"{role}_token": word for role, word in self._specials.items()},
            **stated(self.library, self._specials),
        }
        if "model_max_length" in self.settings:
            settings["model_max_length"] = self.settings["model_max_length"]
        write_text(directory / "tokenizer.json", self.library.to_str(pretty=True), CheckpointError)
        write_text(directory / "vocab.txt", "".join(f"{piece}\n" for piece in pieces.values()), CheckpointError)
        write_json(directory / "tokenizer_config.json", settings, CheckpointError)


def _check(number: int, text: object) -> Text:
    sides = (text,) if isinstance(text, str) else text
    if not isinstance(sides, tuple | list) or not 1 <= len(sides) <= 2 or not all(isinstance(s, str) for s in sides):
        raise InputError(f"text {number + 1} must be a string or a pair of strings, not {type(text).__name__}")
    for side in sides:
        try:
            side.encode()
        except UnicodeEncodeError as error:
            raise TextError(number, f"is not Unicode text: half a surrogate pair at {error.start}") from None
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
