"""A short run of every fuzzer; the long one is ``python tests/fuzz`` (README.md)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refbert.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))

from targets import MAKERS, Example, Target
from trying import attempt, guarded, warmed

EXAMPLES = 25


@pytest.mark.parametrize("name", MAKERS)
def test_hostile_files_are_read_or_refused(name, capfd):
    target = warmed(MAKERS[name]())
    assert attempt(target, target.good) == "read"  # else every file could be refused for one and the same reason
    outcomes = {"read": 0, "refused": 0}

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(target.files.map(Example))
    def one(files):
        outcomes[attempt(target, files)] += 1

    one()
    assert outcomes["refused"] >= 5, outcomes  # else the files are not hostile


@pytest.mark.parametrize(
    "bad",
    [
        lambda _: 1 / 0,
        lambda _: bytearray(1 << 30),
        lambda directory: (directory / ".." / "refbert-fuzz-elsewhere").open("a"),
        lambda _: exec("1"),
        lambda _: subprocess.run(["true"], check=True),
        lambda _: (_ for _ in ()).throw(refused_in_two_lines()),
    ],
)
def test_a_fuzzer_notices(bad, tmp_path):
    with pytest.raises((ZeroDivisionError, MemoryError, AssertionError)):
        attempt(Target({}, st.nothing(), bad), {"x": b""})
    (Path(tmp_path).parent / "refbert-fuzz-elsewhere").unlink(missing_ok=True)


def refused_in_two_lines():
    class Loud(InputError):
        def __str__(self):
            return "one line\nand another"

    return Loud()


def test_reading_is_guarded_by_its_directory(tmp_path):
    with guarded(tmp_path):
        (tmp_path / "inside").write_bytes(b"x")
    with pytest.raises(AssertionError, match="elsewhere"), guarded(tmp_path / "below"):
        (tmp_path / "elsewhere").write_bytes(b"x")
