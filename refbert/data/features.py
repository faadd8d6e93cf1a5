"""Make features of texts: encodings with labels, for single tokens and for answers as well.

Tags      the label is on the first piece of each word, IGNORE on the rest (Devlin et al. 2019 §5.3).
Answers   a passage longer than the model is read in windows that overlap; an answer that a window does not hold whole
          is put on [CLS] there, as is "no answer" (§4.3, and Google's run_squad.py).
Choices   every choice is a row [CLS] text [SEP] choice [SEP]; C rows belong to one label (§4.4).
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.errors import InputError, TextError, warn
from refbert.ops.cross_entropy import IGNORE
from refbert.text.batching import Batch
from refbert.text.tokenization import Encoding, Tokenizer
from refbert.text.tokenizer_file import library_call

# Google's max_query_length: questions are cut to that many tokens.
MAX_QUESTION = 64


@dataclass(frozen=True)
class Feature:
    """One labelled example: its rows (several for choices), and its labels by name.

    A number; one number a token, as a tuple; or a list of 0 and 1, one for each class.
    """

    rows: tuple[Encoding, ...]
    labels: Mapping[str, int | float | tuple[int, ...] | list[int]]


def collate(features: Sequence[Feature], tokenizer: Tokenizer) -> tuple[Batch, dict[str, Host]]:
    """Pad a batch to its longest row; its labels are [B] or [B, K], or [B, S] with IGNORE for the padding."""
    batch = tokenizer.pad([row for feature in features for row in feature.rows])
    S = batch.input_ids.shape[1]
    labels: dict[str, Host] = {}
    for name in features[0].labels:
        values: list[Any] = [feature.labels[name] for feature in features]
        if isinstance(values[0], tuple):
            array = np.full((len(values), S), IGNORE, dtype=np.int64)
            for row, value in enumerate(values):
                array[row, : len(value)] = value
            labels[name] = array
        else:
            labels[name] = np.array(values, dtype=np.float64 if isinstance(values[0], float) else np.int64)
    return batch, labels


# Tags


@dataclass(frozen=True)
class Words:
    """A sentence's encoding, and where each word's first piece is; None for a word that was cut or has no piece."""

    encoding: Encoding
    firsts: tuple[int | None, ...]


def encode_words(tokenizer: Tokenizer, sentences: Sequence[Sequence[str]], *, max_length: int) -> list[Words]:
    """Encode sentences that are split into words; cut what is over ``max_length`` tokens, with a `RefbertWarning`.

    Raises `InputError` if no word fits.
    """
    library, room = tokenizer.library, max_length - 2
    if room < 1:
        raise InputError(f"{max_length} tokens are too few for [CLS], a word and [SEP]")
    with library_call("the sentences cannot be tokenized"):
        encoded = library.encode_batch([list(s) for s in sentences], is_pretokenized=True, add_special_tokens=False)
    out: list[Words] = []
    cut = lost = lost_words = 0
    for words, bare in zip(sentences, encoded, strict=True):
        if len(bare.ids) > room:
            cut, lost = cut + 1, lost + len(bare.ids) - room
            bare.truncate(room, direction=tokenizer.cut_side)
        e = library.post_process(bare)
        firsts: list[int | None] = [None] * len(words)
        for place, word in enumerate(e.word_ids):
            if word is not None and firsts[word] is None:
                firsts[word] = place
        lost_words += firsts.count(None)
        encoding = Encoding(tuple(e.ids), tuple(e.type_ids), tuple(e.tokens), tuple(e.special_tokens_mask))
        out.append(Words(encoding, tuple(firsts)))
    if cut:
        warn(f"{cut:,} of {len(out):,} sentences cut to {max_length} tokens: {lost:,} tokens lost", stacklevel=2)
    if lost_words:
        warn(
            f"{lost_words:,} words have no token (cut off, or nothing but control characters): their tags are not "
            "learned and are taken to be O",
            stacklevel=2,
        )
    return out


def tag_features(sentences: Sequence[Words], tags: Sequence[Sequence[int]]) -> list[Feature]:
    """One label for each token: the word's on its first piece, IGNORE elsewhere."""
    out = []
    for words, numbers in zip(sentences, tags, strict=True):
        labels = [IGNORE] * len(words.encoding.input_ids)
        for first, number in zip(words.firsts, numbers, strict=True):
            if first is not None:
                labels[first] = number
        out.append(Feature((words.encoding,), {"labels": tuple(labels)}))
    return out


# Answers


@dataclass(frozen=True)
class Window:
    """A part of the passage behind the whole question: [CLS] question [SEP] part [SEP].

    question: which of the questions. first: the row's position of the part's first token. start: that token's place in
    the passage. offsets: of each token of the part, its first character in the passage and the one after its last.
    ends: the latter again, behind the combining marks that follow and were stripped: an answer's text has them.
    central: whether no other window shows more of what surrounds the token; its answers are read there alone.
    """

    question: int
    encoding: Encoding
    first: int
    start: int
    offsets: tuple[tuple[int, int], ...]
    ends: tuple[int, ...]
    central: tuple[bool, ...]


