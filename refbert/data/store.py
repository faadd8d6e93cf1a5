"""A tokenized corpus on disk, written in one pass and read a slice at a time.

    ids.bin         every token id, one after the other (16 bits where the vocabulary allows it, else 32)
    sentences.bin   where each sentence begins in ids.bin, and the end (64 bits)
    documents.bin   where each document begins among the sentences, and the end (64 bits)
    store.json      counts, digests; written last, so that a store without it is not one

Files are read with pread, not mapped: mapped pages count as the process's memory, and a 2 GB corpus must not take more
than a 2 MB one.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from refbert.data.corpus import Documents, Format, Progress, Source, read_sentences, source_name
from refbert.data.duplicates import Seen
from refbert.errors import InputError
from refbert.files.digests import digest, digest_of_file, hasher
from refbert.files.json import read_object
from refbert.files.reading import is_file
from refbert.files.writing import atomic, sync
from refbert.text.tokenization import Tokenizer

Array = npt.NDArray[np.int64]
Deduplicate = Literal["sentences"]

# A document longer than this goes on as another one. Pairs do not cross the cut: at 25 tokens a sentence that loses one
# pair in 800 (of 128 tokens), and bounds what a document takes in memory.
LONGEST_DOCUMENT = 4096

_VERSION = 1
_HEADER = "store.json"
_NAMES = ("ids.bin", "sentences.bin", "documents.bin")
_SENTENCES, _CHARACTERS = 4096, 2**16  # how much is tokenized at a time, whichever comes first


class _Damaged(InputError):
    """A header that is no JSON object."""


class Store:
    """A corpus of ``documents`` documents, ``sentences`` sentences and ``tokens`` tokens; none is empty.

    ``fingerprint`` is a digest of the ids and the boundaries, ``tokenizer`` that of the tokenizer that made them.
    ``files``: how many documents are of each file, in order. ``left_out``: sentences that stood before.
    """

    def __init__(
        self, directory: Path, header: dict[str, Any], files: Sequence[FileIO], close: Callable[[], object]
    ) -> None:
        self.directory = directory
        self.documents: int = header["documents"]
        self.sentences: int = header["sentences"]
        self.tokens: int = header["tokens"]
        self.fingerprint: str = header["fingerprint"]
        self.tokenizer: str = header["tokenizer"]
        self.key: str | None = header["key"]
        self.files: tuple[int, ...] = tuple(header["files"])
        self.left_out: int = header.get("left_out", 0)
        self._dtype = np.dtype(header["dtype"])
        self._ids, self._sentences, self._documents = files
        self._close = weakref.finalize(self, close)  # also when the store is dropped

    @classmethod
    def open(cls, directory: str | Path) -> Store:
        """Open what `build_store` wrote; raises `InputError` if it is not there or not whole."""
        directory = Path(directory)
        if not is_file(directory / _HEADER):
            raise InputError(f"{directory}: no tokenized corpus")
        try:
            header = read_object(directory / _HEADER, _Damaged)
            if header["version"] != _VERSION:
                raise InputError(f"{directory}: written by another release of refbert; delete it and build it again")
            with contextlib.ExitStack() as opened:
                files = [opened.enter_context(open(directory / name, "rb", buffering=0)) for name in _NAMES]
                for name, file in zip(_NAMES, files, strict=True):
                    if os.fstat(file.fileno()).st_size != header["bytes"][name]:
                        raise InputError(f"{directory / name}: not as long as it was written; build the store again")
                counts = header.setdefault("files", [header["documents"]])  # earlier releases did not count them
                if header["bytes"] != _sizes(header) or sum(counts) != header["documents"]:
                    raise InputError(f"{directory / _HEADER}: damaged; delete it and build the store again")
                return cls(directory, header, files, opened.pop_all().close)
        except OSError as error:
            raise InputError(f"{directory}: no tokenized corpus ({error.strerror})") from None
        except (_Damaged, ValueError, KeyError, TypeError):
            raise InputError(f"{directory / _HEADER}: damaged; delete it and build the store again") from None

    def check(self) -> None:
        """Read the whole store; raises `InputError` unless it is, byte by byte, what was written."""
        digests = []
        for file in (self._ids, self._sentences, self._documents):
            file.seek(0)
            digests.append(hashlib.file_digest(file, hasher))
        if _fingerprint(self._dtype, digests) != self.fingerprint:
            raise InputError(f"{self.directory}: damaged: its files are not what was written")

    def document(self, number: int) -> tuple[int, int]:
        """(first, last): the sentences of a document are first … last − 1."""
        first, last = _read(self._documents, np.dtype(np.int64), number, number + 2)
        return int(first), int(last)

    def boundaries(self, first: int, last: int) -> Array:
        """[last − first + 1]: where the sentences first … last − 1 begin among the tokens, and where the last ends."""
        return _read(self._sentences, np.dtype(np.int64), first, last + 1)

    def ids(self, start: int, stop: int) -> Array:
        """[stop − start]: the token ids from ``start`` to ``stop``."""
        return _read(self._ids, self._dtype, start, stop).astype(np.int64)

    def pieces(self) -> Iterator[list[list[int]]]:
        """Yield the ids of all sentences, some thousand sentences at a time."""
        for first in range(0, self.sentences, _SENTENCES):
            begins = self.boundaries(first, min(first + _SENTENCES, self.sentences)).tolist()
            ids = self.ids(begins[0], begins[-1]).tolist()
            yield [ids[a - begins[0] : b - begins[0]] for a, b in itertools.pairwise(begins)]

    def close(self) -> None:
        """Close the files."""
        self._close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def build_store(
    sources: Sequence[Source],
    tokenizer: Tokenizer,
    directory: str | Path,
    *,
    format: Format = "lines",
    documents: Documents = "blank-line",
    column: str | None = None,
    deduplicate: Deduplicate | None = None,
    held_out: Store | None = None,
    progress: Progress | None = None,
) -> Store:
    """Tokenize a corpus into ``directory``, or open what an earlier call made there of the same files and tokenizer.

    Arguments as `refbert.data.corpus.read_sentences`. deduplicate: "sentences" leaves out those that stood before in
    the corpus, and those of ``held_out`` (`refbert.data.duplicates`). Files are compared by content; what came from
    stdin cannot be, and is built anew. One process at a time: others open the store once it is there. Raises
    `InputError` for a corpus that cannot be read and a directory that cannot be written; an earlier store in it is then
    still whole.
    """
    directory = Path(directory)
    made_by = tokenizer_fingerprint(tokenizer)
    apart = None if held_out is None else held_out.fingerprint
    key = _key(sources, [made_by, format, documents, column, deduplicate, apart])
    if key is not None and (directory / _HEADER).is_file():
        with contextlib.suppress(InputError):
            found = Store.open(directory)
            if found.key == key:
                return found
            found.close()
    if not sources:
        raise InputError("no text: name at least one file")
    texts = (
        read_sentences([source], format, documents=documents, column=column, progress=progress) for source in sources
    )
    seen = None if deduplicate is None else Seen()
    if seen is not None and held_out is not None:
        for sentences in held_out.pieces():
            seen.first(sentences)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write(texts, tokenizer, directory, {"key": key, "tokenizer": made_by}, seen)
    except OSError as error:
        raise InputError(f"{directory}: the tokenized corpus cannot be written ({error.strerror})") from None
    return Store.open(directory)


def _write(
    texts: Iterable[Iterable[str | None]], tokenizer: Tokenizer, directory: Path, origin: Mapping[str, Any],
    seen: Seen | None,
) -> None:  # fmt: skip
    """The old header goes first and the new one comes last: at no moment does a header describe other files."""
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)
    counts: list[int] = []
    with contextlib.ExitStack() as parts:  # renamed in the reverse order, the header last
        header, *data = [parts.enter_context(atomic(directory / name)) for name in (_HEADER, *_NAMES)]
        with contextlib.ExitStack() as opened:
            files = [opened.enter_context(part.open("wb")) for part in data]
            writer = _Writer(tokenizer, dtype, files, seen)
            for text in texts:
                before = writer.documents
                for item in text:
                    writer.add(item)
                writer.flush()
                counts.append(writer.documents - before)
            sizes = {name: file.tell() for name, file in zip(_NAMES, files, strict=True)}
        if writer.left_out and not writer.documents:
            raise InputError("every sentence of the corpus is in the development text")
        if not writer.documents:
            raise InputError("the corpus has no text that the tokenizer reads: white space and control characters only")
        facts = {
            "version": _VERSION, "documents": writer.documents, "sentences": writer.sentences, "tokens": writer.tokens,
            "files": counts, "left_out": writer.left_out, "dtype": dtype.name, "bytes": sizes,
            "fingerprint": writer.fingerprint(), **origin,
        }  # fmt: skip
        header.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        for part in (header, *data):
            sync(part)
        (directory / _HEADER).unlink(missing_ok=True)
        sync(directory)


class _Writer:
    """Sentences and ends of documents in, three files out."""

    def __init__(
        self, tokenizer: Tokenizer, dtype: np.dtype[Any], files: Sequence[IO[bytes]], seen: Seen | None
    ) -> None:
        self.documents = self.sentences = self.tokens = self.left_out = 0
        self._tokenizer, self._dtype, self._files, self._seen = tokenizer, dtype, files, seen
        self._digests = [hasher() for _ in files]
        self._waiting: list[str] = []
        self._ends: list[int] = []  # before which of the waiting sentences a document ends
        self._characters = 0
        self._begun = 0  # sentences of the document being written
        self._put(1, np.zeros(1, np.int64))
        self._put(2, np.zeros(1, np.int64))

    def add(self, item: str | None) -> None:
        if item is None:
            self._ends.append(len(self._waiting))
            return
        self._waiting.append(item)
        self._characters += len(item)
        if len(self._waiting) >= _SENTENCES or self._characters >= _CHARACTERS:
            self.flush()

    def flush(self) -> None:
        encoded = encode_sentences(self._tokenizer, self._waiting)
        if self._seen is not None:
            read = sum(map(bool, encoded))
            encoded = [ids if new else [] for ids, new in zip(encoded, self._seen.first(encoded), strict=True)]
            self.left_out += read - sum(map(bool, encoded))
        ends = iter([*self._ends, -1])
        end = next(ends)
        lengths: list[int] = []
        last: list[int] = []  # of each document that ends here: its sentences' end
        for number in range(len(encoded) + 1):
            while end == number:
                self._end_document(last, len(lengths))
                end = next(ends)
            if number < len(encoded) and encoded[number]:  # nothing to read: as if the line were not there
                if self._begun == LONGEST_DOCUMENT:
                    self._end_document(last, len(lengths))
                lengths.append(len(encoded[number]))
                self._begun += 1
        self._put(0, np.fromiter((i for ids in encoded for i in ids), self._dtype, count=sum(lengths)))
        self._put(1, self.tokens + np.cumsum(lengths, dtype=np.int64))
        self._put(2, np.array(last, dtype=np.int64))
        self.tokens += sum(lengths)
        self.sentences += len(lengths)
        self.documents += len(last)
        self._waiting, self._ends, self._characters = [], [], 0

    def fingerprint(self) -> str:
        return _fingerprint(self._dtype, self._digests)

    def _end_document(self, last: list[int], sentences: int) -> None:
        if self._begun:
            last.append(self.sentences + sentences)
            self._begun = 0

    def _put(self, file: int, array: npt.NDArray[Any]) -> None:
        content = array.tobytes()
        self._digests[file].update(content)
        self._files[file].write(content)


def _sizes(header: Mapping[str, Any]) -> dict[str, int]:
    """The bytes of each file that holds what the header counts."""
    entries = (header["tokens"], header["sentences"] + 1, header["documents"] + 1)
    each = (np.dtype(header["dtype"]).itemsize, 8, 8)
    return {name: count * size for name, count, size in zip(_NAMES, entries, each, strict=True)}


def _fingerprint(dtype: np.dtype[Any], digests: Sequence[Any]) -> str:
    return digest([dtype.name, *(one.hexdigest() for one in digests)])


def _key(sources: Sequence[Source], decides: Sequence[str | None]) -> str | None:
    """A digest of the files' contents and of all that decides what becomes of them; None if a source is no file."""
    total = hasher()
    total.update(json.dumps([_VERSION, LONGEST_DOCUMENT, *decides]).encode())
    for source in sources:
        if not isinstance(source, str | Path) or not os.path.isfile(source):
            return None
        try:
            total.update(bytes.fromhex(digest_of_file(Path(source))))
        except OSError as error:
            raise InputError(f"{source_name(source)}: cannot be read ({error.strerror})") from None
    return total.hexdigest()


