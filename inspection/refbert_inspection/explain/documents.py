"""Docstrings of refbert.ops and refbert.spec, taken apart into their sections.

The form, as those files keep it: a summary; ``Source`` and ``Shapes`` at the margin with their text beside them; then
headings at the margin ("Equation (per row)", "Gradient", "Where the papers are silent") with indented text below. An
indented block without a heading is an equation, and a paragraph in it that begins with "Gradient:" or "Backward:"
starts the derivation of the gradient. Other text at the margin is a note.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import dataclass

_FIELD = re.compile(r"(Source|Shapes)( {2,})(?=\S)")
_BACKWARD = re.compile(r"(Gradient|Backward): ?")


@dataclass(frozen=True)
class Section:
    """A heading as written ("" for a note without one), and its text without indentation.

    kind: "source", "shapes", "equation", "gradient" or "note".
    """

    kind: str
    title: str
    text: str


@dataclass(frozen=True)
class Document:
    """The first paragraph, in one line, and the sections in order."""

    summary: str
    sections: tuple[Section, ...]

    def of(self, kind: str) -> tuple[Section, ...]:
        """The sections of a kind."""
        return tuple(s for s in self.sections if s.kind == kind)


def read(docstring: str | None) -> Document:
    """Take a docstring apart; None and "" have no summary and no sections."""
    paragraphs = [p for p in re.split(r"\n[ ]*\n", inspect.cleandoc(docstring or "")) if p.strip()]
    if not paragraphs:
        return Document("", ())
    parts: list[tuple[str, str, list[str]]] = []  # kind, title, paragraphs with their indentation
    for paragraph in paragraphs[1:]:
        if paragraph.startswith(" "):
            _indented(paragraph, parts)
            continue
        block: list[str] = []
        for line in paragraph.split("\n"):  # Source and Shapes may follow each other without a blank line
            if _FIELD.match(line) and block:
                parts.append(_at_margin(block))
                block = []
            block.append(line)
        parts.append(_at_margin(block))
    sections = (Section(kind, title, textwrap.dedent("\n\n".join(text))) for kind, title, text in parts)
    return Document(" ".join(paragraphs[0].split()), tuple(s for s in sections if s.text))


def _indented(paragraph: str, parts: list[tuple[str, str, list[str]]]) -> None:
    starts = _BACKWARD.match(paragraph.lstrip())
    if starts:
        indent = " " * (len(paragraph) - len(paragraph.lstrip()))
        parts.append(("gradient", starts[1], [indent + paragraph.lstrip()[starts.end() :]]))
    elif parts and (parts[-1][0] in ("equation", "gradient") or (parts[-1][0] == "note" and parts[-1][1])):
        parts[-1][2].append(paragraph)
    else:
        parts.append(("equation", "Equation", [paragraph]))


def _at_margin(block: list[str]) -> tuple[str, str, list[str]]:
    field = _FIELD.match(block[0])
    if field:
        first = " " * field.end() + block[0][field.end() :]
        return field[1].lower(), field[1], ["\n".join([first, *block[1:]])]
    if len(block) == 1 or block[1].startswith(" "):
        kind = {"Equation": "equation", "Gradient": "gradient", "Backward": "gradient"}.get(
            re.split(r"\W", block[0])[0], "note"
        )
        if len(block) > 1 or kind != "note":
            return kind, block[0], ["\n".join(block[1:])] if block[1:] else []
    return "note", "", ["\n".join(block)]
