"""The store holds the corpus as tokenized, is whole or absent, and is made once."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import random

import numpy as np
import pytest
from corpora import documents_of, small_tokenizer, store_of, text_of

import refbert.data.store as module
from refbert.data import Store, build_store
from refbert.errors import InputError


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


def contents(store):
    """Documents of sentences of ids."""
    out = []
    for d in range(store.documents):
        first, last = store.document(d)
        begins = store.boundaries(first, last).tolist()
        out.append([store.ids(a, b).tolist() for a, b in itertools.pairwise(begins)])
    return out


def expected(documents, tokenizer):
    return [
        [list(tokenizer.encode([s], max_length=10**6)[0].input_ids[1:-1]) for s in document] for document in documents
    ]


@pytest.mark.parametrize("at_once", [1, 3, 4096])
def test_what_is_written_is_read(tmp_path, tokenizer, monkeypatch, at_once):
    monkeypatch.setattr(module, "_SENTENCES", at_once)
    documents = documents_of(60, seed=1)
    store = store_of(tmp_path, documents, tokenizer)
    assert contents(store) == expected(documents, tokenizer)
    assert store.documents == 60
    assert store.sentences == sum(map(len, documents))
    assert store.tokens == sum(len(s.split()) for d in documents for s in d)


def test_sentences_of_nothing_and_their_documents_are_left_out(tmp_path, tokenizer):
    nothing = "\u200b\u0007"
    text = f"w1\n{nothing}\nw2 w3\n\n{nothing}\n\nw4\n"
    store = build_store([io.BytesIO(text.encode())], tokenizer, tmp_path)
    assert contents(store) == expected([["w1", "w2 w3"], ["w4"]], tokenizer)
    with pytest.raises(InputError, match="no text that the tokenizer reads"):
        build_store([io.BytesIO(nothing.encode())], tokenizer, tmp_path)


def test_special_tokens_spelled_out_are_text(tmp_path, tokenizer):
    store = build_store([io.BytesIO(b"w1 [SEP] w2 [MASK]\n")], tokenizer, tmp_path)
    ids = set(contents(store)[0][0])
    assert not ids & {tokenizer.sep_id, tokenizer.mask_id}
    # The tokenizer is as it was.
    assert tokenizer.mask_id in tokenizer.encode(["[MASK]"], max_length=9)[0].input_ids[1:-1]


def test_long_documents_go_on_as_others(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_DOCUMENT", 4)
    monkeypatch.setattr(module, "_SENTENCES", 3)
    documents = documents_of(5, seed=2, sentences=(1, 11))
    parts = [document[i : i + 4] for document in documents for i in range(0, len(document), 4)]
    assert contents(store_of(tmp_path, documents, tokenizer)) == expected(parts, tokenizer)


def test_large_vocabularies(tmp_path):
    tokenizer = small_tokenizer(70_000)
    documents = [["w69999 w3"], ["w65536 w65535"]]
    assert contents(store_of(tmp_path, documents, tokenizer)) == expected(documents, tokenizer)


def test_it_is_built_once_for_the_same_text_and_tokenizer(tmp_path, tokenizer, monkeypatch):
    file, directory = tmp_path / "a.txt", tmp_path / "store"
    file.write_text(text_of(documents_of(9, seed=3)))
    first = build_store([file], tokenizer, directory)
    with monkeypatch.context() as patched:
        patched.setattr(module, "_write", None)  # building again would fail
        again = build_store([file], tokenizer, directory)
        (tmp_path / "b.txt").write_bytes(file.read_bytes())
        assert build_store([tmp_path / "b.txt"], tokenizer, directory).fingerprint == again.fingerprint
    assert again.fingerprint == first.fingerprint
    seen = {(first.fingerprint, first.tokenizer)}
    for change in ("text", "tokenizer", "documents"):
        if change == "text":
            file.write_text(text_of(documents_of(9, seed=4)))
        options = {"documents": "file"} if change == "documents" else {}
        other = build_store([file], small_tokenizer(501) if change == "tokenizer" else tokenizer, directory, **options)
        seen.add((other.fingerprint, other.tokenizer))
    assert len(seen) == 4
    # From stdin it is built anew, and is the same.
    piped = build_store([io.BytesIO(file.read_bytes())], tokenizer, directory, documents="file")
    assert (piped.fingerprint, piped.key) == (other.fingerprint, None)


def test_half_a_store_is_none(tmp_path, tokenizer):
    store = store_of(tmp_path, documents_of(9, seed=5), tokenizer)
    directory = store.directory
    with pytest.raises(InputError, match="no tokenized corpus"):
        Store.open(tmp_path / "elsewhere")
    header = (directory / "store.json").read_text()
    for content in ("", "[]", "{}", header[:50]):
        (directory / "store.json").write_text(content)
        with pytest.raises(InputError, match="damaged"):
            Store.open(directory)
    (directory / "store.json").write_text(json.dumps(json.loads(header) | {"version": 0}))
    with pytest.raises(InputError, match="another release"):
        Store.open(directory)
    (directory / "store.json").write_text(header)
    with open(directory / "ids.bin", "r+b") as file:
        file.truncate(10)
    with pytest.raises(InputError, match=r"ids\.bin: not as long as it was written"):
        Store.open(directory)
    # What is not whole is built again, not used.
    rebuilt = build_store([tmp_path / "corpus.txt"], tokenizer, directory)
    assert rebuilt.fingerprint == store.fingerprint


@pytest.mark.parametrize("seed", range(20))
def test_killed_at_any_write_the_directory_holds_a_whole_store_or_none(tmp_path, tokenizer, monkeypatch, seed):
    """Every call that changes the directory may be the last one: what can be opened then is the old or the new."""

    class Killed(BaseException):
        pass

    old = store_of(tmp_path, documents_of(9, seed=6), tokenizer)
    before = contents(old)
    left = random.Random(seed).randrange(12) if seed >= 12 else seed

    def dying(call):
        def wrapped(*args, **kwargs):
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return call(*args, **kwargs)

        return wrapped

    # Of the same size, so that an old header would not be told by it.
    documents = [[" ".join(s.split()[::-1]) for s in d] for d in documents_of(9, seed=6)]
    (tmp_path / "new.txt").write_text(text_of(documents))
    with monkeypatch.context() as patched:
        for name in ("fsync", "replace"):
            patched.setattr(os, name, dying(getattr(os, name)))
        try:
            new = build_store([tmp_path / "new.txt"], tokenizer, old.directory)
        except Killed:
            new = None
    try:
        found = Store.open(old.directory)
    except InputError:
        found = None
    if found is not None:
        # Whole: what the header says is what is there.
        written = contents(found)
        assert written in (before, expected(documents, tokenizer))
        assert (found.fingerprint == old.fingerprint) == (written == before)
    assert new is None or found is not None
    again = build_store([tmp_path / "new.txt"], tokenizer, old.directory)
    assert contents(again) == expected(documents, tokenizer)


def test_a_full_disk_is_one_line_and_leaves_the_old_store(tmp_path, tokenizer, monkeypatch):
    old = store_of(tmp_path, documents_of(9, seed=8), tokenizer)

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"store: the tokenized corpus cannot be written \(No space left"):
            build_store([io.BytesIO(b"w1\n")], tokenizer, old.directory)
    assert Store.open(old.directory).fingerprint == old.fingerprint
    assert sorted(p.name for p in old.directory.iterdir()) == [
        "documents.bin",
        "ids.bin",
        "sentences.bin",
        "store.json",
    ]
    # A corpus that cannot be read leaves it, too.
    with pytest.raises(InputError, match="line 2: not UTF-8"):
        build_store([io.BytesIO(b"w1\n\xff\n")], tokenizer, old.directory)
    assert np.array_equal(Store.open(old.directory).ids(0, 5), old.ids(0, 5))


def test_a_store_that_shrinks_is_noticed(tmp_path, tokenizer):
    store = store_of(tmp_path, documents_of(9, seed=9), tokenizer)
    os.truncate(store.directory / "ids.bin", 4)
    with pytest.raises(InputError, match="shorter than it was"):
        store.ids(0, 100)