def _read(file: FileIO, dtype: np.dtype[Any], start: int, stop: int) -> npt.NDArray[Any]:
    """Entries start … stop − 1 of a file of numbers."""
    size, offset = (stop - start) * dtype.itemsize, start * dtype.itemsize
    if hasattr(os, "pread"):
        content = os.pread(file.fileno(), size, offset)
    else:  # Windows
        file.seek(offset)
        content = file.read(size)
    if len(content) != size:
        raise InputError(f"{getattr(file, 'name', 'the store')}: shorter than it was; build the store again")
    return np.frombuffer(content, dtype)


def encode_sentences(tokenizer: Tokenizer, sentences: Sequence[str]) -> list[list[int]]:
    """Return the ids of each sentence, nothing added; empty where nothing is left to read.

    "[MASK]" and its like, spelled out in a corpus, are ordinary text here, as for Google's tokenizer: a [SEP] in the
    middle of a sentence would tell the model of a boundary that is not there.
    """
    inner = tokenizer.library
    before = inner.encode_special_tokens
    inner.encode_special_tokens = True
    try:
        return [e.ids for e in inner.encode_batch_fast(list(sentences), add_special_tokens=False)]
    finally:
        inner.encode_special_tokens = before


def continues(tokenizer: Tokenizer) -> npt.NDArray[np.bool_]:
    """[V]: whether the piece of that id goes on with a word ("##…")."""
    return np.array([token.startswith("##") for token in tokenizer.tokens(range(tokenizer.vocab_size))])


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """Return a digest of all that decides how text becomes ids."""
    return digest([tokenizer.library.to_str()])
