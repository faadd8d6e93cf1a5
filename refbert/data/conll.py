"""Tagged sentences from CoNLL columns: one word a line, its tag in a column, a blank line between sentences.

Source   Tjong Kim Sang and De Meulder 2003 (CoNLL-2003); Nivre et al. 2020 (CoNLL-U).

Columns  are separated by tabs where a line has one, otherwise by spaces, and by no other character.
Tag      the last column; in CoNLL-U, of ten columns, the fourth (UPOS) if the last is MISC.
Word     the first column, or the second where the first counts the words, of each sentence or of the file. There,
         CoNLL-U's ranges (1-2) and empty nodes (1.1) are skipped. A first column that cannot be words (numbers alone,
         one document's name) is refused until the column of the words is named.
Skipped  ``-DOCSTART-`` lines and comments. Not all that begins with "#" is a comment: "#" and "#tag" are words, too.
         It is one where the first column counts. Elsewhere it is a word inside a sentence; before a sentence's first
         word it is one if it has as many columns as the other lines and ends in one of their tags, or in what looks
         like an entity's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from refbert.data.tables import lines_of, read_text
from refbert.errors import InputError
from refbert.files import reading as files

_PLACE = re.compile(r"[0-9]+")
_NO_WORD = re.compile(r"[0-9]+[-.][0-9]+")
_ENTITY = re.compile(r"O|[BIES]-.+")
_UPOS, _CONLL_U = 4, 10


@dataclass(frozen=True)
class Sentence:
    """Words, a tag for each, and the line of the file that each is on."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    lines: tuple[int, ...]


@dataclass(frozen=True)
class _Line:
    number: int
    fields: tuple[str, ...]  # none: the line ends a sentence
    comment: bool = False  # begins with "#"


def read_conll(path: str | Path, *, word_column: int | None = None, tag_column: int | None = None) -> list[Sentence]:
    """All sentences; columns count from 1 (default: as above).

    Raises `InputError` for a missing or empty file, and with its number for a line without a word and a tag and for
    one with more or fewer columns than the first.
    """
    lines = [_split(path, number, line) for number, line in enumerate(lines_of(read_text(path)), start=1)]
    plain = [line for line in lines if not line.comment]
    indexed = _counts(_sentences(plain))
    lines = plain if indexed else _without_comments(lines)
    rows = [line for line in lines if line.fields]
    if not rows:
        raise InputError(f"{path}: no sentences")
    columns = len(rows[0].fields)
    for row in rows:
        if len(row.fields) != columns:
            raise InputError(f"{path}, line {row.number}: {len(row.fields)} columns, the lines before have {columns}")
    if word_column is None and not indexed and _is_no_word(_sentences(lines), columns):
        raise InputError(f"{path}: the first column ({files.shown(rows[0].fields[0])}, …) holds no words; name the one "
                         "that does with --text-column")  # fmt: skip
    word = word_column or (2 if indexed else 1)
    tag = tag_column or (_tag_of_conll_u(rows) if indexed and columns == _CONLL_U else columns)
    for what, column in (("words", word), ("tags", tag)):
        if not 1 <= column <= columns:
            raise InputError(f"{path}: there is no column {column} for the {what}: the lines have {columns}")
    return list(_read(path, lines, word - 1, tag - 1, indexed))


def _split(path: str | Path, number: int, line: str) -> _Line:
    """Only tabs and spaces separate: U+202F stands within French numbers, U+00A0 within names."""
    if "\r" in line:
        raise InputError(f"{path}, line {number}: a carriage return that ends no line; lines end at LF or CRLF")
    line = line.strip(" ")
    fields = [f.strip(" ") for f in line.split("\t")] if "\t" in line else [f for f in line.split(" ") if f]
    blank = not any(fields) or "-DOCSTART-" in fields[:2]
    return _Line(number, () if blank else tuple(fields), comment=line.startswith("#"))


def _without_comments(lines: Sequence[_Line]) -> list[_Line]:
    rows = [line.fields for line in lines if line.fields and not line.comment]
    columns = len(rows[0]) if rows else 0
    tags = {fields[-1] for fields in rows}
    out: list[_Line] = []
    for line in lines:
        begins = not out or not out[-1].fields
        tag = line.fields[-1] if len(line.fields) == columns > 0 else ""
        if not (line.comment and begins) or tag in tags or _ENTITY.fullmatch(tag):
            out.append(line)
    return out


def _sentences(lines: Sequence[_Line]) -> list[list[_Line]]:
    return [list(group) for ended, group in groupby(lines, key=lambda line: not line.fields) if not ended]


def _counts(sentences: Sequence[Sequence[_Line]]) -> bool:
    """Whether the first column counts words, from 1 or 0 in each sentence or on from the last, and two more follow."""
    last = None
    for lines in sentences:
        places = [line.fields[0] for line in lines if not _NO_WORD.fullmatch(line.fields[0])]
        if len(lines[0].fields) < 3 or not places or not _PLACE.fullmatch(places[0]):
            return False
        first = int(places[0])
        if first not in (0, 1, last) or places != [str(first + i) for i in range(len(places))]:
            return False
        last = first + len(places)
    return last is not None


def _is_no_word(sentences: Sequence[Sequence[_Line]], columns: int) -> bool:
    """Whether the first of several columns has only numbers, or says the same throughout every sentence."""
    first = [[line.fields[0] for line in lines] for lines in sentences]
    several = any(len(places) > 1 for places in first)
    numbers = all(_PLACE.fullmatch(place) for places in first for place in places)
    return columns > 2 and several and (numbers or all(len(set(places)) == 1 for places in first))


def _tag_of_conll_u(rows: Sequence[_Line]) -> int:
    """The last column holds tags, or is MISC: "_", or names with values."""
    misc = all(row.fields[-1] == "_" or "=" in row.fields[-1] for row in rows)
    return _UPOS if misc else _CONLL_U


def _read(path: str | Path, lines: Sequence[_Line], word: int, tag: int, indexed: bool) -> Iterator[Sentence]:
    for sentence in _sentences(lines):
        kept = [line for line in sentence if not (indexed and _NO_WORD.fullmatch(line.fields[0]))]
        for line in kept:
            if not line.fields[word] or not line.fields[tag] or word == tag:
                found = " ".join(line.fields)
                raise InputError(f"{path}, line {line.number}: a word and a tag are expected, not {found!r}")
        yield Sentence(
            tuple(line.fields[word] for line in kept),
            tuple(line.fields[tag] for line in kept),
            tuple(line.number for line in kept),
        )
