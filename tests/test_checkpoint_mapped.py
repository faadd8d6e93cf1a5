"""The look at every weight: finds what is not finite anywhere, changes nothing, and keeps no file in memory."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from refbert.checkpoint import mapped
from refbert.checkpoint.mapped import is_finite


@pytest.fixture
def blocks_of_1024(monkeypatch):
    monkeypatch.setattr(mapped, "_BLOCK", 1024)


def on_disk(tmp_path, array, *, offset=40):
    """The array as a view into a mapped file, at an offset like a checkpoint's."""
    file = tmp_path / "weights"
    file.write_bytes(b"x" * offset + array.tobytes() + b"y" * 100)
    whole = np.asarray(np.memmap(file, dtype=np.uint8, mode="c"))
    return whole[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)


@pytest.mark.parametrize("place", [0, 1023, 1024, 5000, 9999])
@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf])
def test_it_finds_what_is_not_finite(tmp_path, blocks_of_1024, place, what):
    array = np.ones((100, 100), np.float32)
    array.reshape(-1)[place] = what
    for one in (array, array.T, array[:, ::-1], on_disk(tmp_path, array), on_disk(tmp_path, array).T):
        assert not is_finite(one, let_go=True)


@pytest.mark.parametrize("offset", [0, 8, 40, 4096])
def test_it_changes_nothing(tmp_path, blocks_of_1024, offset):
    array = np.random.default_rng(0).standard_normal((90, 77)).astype(np.float32)
    view = on_disk(tmp_path, array, offset=offset)
    assert is_finite(view, let_go=True)
    assert np.array_equal(view, array)
    assert is_finite(np.zeros((0, 3), np.float32), let_go=True)


def test_what_was_written_stays_unless_asked(tmp_path, blocks_of_1024):
    view = on_disk(tmp_path, np.ones(20000, np.float32))
    view[7000:9000] = 2
    assert is_finite(view, let_go=False)
    assert (view[7000:9000] == 2).all()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts mapped pages so")
def test_the_file_does_not_stay_in_memory(tmp_path):
    def mapped_megabytes():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile")) / 1024

    view = on_disk(tmp_path, np.ones(2**24, np.float32))  # 64 MB
    before = mapped_megabytes()
    assert is_finite(view, let_go=True)
    assert mapped_megabytes() - before < 8
    assert is_finite(view, let_go=False)
    assert mapped_megabytes() - before > 56  # and the measurement sees it
