"""What everyone knows, in single sentences: facts.toml, kinds and opposites (WordNet), countries, calendar, numbers.

Each fact is told in several ways, so that a model learns the fact rather than one sentence. Which ways is settled by a
hash of the fact. The sentences stand in random order: nothing in a neighbouring line gives an answer away.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import glosses
from wordnet import Key, Synset

# What everyday things are called kinds of: nearer names ("feline") are for those who know them already.
_WORDS = """
    animal bird fish insect dog horse snake mammal reptile plant tree flower fruit vegetable herb grass food drink
    beverage meat cheese bread cake wine tool instrument weapon vehicle ship boat car furniture building room
    garment clothing hat shoe dress metal color fabric gem mineral game sport dance disease language country city
    river mountain scientist writer musician ruler relative worker container machine toy book song month holiday
    feeling
"""
_KINDS = frozenset(_WORDS.split())
# What one does with things of a kind.
_USES = {
    "beverage": ("She drank some {w}.", "They had {w} with their meal.", "He poured {w} into a cup.",
                 "May I have a glass of {w}?", "Would you like some {w}?"),
    "garment": ("She wore {a}.", "He bought {a} at the store.", "She put on a new {w}.", "His {w} was old and torn.",
                "The {w} that she wears is blue.", "He took off his {w}."),
    "headdress": ("He wore {a} on his head.", "She took off her {w}.", "Put on your {w}, it is cold."),
    "footwear": ("She wears {w} on her feet.", "His {w} were wet."),
    "edible fruit": ("She ate {a}.", "The {w} is sweet and ripe.", "They picked the {w} from the tree."),
    "vegetable": ("We had {w} for dinner.", "He grows {w} in his garden.", "Cut the {w} with a knife."),
    "domestic animal": ("The farmer has {a}.", "Her {w} is hungry.", "They keep {a} at home."),
    "bird": ("The {w} flew away.", "{A} sat in the tree and sang.", "The {w} has two wings."),
    "hand tool": ("He works with {a}.", "She used {a} to mend it.", "Give me the {w}, please."),
    "vehicle": ("They came by {w}.", "The {w} was very fast.", "He sat in the {w} and waited."),
    "furniture": ("There is {a} in the room.", "The {w} is made of wood.", "She bought {a} for the house."),
    "building": ("They went into the {w}.", "The {w} stands at the end of the street.", "There is {a} in the town."),
    "container": ("She opened the {w}.", "The {w} is full.", "He put it into {a}."),
    "musical instrument": ("She plays the {w}.", "He learned to play the {w}.", "{A} makes music."),
    "relative": ("My {w} lives in the city.", "Her {w} came to visit us.", "This is my {w}."),
    "chromatic color": ("The house was {w}.", "She likes the color {w}.", "{w} is a color.", "He has a {w} car."),
}  # fmt: skip
_MOST = 3  # tellings of a fact
_KIND = ("{A} is a kind of {k}.", "{A} is a type of {k}.", "{A} is {ak}.", "What kind of {k} is it? It is {a}.",
         "Is {a} {ak}? Yes, it is.", "{A} is one kind of {k}.")  # fmt: skip
_OPPOSITE = ("The opposite of {a} is {b}.", "The opposite of {b} is {a}.", "{A} is the opposite of {b}.",
             "It is not {a}, it is {b}.", "{A} and {b} are opposites.", "If it is not {a}, is it {b}?",
             "Some are {a} and some are {b}.")  # fmt: skip
_COUNTRY = ("{c} is the capital of {n}.", "The capital of {n} is {c}.", "{c} is a city in {n}.",
            "{n} is a country in {r}.", "The government of {n} is in {c}.", "They live in {c}, the capital of {n}.",
            "She flew to {c} in {n}.", "{c}, {n}, is in {r}.", "What is the capital of {n}? It is {c}.",
            "{n} has its capital at {c}.")  # fmt: skip
_SPEAK = ("In {n} people speak {l}.", "{l} is spoken in {n}.", "{l} is a language of {n}.",
          "He learned {l} when he lived in {n}.", "Many people in {n} speak {l}.")  # fmt: skip
_BORDER = ("{n} has a border with {m}.", "{m} is a neighbor of {n}.", "They drove from {n} to {m}.",
           "{n} lies next to {m}.")  # fmt: skip
_TURN = ("{b} comes after {a}.", "{a} comes before {b}.", "After {a} comes {b}.", "Before {b} comes {a}.",
         "If today is {a}, tomorrow is {b}.", "If today is {b}, yesterday was {a}.", "{a} is the day before {b}.",
         "{b} is the day after {a}.", "The day before {b} is {a}.")  # fmt: skip
_MONTH = ("{b} comes after {a}.", "{a} comes before {b}.", "After {a} comes {b}.", "{a} is the month before {b}.",
          "{b} is the month after {a}.", "When {a} is over, {b} begins.", "It was the end of {a} and {b} was near.",
          "The month before {b} is {a}.")  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
            "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty")  # fmt: skip
_PARTS = {"minute": ("sixty", "seconds"), "hour": ("sixty", "minutes"), "day": ("twenty-four", "hours"),
          "week": ("seven", "days"), "year": ("twelve", "months"), "century": ("hundred", "years"),
          "decade": ("ten", "years"), "dozen": ("twelve", "things")}  # fmt: skip
_CONSISTS = ("{A} has {n} {p}.", "There are {n} {p} in each {u}.", "One {u} is {n} {p}.", "{n} {p} make {a}.",
             "How many {p} are there in {a}? There are {n}.")  # fmt: skip
_SEASON = {
    "spring": ("warm", "March April May"),
    "summer": ("hot", "June July August"),
    "autumn": ("cool", "September October November"),
    "winter": ("cold", "December January February"),
}
_IN_SEASON = ("It is {w} in {s}.", "{s} is {w}.", "{m} is in {s}.", "In {m} it is {s}.", "In {s} the days are {w}.")


def rank(fact: str) -> bytes:
    """Where it stands in an order without meaning."""
    return hashlib.blake2b(fact.encode(), digest_size=8).digest()


def _told(ways: Sequence[str], most: int | None = None, **words: str) -> list[str]:
    """The fact in ``most`` of the ways (all: None)."""
    found = [glosses.finished(way.format(**words)) for way in ways]
    return sorted(found, key=rank)[:most]


def calendar() -> Iterator[str]:
    """Days, months, seasons, how long they are; sums up to twenty."""
    for names, ways in ((_DAYS, _TURN), (_MONTHS, _MONTH)):
        for a, b in zip(names, (*names[1:], names[0]), strict=True):
            yield from _told(ways, a=a, b=b)
    for day in _DAYS:
        yield from (f"{day} is a day of the week.", f"We meet every {day}.", f"He came on {day}.")
    for number, month in enumerate(_MONTHS, 1):
        yield from (f"{month} is a month of the year.", f"She was born in {month}.", f"{month} is month {number}.")
    for season, (weather, months) in _SEASON.items():
        for month in months.split():
            yield from _told(_IN_SEASON, s=season, w=weather, m=month)
    for unit, (count, parts) in _PARTS.items():
        a = glosses.with_article(unit)
        yield from _told(_CONSISTS, A=a, a=a, u=unit, n=count, p=parts)
    for m in range(1, 11):
        yield f"{_NUMBERS[m + 1].capitalize()} comes after {_NUMBERS[m]}."
        for n in range(1, 11):
            yield f"{_NUMBERS[m].capitalize()} plus {_NUMBERS[n]} is {_NUMBERS[m + n]}."
            yield f"{_NUMBERS[m + n].capitalize()} minus {_NUMBERS[n]} is {_NUMBERS[m]}."


def read(path: Path) -> list[Mapping[str, Any]]:
    """The tables of facts.toml, their rows as words by column; the single sentences are a table of one column."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    single = {"name": "sentences", "columns": ["a"], "ways": ["{a}"], "rows": content["sentences"]["said"]}
    return [
        {**table, "rows": [_row(table, line) for line in table["rows"].strip().splitlines()]}
        for table in (*content["tables"], single)
    ]


