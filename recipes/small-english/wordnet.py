"""WordNet's data files to synsets, and synsets to documents that hang together.

Format   wndb(5WN): offset, lexicographer file, part of speech, words, pointers, " | ", gloss. Pointers used:

    ~ ~i  hyponyms and instances     %p  parts          &  similar adjectives     \\  the adjective of an adverb
    !     antonyms                   ;u  how it is used (slurs and obscenities are left out)

A document is a synset with what is below it, so that the next sentence has to do with the last: a noun or verb with its
hyponyms (small branches with all of theirs, large ones have documents of their own), an adjective with the similar
ones and their adverbs. Every synset is described once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PARTS = ("noun", "verb", "adj", "adv")
_LETTER = {"n": "noun", "v": "verb", "a": "adj", "s": "adj", "r": "adv"}
_LEFT_OUT = {"ethnic_slur", "disparagement", "obscenity", "dirty_word", "vulgarism"}
_OFFENSIVE = re.compile(
    r"\b(?:offensive|obscene|vulgar|derogatory|disparaging|disparagement|slurs?|insulting|sexual|sexually|copulat\w*|"
    r"prostitut\w*|shit|fuck\w*|whores?|genitals?|genitalia|masturbat\w*|pornograph\w*)\b"
)
# Latin names of groups of plants and animals: thousands of words that nobody asks a small model about.
_TAXON = re.compile(r"(?:genus|family|order|class|phylum|division|suborder|subfamily|superfamily|subclass|tribe) [A-Z]")
# Synsets in a document, at most, and of a branch that is told within its parent's document.
_LONG, _BRANCH = 40, 6

Key = tuple[str, str]  # part of speech, offset


@dataclass
class Synset:
    """Words (spaces, not underscores), gloss, lexicographer file, and pointers: symbol -> keys."""

    key: Key
    lexicographer: int
    words: list[str]
    gloss: str
    pointers: dict[str, list[Key]] = field(default_factory=dict)

    def to(self, *symbols: str) -> list[Key]:
        """What the pointers lead to, each once, in the file's order."""
        return list(dict.fromkeys(key for symbol in symbols for key in self.pointers.get(symbol, ())))


def parse(line: str) -> Synset:
    """One line of a data file."""
    head, gloss = line.split(" | ", 1)
    fields = head.split()
    part = _LETTER[fields[2]]
    count = int(fields[3], 16)
    # An adjective's place in the sentence stands behind it: "galore(ip)".
    words = [re.sub(r"\([a-z]+\)$", "", word).replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]]
    synset = Synset((part, fields[0]), int(fields[1]), words, gloss.strip())
    rest = fields[4 + 2 * count :]
    for start in range(1, 1 + 4 * int(rest[0]), 4):
        symbol, offset, letter, _ = rest[start : start + 4]
        synset.pointers.setdefault(symbol, []).append((_LETTER[letter], offset))
    return synset


def read(directory: Path) -> dict[Key, Synset]:
    """Every synset of a WordNet folder, in the order of its files, but those marked as slurs or obscenities."""
    found: dict[Key, Synset] = {}
    for part in PARTS:
        with open(directory / f"data.{part}", encoding="utf-8") as file:
            for line in file:
                if not line.startswith("  "):  # the licence
                    synset = parse(line)
                    found[synset.key] = synset
    bad = {
        key
        for key, synset in found.items()
        if synset.key[0] == "noun" and synset.words[0].replace(" ", "_") in _LEFT_OUT
    }
    return {
        key: synset
        for key, synset in found.items()
        if not bad.intersection(synset.to(";u"))
        and not _OFFENSIVE.search(f"{synset.gloss} {' '.join(synset.words)}")
        and not any(_TAXON.match(word) for word in synset.words)
    }


def documents(synsets: Mapping[Key, Synset], tell: Callable[[Synset], list[str]]) -> Iterator[tuple[str, list[str]]]:
    """(name, sentences) of each document; ``tell`` makes the sentences of one synset."""
    told: set[Key] = set()
    sizes: dict[Key, int] = {}
    for key, synset in synsets.items():
        if key in told or key[0] == "adv" or any(up in synsets for up in synset.to("@", "@i")) or _satellite(synset):
            continue
        yield from _tree(key, synsets, tell, told, sizes)
    # What is left: adverbs and satellites that hang on nothing, and members of circles.
    rest = [key for key in synsets if key not in told]
    for start in range(0, len(rest), _LONG):
        group = rest[start : start + _LONG]
        yield "/".join(group[0]), [sentence for key in group for sentence in tell(synsets[key])]


def _satellite(synset: Synset) -> bool:
    return synset.key[0] == "adj" and bool(synset.to("&")) and not synset.to("!") and len(synset.to("&")) == 1


def _below(key: Key, synsets: Mapping[Key, Synset]) -> list[Key]:
    return [k for k in synsets[key].to("~", "~i", "&", "-adverb") if k in synsets]


def _size(key: Key, synsets: Mapping[Key, Synset], sizes: dict[Key, int]) -> int:
    """Synsets of a noun's or verb's branch, itself included."""
    if key not in sizes:
        sizes[key] = 1  # should it be met again below itself
        sizes[key] += sum(_size(k, synsets, sizes) for k in synsets[key].to("~", "~i") if k in synsets)
    return sizes[key]


def _tree(
    top: Key,
    synsets: Mapping[Key, Synset],
    tell: Callable[[Synset], list[str]],
    told: set[Key],
    sizes: dict[Key, int],
) -> Iterator[tuple[str, list[str]]]:
    waiting = [top]
    while waiting:
        head = waiting.pop()
        if head in told:
            continue
        group: list[Key] = []
        branch = [head]
        while branch:
            key = branch.pop(0)
            if key in told:
                continue
            if key != head and _size(key, synsets, sizes) > _BRANCH:
                waiting.append(key)
                continue
            told.add(key)
            group.append(key)
            branch = _below(key, synsets) + branch if key != head else _below(key, synsets)
        for start in range(0, len(group), _LONG):
            part = group[start : start + _LONG]
            yield "/".join(part[0]), [sentence for key in part for sentence in tell(synsets[key])]


def with_adverbs(synsets: dict[Key, Synset]) -> dict[Key, Synset]:
    """The same, each adjective pointing ("-adverb") to the adverbs made from it."""
    for key, synset in synsets.items():
        if key[0] == "adv":
            for adjective in synset.to("\\"):
                if adjective in synsets:
                    synsets[adjective].pointers.setdefault("-adverb", []).append(key)
    return synsets
