"""Text of docstrings and code fitted into so many columns, with columns of formulas kept and prose wrapped again."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

# Docstrings are wrapped at 120 columns, of which a heading's indentation takes up to 12, and a long word what it needs:
# a line that the next line's first word would have brought to less than this was ended on purpose.
_FULL = 96
_GAP = re.compile(r"(?<=\S) {3,}(?=\S)")
_WORD = re.compile(r"[A-Za-z]{3,}")
_SEPARATOR = " │ "


@dataclass(frozen=True)
class Line:
    """A line as the author meant it: prose that ran over several joined again. hanging: how its later lines indent."""

    text: str
    indent: int
    hanging: int
    prose: bool


def columns(text: str) -> int:
    """How many columns a terminal needs for it: a combining hat or tilde takes none."""
    return sum(not unicodedata.combining(c) for c in text)


def logical(text: str) -> Iterator[list[Line]]:
    """Paragraphs of logical lines."""
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        lines = paragraph.split("\n")
        out: list[Line] = []
        joins = False
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            indent, words = len(line) - len(line.lstrip()), line.strip()
            if joins:
                out[-1] = Line(f"{out[-1].text} {words}", out[-1].indent, indent, True)
            else:
                out.append(Line(words, indent, indent, False))
            first = following.split()[0] if following.strip() else ""
            deeper = len(following) - len(following.lstrip()) > indent
            full = bool(first) and len(line) + 1 + len(first) > _FULL
            # A list's entry ends where a line goes back to where entries start.
            back = joins and len(following) - len(following.lstrip()) < out[-1].hanging
            joins = full and not back and (joins or deeper or not _GAP.search(words))
        yield out


def wrap(text: str, width: int, indent: int = 4) -> list[str]:
    """The text, indented, in lines of at most ``width`` columns as far as its words allow."""
    out: list[str] = []
    for paragraph in logical(text):
        if out:
            out.append("")
        for line in paragraph:
            start, later = " " * (indent + line.indent), " " * (indent + line.hanging)
            prose = line.prose or is_sentence(line.text)
            out += filled(line.text, width, start, later) if prose else _folded(start + line.text, width)
    return out


def is_sentence(line: str) -> bool:
    """Whether a line by itself is prose: it ends as a sentence does, has several words, and no columns."""
    return bool(re.search(r"[.:;]$", line)) and len(_WORD.findall(line)) > 3 and not _GAP.search(line)


def prose(text: str, width: int, indent: int = 4) -> list[str]:
    """A paragraph, indented."""
    return filled(text, width, " " * indent, " " * indent)


def filled(text: str, width: int, start: str, later: str) -> list[str]:
    """A paragraph whose first line begins with ``start``, every other with ``later``."""
    return textwrap.wrap(
        text, max(width, len(later) + 20), initial_indent=start, subsequent_indent=later,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _folded(line: str, width: int) -> list[str]:
    """A formula: broken where its author left a gap, else between words; what follows is indented below it."""
    if columns(line) <= width:
        return [line]
    indent = len(line) - len(line.lstrip()) + 4
    gaps = [gap for gap in _GAP.finditer(line) if columns(line[: gap.start()]) <= width]
    if gaps:
        return [line[: gaps[-1].start()], *_folded(" " * indent + line[gaps[-1].end() :], width)]
    return filled(line.strip(), width, " " * (indent - 4), " " * indent)


def fold_code(code: str, width: int) -> list[str]:
    """Code in at most ``width`` columns: a comment moves below its line, a long line goes on further in."""
    out: list[str] = []
    for line in code.split("\n"):
        statement, mark, comment = line.partition("  # ")
        indent = " " * (len(line) - len(line.lstrip()) + 4)
        if columns(line) <= width:
            out.append(line)
        elif mark and columns(statement) <= width:
            out += [statement, *filled(f"# {comment}", width, indent, indent + "# ")]
        else:
            out += filled(line.strip(), width, indent[4:], indent + "    ")
    return out


def beside(left: str, right: str, width: int) -> list[str] | None:
    """Two pieces of code side by side; None where too much of them would have to be folded."""
    needed = [max(columns(line) for line in code.split("\n")) for code in (left, right)]
    room = width - len(_SEPARATOR)
    if sum(needed) <= room:
        return _columns(left.split("\n"), right.split("\n"), needed[0])
    lines = left.count("\n") + right.count("\n") + 2
    fits = []
    for w in range(room // 3, room - room // 3):
        a, b = fold_code(left, w), fold_code(right, room - w)
        narrow = max(map(columns, a)) <= w and max(map(columns, b)) <= room - w
        if narrow and len(a) + len(b) <= lines * 4 / 3:
            fits.append((len(a) + len(b), abs(room - 2 * w), w, a, b))
    if not fits:
        return None
    _, _, w, a, b = min(fits)
    return _columns(a, b, w)


def _columns(left: Sequence[str], right: Sequence[str], width: int) -> list[str]:
    pairs = zip_longest(left, right, fillvalue="")
    return [f"{a}{' ' * (width - columns(a))}{_SEPARATOR}{b}".rstrip() for a, b in pairs]