def _row(table: Mapping[str, Any], line: str) -> dict[str, str]:
    cells = [cell.strip() for cell in line.split("|")]
    return dict(zip(table["columns"], cells, strict=True))


def listed(tables: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What facts.toml says: {a} is a row's cell in column a, {A} the same with a capital."""
    for table in tables:
        for row in table["rows"]:
            words = row | {name.upper(): _capital(cell) for name, cell in row.items()}
            yield from _told(table["ways"], None, **words)


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def countries(path: Path) -> Iterator[str]:
    """Capitals, regions, languages and neighbours from npm's world-countries."""
    table = json.loads(path.read_text(encoding="utf-8"))
    names = {country["cca3"]: country["name"]["common"] for country in table}
    for country in table:
        name = names[country["cca3"]]
        if not (country["independent"] and country["capital"]):
            continue
        region = country["region"] if country["region"] != "Americas" else country["subregion"]
        yield from _told(_COUNTRY, c=country["capital"][0], n=name, r=region)
        for language in country["languages"].values():
            yield from _told(_SPEAK, l=language, n=name)
        for border in country["borders"]:
            yield from _told(_BORDER, 2, n=name, m=names[border])


def kinds(
    synsets: Mapping[Key, Synset], teller: glosses.Teller, common: Mapping[str, int], least: int
) -> Iterator[str]:
    """What the words are kinds of that the other texts use, ``least`` times or more, and what one does with such."""
    for synset in synsets.values():
        word = synset.words[0]
        if synset.key[0] != "noun" or common.get(word, 0) < least or synset.to("@i"):
            continue
        above = teller.above(synset)
        found = [kind for kind in dict.fromkeys(above) if kind in _KINDS and kind != word][:2]
        a = glosses.with_article(word) if teller.counted(synset) else word
        for kind in filter(above.__contains__, _USES):
            yield from _told(_USES[kind], A=a, a=a, w=word)
        for kind in found:
            yield from _told(_KIND, _MOST, A=a, a=a, k=kind, ak=glosses.with_article(kind))


def opposites(
    synsets: Mapping[Key, Synset], common: Mapping[str, int], least: int, *, known: Container[str] = ()
) -> Iterator[str]:
    """The pairs of opposites of which both are common, and neither ``known`` to have another."""
    for synset in synsets.values():
        a = synset.words[0]
        for key in synset.to("!"):
            b = synsets[key].words[0] if key in synsets else ""
            if a < b and min(common.get(a, 0), common.get(b, 0)) >= least and a not in known and b not in known:
                yield from _told(_OPPOSITE, A=a, a=a, b=b)


def shuffled(sentences: Iterable[str], together: int) -> Iterator[tuple[str, list[str]]]:
    """(name, sentences) of documents of ``together`` of them, each sentence once, in an order without meaning."""
    ordered = sorted(set(sentences), key=rank)
    for start in range(0, len(ordered), together):
        yield f"list-{start // together}", ordered[start : start + together]


def words_of(lines: Iterable[str]) -> Iterator[str]:
    """The lower-case words."""
    for line in lines:
        yield from re.findall(r"[a-z]+", line.lower())
