"""The museum of published bugs: every exhibit has its thread and its place on the page, and is found as told there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from refbert_conformance.engine.subject import Subject
from refbert_conformance.mutants import MUSEUM, MUTANTS, Correct, CorrectHalf
from refbert_conformance.mutants.museum import OUTSIDE
from refbert_conformance.properties.table import selected
from refbert_conformance.selftest import killer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/museum.md").read_text(encoding="utf-8")
SAMPLE = {
    "layer_norm: γ in one place for all threads": "contract/layer_norm/threads",
    "layer_norm: squares in float16": "forward/layer_norm/accuracy",
    "softmax: the distance of rows ignored": "forward/softmax/accuracy",
    "attention: dv torn where v is a view and heads have 256 features": "contract/attention/any layout",
    "attention: dq NaN where all scores are below −88 and a tile is half full": "backward/attention/accuracy",
    "linear: sequences counted in 16 bits": "forward/linear/real sizes",
    "transpose: half lost where axes of size 1 move": "forward/transpose/accuracy",
    "update: permuted parameters stay as they are": "training/adamw/any layout",
}


def test_every_thread_is_a_link_of_its_own():
    threads = [exhibit.thread for exhibit in MUSEUM] + [thread for _, thread, _, _ in OUTSIDE]
    assert [thread for thread in threads if not re.fullmatch(r"[\w.-]+/[\w.-]+/(issues|pull)/[1-9]\d*", thread)] == []
    assert [thread for thread, n in Counter(threads).items() if n > 1] == []
    assert [name for name, n in Counter(mutant.name for mutant in MUTANTS).items() if n > 1] == []


def test_the_page_is_of_the_table():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    for exhibit in MUSEUM:
        (row,) = (row for row in rows if exhibit.link in row and row.startswith(f"| {exhibit.project} |"))
        assert exhibit.wrong in row
        assert exhibit.mutant.name in row
        assert f"| {exhibit.mutant.name} |" in PAGE.partition("## Not found at first")[2] or not exhibit.added
    assert all(f"https://github.com/{thread}" in PAGE for _, thread, _, _ in OUTSIDE)
    assert "None" not in PAGE, "a mutant survived"


@pytest.mark.filterwarnings("ignore")  # of arithmetic: overflow is no error in a backend
@pytest.mark.parametrize("name", SAMPLE)
def test_an_exhibit_is_found_as_the_page_says(name):
    (exhibit,) = (exhibit for exhibit in MUSEUM if exhibit.mutant.name == name)
    properties = selected([SAMPLE[name]])
    assert killer(Subject(name, exhibit.mutant.make), properties, effort="default", seed=0) == SAMPLE[name]
    (row,) = (line for line in PAGE.splitlines() if exhibit.link in line and line.startswith(f"| {exhibit.project} |"))
    assert SAMPLE[name].rpartition("/")[2] in row
    for correct in (Correct, CorrectHalf):
        assert killer(Subject("correct", correct), properties, effort="default", seed=0) is None


def test_the_number_of_mutants_is_told_as_it_is():
    for file in ("README.md", "CHANGELOG.md", "docs/conformance.md"):
        assert re.findall(r"(\d+) mutants", (ROOT / file).read_text(encoding="utf-8")) == [str(len(MUTANTS))], file