def windows(
    tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], *, max_length: int, doc_stride: int
) -> list[Window]:
    """Cut (question, passage) pairs into windows, each ``doc_stride`` tokens after the last, until the passage ends.

    Raises `TextError` for a question or a passage without a token, and for a question that leaves no room for one;
    `InputError` for a ``doc_stride`` below 1.
    """
    if doc_stride < 1:
        raise InputError(f"doc_stride must be 1 or more, not {doc_stride}")
    library = tokenizer.library
    distinct = list(dict.fromkeys(passage for _, passage in pairs))
    with library_call("the questions and passages cannot be tokenized"):
        questions = library.encode_batch([question for question, _ in pairs], add_special_tokens=False)
        passages = dict(zip(distinct, library.encode_batch(distinct, add_special_tokens=False), strict=True))
    specials = (tokenizer.cls_id, tokenizer.sep_id)
    cls, sep = tokenizer.tokens(specials)
    out: list[Window] = []
    long = 0
    for number, ((_, passage), question) in enumerate(zip(pairs, questions, strict=True)):
        context = passages[passage]
        for what, e in (("question", question), ("passage", context)):
            if not e.ids:
                raise TextError(number, "is empty" if what == "question" else "has an empty passage", "question")
        asked = min(len(question.ids), MAX_QUESTION)
        long += asked < len(question.ids)
        room = max_length - asked - 3
        if room < 1:
            raise TextError(number, f"({asked} tokens) leaves no room for a passage in {max_length}", "question")
        spans = _spans(len(context.ids), room, doc_stride)
        central = _most_central(len(context.ids), spans)
        ends = whole_ends(passage, context.offsets)
        for index, (start, stop) in enumerate(spans):
            ids = [specials[0], *question.ids[:asked], specials[1], *context.ids[start:stop], specials[1]]
            out.append(
                Window(
                    question=number,
                    encoding=Encoding(
                        input_ids=tuple(ids),
                        token_type_ids=tokenizer.segments((0,) * (asked + 2) + (1,) * (stop - start + 1)),
                        tokens=(cls, *question.tokens[:asked], sep, *context.tokens[start:stop], sep),
                        special_tokens_mask=(1, *(0,) * asked, 1, *(0,) * (stop - start), 1),
                    ),
                    first=asked + 2,
                    start=start,
                    offsets=tuple(context.offsets[start:stop]),
                    ends=tuple(ends[start:stop]),
                    central=tuple(central[i] == index for i in range(start, stop)),
                )
            )
    if long:
        warn(f"{long:,} of {len(pairs):,} questions cut to {MAX_QUESTION} tokens", stacklevel=2)
    return out


def _spans(length: int, room: int, stride: int) -> list[tuple[int, int]]:
    """[start, stop) of each window of ``room`` tokens. A stride longer than the room would leave gaps: it is cut."""
    spans = [(0, min(length, room))]
    while spans[-1][1] < length:
        start = spans[-1][0] + min(stride, room)
        spans.append((start, min(length, start + room)))
    return spans


def _most_central(length: int, spans: Sequence[tuple[int, int]]) -> list[int]:
    """For each token the window with the most context: the lesser of what is left and right of it there.

    A longer window is worth a hundredth of its length more (Google's _check_is_max_context); the first wins a tie.
    """
    best = [0] * length
    score = [-1.0] * length
    for index, (start, stop) in enumerate(spans):
        for i in range(start, stop):
            here = min(i - start, stop - 1 - i) + 0.01 * (stop - start)
            if here > score[i]:
                best[i], score[i] = index, here
    return best


def whole_ends(text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Where each token ends, with the combining marks on its last character that belong to no token.

    An uncased tokenizer strips them, and leaves "cafe" of a decomposed "café", or a consonant of a Devanagari syllable.
    """
    ends = []
    for (_, stop), (limit, _) in itertools.zip_longest(offsets, offsets[1:], fillvalue=(len(text), 0)):
        while stop < limit and unicodedata.category(text[stop]).startswith("M"):
            stop += 1
        ends.append(stop)
    return ends


def answer_features(
    found: Sequence[Window], answers: Sequence[tuple[str, int] | None]
) -> tuple[list[Feature], list[int]]:
    """Windows with start and end positions, and the questions whose answer no window holds whole.

    ``answers``: of each question (text, first character), or None where there is none. An answer is the passage's
    tokens that it touches; blanks and marks at its ends that belong to none do not matter.
    """
    touched: list[set[int]] = [set() for _ in answers]
    for window in found:
        answer = answers[window.question]
        if answer is not None:
            start, stop = answer[1], answer[1] + len(answer[0])
            touched[window.question].update(
                window.start + i for i, (a, b) in enumerate(window.offsets) if a < stop and b > start
            )
    out: list[Feature] = []
    held: set[int] = set()
    for window in found:
        start, end = 0, 0
        if tokens := touched[window.question]:
            first, last = min(tokens) - window.start, max(tokens) - window.start
            if first >= 0 and last < len(window.offsets):
                start, end = window.first + first, window.first + last
                held.add(window.question)
        out.append(Feature((window.encoding,), {"start_positions": start, "end_positions": end}))
    return out, [i for i, answer in enumerate(answers) if answer is not None and i not in held]
