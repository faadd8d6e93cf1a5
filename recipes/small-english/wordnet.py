"""WordNet's data files to synsets.

Format   wndb(5WN): offset, lexicographer file, part of speech, words, pointers, " | ", gloss. Pointers used:

    ~ ~i  hyponyms and instances     %p  parts          &  similar adjectives     \\  the adjective of an adverb
    !     antonyms                   ;u  how it is used (slurs and obscenities are left out)
"""

from __future__ import annotations

import re
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
