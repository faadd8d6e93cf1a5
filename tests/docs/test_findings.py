"""docs/findings.md: every reproduction is short, and prints what the page shows, where its library is at hand."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "findings.md").read_text(encoding="utf-8")
DISTRIBUTION = {"PyTorch": "torch"}  # where the package has another name than the library
NUMBER = re.compile(r"-?\d+(?:\.\d*)?(?:e[+-]?\d+)?")


class Entry(NamedTuple):
    library: str
    version: str
    title: str
    code: str
    how: str
    shown: str


def _entries() -> list[Entry]:
    found = []
    for library in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        name, version = library.splitlines()[0].split()
        for entry in re.split(r"^### ", library, flags=re.MULTILINE)[1:]:
            (code,) = re.findall(r"^```python\n(.*?)^```$", entry, re.MULTILINE | re.DOTALL)
            ((how, shown),) = re.findall(
                r"^It prints(|, for instance,| about)\n\n```text\n(.*?)^```$", entry, re.MULTILINE | re.DOTALL
            )
            found.append(Entry(name, version, entry.splitlines()[0], code, how, shown))
    return found


ENTRIES = _entries()


def same(shown: str, printed: str, how: str) -> bool:
    """Whether what is printed is what the page shows: exactly, or in its numbers about."""
    if "instance" in how:
        return bool(printed)
    if "about" not in how:
        return printed == shown
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=False)
    return NUMBER.sub("#", shown) == NUMBER.sub("#", printed) and all(
        abs(float(a) - float(b)) <= 0.01 * abs(float(a)) for a, b in pairs
    )


def test_the_table_and_the_entries_are_the_same_ones_in_the_same_order():
    rows = re.findall(r"^\| \[(\w+)\]\(#(\S+)\) \| (\S+) (\S+) \|", PAGE, re.MULTILINE)
    titles = [(e.title.split()[0], re.sub(r"[^\w ]", "", e.title.lower()).replace(" ", "-")) for e in ENTRIES]
    assert [row[:2] for row in rows] == titles
    assert [row[2:] for row in rows] == [(e.library, e.version) for e in ENTRIES]
    assert [e.title for e in ENTRIES[:2]] == ["P1 LayerNorm", "P2 attention"]


def test_the_properties_that_are_named_exist():
    from refbert_conformance.properties.table import all_properties

    named = re.findall(r"`((?:contract|forward|backward|blocks|models)/[^`]+)`", PAGE)
    assert named
    assert set(named) <= {p.id for p in all_properties()}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.title)
def test_a_reproduction_is_short_and_does_without_refbert(entry):
    compile(entry.code, entry.title, "exec")
    assert len(entry.code.rstrip("\n").split("\n")) <= 15
    assert "refbert" not in entry.code
    assert entry.shown.strip()


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.title)
def test_a_reproduction_prints_what_is_shown(entry):
    try:
        version = importlib.metadata.version(DISTRIBUTION.get(entry.library, entry.library.lower()))
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"unavailable: {entry.library} is not installed")
    if version.split("+")[0] != entry.version:
        pytest.skip(f"the page is about {entry.library} {entry.version}; this is {version}")
    compilers = ["clang", *re.findall(r'"CC"\] = "([^"]+)"', entry.code)] if entry.library == "tinygrad" else []
    if absent := [one for one in compilers if shutil.which(one) is None]:
        pytest.skip(f"unavailable: the reproduction needs {absent[0]}")
    done = subprocess.run([sys.executable, "-c", entry.code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert same(entry.shown, done.stdout, entry.how), done.stdout


@pytest.mark.parametrize(
    ("shown", "printed", "how", "answer"),
    [
        ("256.0 a\n", "256.0 a\n", "", True),
        ("256.0 a\n", "256.1 a\n", "", False),
        ("2.27 a\n", "2.28 a\n", " about", True),
        ("2.27 a\n", "2.30 a\n", " about", False),
        ("2.27 a\n", "2.27 b\n", " about", False),
        ("1e-06\n", "1e-07\n", " about", False),
        ("7\n", "8 9\n", ", for instance,", True),
        ("7\n", "", ", for instance,", False),
    ],
)
def test_what_counts_as_the_same(shown, printed, how, answer):
    assert same(shown, printed, how) is answer
