"""What is not prose is taken out of the sources: notes, tables, headings, footnote marks.

Speeches   transcripts carry "[Laughter]", "(Applause.)", page numbers, footnotes, and tables of sums without lines
Moby Dick  asterisks of footnotes, names of speakers in the chapters written as plays, numbering of the whales' "books"
"""

from __future__ import annotations

import re
from collections.abc import Callable

Split = Callable[[str], list[str]]

# Longer sentences are cut at semicolons, colons and dashes: what exceeds the model's length is thrown away in packing.
LONGEST = 60  # words
_SHORTEST = 3  # words

_PLAIN = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "‑": "-", "–": "—", "\x02": "", "•": "", "_": "", "`": "'"}
)
_AUDIENCE = r"(?:laughter|applause|at this point[^\])]*|missing text|sic|signed|footnote[^\]]*)"
_NOTE = re.compile(rf"\[(?:{_AUDIENCE}|p\. ?\d+|\d+)[.!]?\]|\((?:{_AUDIENCE})[.!]?\)", re.IGNORECASE)
_SALUTATION = re.compile(
    r"^(?:To the|Fellow|Mr\.|Mister|Madam|Members|MEMBERS|Gentlemen|My fellow|Thank you very much\. Mr\.)[^:.?!]*"
    r"(?:(?:Mr|Mrs|Ms|Dr)\.[^:.?!]*)*:\s*"
)
_COLOPHON = re.compile(r"(?:The Address as reported from the floor appears in|NOTE: ).*$", re.DOTALL)
_SPEAKER = re.compile(r"^(?:THE PRESIDENT|The President|AUDIENCE(?: MEMBERS?)?)[.:] ")
_PLAY = re.compile(r"^(?:[A-Z0-9][A-Z0-9'-]+(?:ST|ND|RD|TH)?(?: [A-Z'-]+)*)(?: \([^)]*\))?\. ")
_WHALES = re.compile(r'^"?(?:BOOK [IVX]+\. \([^)]*\)[.,]?\s*)?(?:CHAPTER [IVX]+\. \([^)]*\)[.,]?)?\s*(?:—\s*)?')
# Not to be among the words that a model can propose; eight sentences of Moby Dick.
_SLUR = re.compile(r"\bnigger", re.IGNORECASE)


def plain(text: str) -> str:
    """Straight quotes, "—" for every dash between words, single spaces, a space between sentences that touch."""
    text = text.translate(_PLAIN)
    text = re.sub(r"\s*(?:—|-{2,}|(?<=\s)-(?=\s))+\s*", " — ", text)
    text = re.sub(r"(?<=[a-z][.?!])(?=[A-Z])", " ", text)
    text = re.sub(r"(?<!\.)\.\.(?!\.)", ".", text)
    text = re.sub(r"\s+([,;:.?!)](?:\s|$))", r"\1", text.replace("*", "").replace("@", ""))
    return " ".join(text.split())


def is_prose(sentence: str) -> bool:
    """Whether it is a sentence worth learning from: words enough, letters for the most part, no heading, no table."""
    words = sentence.split()
    letters = [character for character in sentence if character.isalpha()]
    if len(words) < _SHORTEST or len(letters) < 0.7 * len(sentence.replace(" ", "")):
        return False
    if sentence.count("..") > 3 or _SLUR.search(sentence):
        return False
    if sum(character.isupper() for character in letters) > 0.5 * len(letters):  # a heading
        return False
    numbers = sum(any(character.isdigit() for character in word) for word in words)
    return numbers <= 0.25 * len(words) and sentence.count("—") <= 0.2 * len(words)


def cut(sentence: str) -> list[str]:
    """The sentence, or parts of at most `LONGEST` words where it has places to cut; nothing is lost."""
    if len(sentence.split()) <= LONGEST:
        return [sentence]
    parts: list[str] = []
    for piece in re.split(r"(?<=[;:]) |(?<=—) ", sentence):
        if parts and len(f"{parts[-1]} {piece}".split()) <= LONGEST:
            parts[-1] += f" {piece}"
        else:
            parts.append(piece)
    return parts


def sentences(text: str, split: Split) -> list[str]:
    """Plain text to the sentences that are prose."""
    return [part for sentence in split(plain(text)) if is_prose(sentence) for part in cut(sentence)]


def address(text: str, split: Split) -> list[str]:
    """A State of the Union address to its sentences."""
    text = _NOTE.sub(" ", text)
    text = re.sub(r"[\[\]]", "", text)  # an editor's word within a sentence stays
    text = _COLOPHON.sub("", _SALUTATION.sub("", text.strip()))
    return [_SPEAKER.sub("", sentence) for sentence in sentences(text, split)]


def chapter(text: str, split: Split) -> list[str]:
    """A chapter of Moby Dick to its sentences; they do not cross paragraphs."""
    out: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph = " ".join(paragraph.replace("*", "").split())
        paragraph = re.sub(r"[\[\]]", "", _WHALES.sub("", _PLAY.sub("", paragraph)))
        if not re.fullmatch(r"\(.*\)", paragraph):  # a stage direction
            out += sentences(paragraph, split)
    return out
