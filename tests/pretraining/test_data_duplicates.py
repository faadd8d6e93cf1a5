"""Deduplication leaves out what stood before, and the development text, and nothing else."""

from __future__ import annotations

import io
import random
import subprocess
import sys

import pytest
from corpora import documents_of, small_tokenizer, text_of

import refbert.data.store as module
from refbert.data import build_store
from refbert.data.duplicates import Seen
from refbert.errors import InputError


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


def sentences_of(store):
    return [tuple(ids) for piece in store.pieces() for ids in piece]


def file_of(path, documents):
    path.write_text(text_of(documents), encoding="utf-8")
    return path


def test_seen_is_a_set():
    rng = random.Random(0)
    seen, wanted = Seen(), set()
    for _ in range(300):
        batch = [[rng.randrange(60), rng.randrange(60)] for _ in range(rng.choice((0, 1, 2, 40)))]
        expected = []
        for ids in map(tuple, batch):
            expected.append(ids not in wanted)
            wanted.add(ids)
        assert seen.first(batch) == expected
    assert 1000 < len(wanted) < 3600
    assert seen.first([[61], [61, 0], [317], [61]]) == [True, True, True, False]


@pytest.mark.parametrize("at_once", [1, 3, 4096])
def test_what_stood_before_is_left_out(tmp_path, tokenizer, monkeypatch, at_once):
    """In a document, a file, another file; what is left of a document stays one, and one of which nothing is left goes.

    Capitals, which this tokenizer does not see, and white space make no other sentence.
    """
    monkeypatch.setattr(module, "_SENTENCES", at_once)
    one = file_of(tmp_path / "1.txt", [["w1 w2", "w3", "w1 w2"], ["w3"], ["w4", "W3", "w2 w1"]])
    two = file_of(tmp_path / "2.txt", [["w4", "w5"], ["w1   w2", "w2 w1"]])
    store = build_store([one, two], tokenizer, tmp_path / "store", deduplicate="sentences")
    kept = [["w1 w2", "w3"], ["w4", "w2 w1"], ["w5"]]
    plain = build_store([file_of(tmp_path / "3.txt", kept)], tokenizer, tmp_path / "plain")
    assert store.fingerprint == plain.fingerprint
    assert (store.files, store.left_out, plain.left_out) == ((2, 1), 6, 0)


def test_the_development_text_is_left_out(tmp_path, tokenizer):
    documents = documents_of(200, seed=1, tokens=(1, 3), words=30)
    dev = build_store([file_of(tmp_path / "dev.txt", documents[:40])], tokenizer, tmp_path / "dev")
    text = file_of(tmp_path / "text.txt", documents[40:])
    store = build_store([text], tokenizer, tmp_path / "store", deduplicate="sentences", held_out=dev)
    found, held_out = sentences_of(store), sentences_of(dev)
    assert len(set(held_out)) < len(held_out), "it is scored as it stands"
    everything = sentences_of(build_store([text], tokenizer, tmp_path / "all"))
    assert found == list(dict.fromkeys(ids for ids in everything if ids not in set(held_out)))
    assert store.left_out == len(everything) - len(found) > 100
    with pytest.raises(InputError, match="every sentence of the corpus is in the development text"):
        build_store([tmp_path / "dev.txt"], tokenizer, tmp_path / "none", deduplicate="sentences", held_out=dev)


def test_it_decides_what_is_built_again(tmp_path, tokenizer, monkeypatch):
    documents = documents_of(50, seed=2, tokens=(1, 2), words=20)
    text = file_of(tmp_path / "text.txt", documents)
    first, second = (
        build_store([file_of(tmp_path / f"{n}.txt", documents[n : n + 3])], tokenizer, tmp_path / f"dev{n}")
        for n in (0, 1)
    )
    seen = []
    for how in ({}, {"deduplicate": "sentences"}, {"deduplicate": "sentences", "held_out": first},
                {"deduplicate": "sentences", "held_out": second}):  # fmt: skip
        store = build_store([text], tokenizer, tmp_path / "store", **how)
        with monkeypatch.context() as patched:
            patched.setattr(module, "_write", None)  # building again would fail
            assert build_store([text], tokenizer, tmp_path / "store", **how).key == store.key
        seen.append((store.key, store.fingerprint))
    assert len({key for key, _ in seen}) == len({fingerprint for _, fingerprint in seen}) == 4
    piped = build_store(
        [io.BytesIO(text.read_bytes())], tokenizer, tmp_path / "store", deduplicate="sentences", held_out=second
    )
    assert (piped.key, piped.fingerprint) == (None, seen[-1][1])


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from Linux's /proc")
def test_the_memory_that_is_stated():
    """16 bytes for each of two million sentences; beside them, batches and what the allocator keeps: less than 8 MB."""
    code = (
        "from refbert.data.duplicates import Seen\n"
        "peak = lambda: int(next(x.split()[1] for x in open('/proc/self/status') if x.startswith('VmHWM')))\n"
        "seen = Seen(); before = peak()\n"
        "for i in range(0, 2_000_000, 4000):\n"
        "    assert all(seen.first([[j >> 12, j & 4095] for j in range(i, i + 4000)]))\n"
        "print(1024 * (peak() - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 16 * 2_000_000 + 8e6
