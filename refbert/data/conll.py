"""Tagged sentences from CoNLL columns: one word a line, its tag in the last column, a blank line between sentences.

Source   Tjong Kim Sang and De Meulder 2003 (CoNLL-2003). Columns are separated by tabs where a line has one, otherwise
         by spaces. ``-DOCSTART-`` lines are skipped; there are no comments, since "#" begins many a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from refbert.data.tables import read_text
from refbert.errors import InputError


@dataclass(frozen=True)
class Sentence:
    """Words, a tag for each, and the line of the file that it begins on."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    line: int


def read_conll(path: str | Path) -> list[Sentence]:
    """All sentences; raises `InputError` for a missing or empty file, and for a line without a word and a tag."""
    out: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*read_text(path).split("\n"), ""], start=1):
        fields = [field.strip() for field in line.split("\t")] if "\t" in line.strip() else line.split()
        if not any(fields) or fields[0] == "-DOCSTART-":
            if words:
                out.append(Sentence(tuple(words), tuple(tags), number - len(words)))
            words, tags = [], []
            continue
        if len(fields) < 2 or not fields[0] or not fields[-1]:
            raise InputError(f"{path}, line {number}: a word and a tag are expected, not {line.strip()!r}")
        words.append(fields[0])
        tags.append(fields[-1])
    if not out:
        raise InputError(f"{path}: no sentences")
    return out
