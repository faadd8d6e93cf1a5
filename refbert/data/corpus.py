"""Read text files or stdin as documents of sentences, one at a time: only the line being read is held.

    lines     one sentence per line, a blank line between documents (Google's create_pretraining_data.py)
    raw       running text; sentences are found by nupunkt (the extra ``raw``)
    parquet   Parquet or Arrow through pyarrow (the extra ``arrow``): a row is a document, either a list of sentences or
              raw text

A document also ends where a file ends; Google's code lets a file go on in the next one. ``documents="file"`` makes each
file one document: blank lines then only end paragraphs, which no sentence crosses.
"""

from __future__ import annotations

import codecs
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any, Literal

from refbert.errors import InputError

Source = str | Path | IO[bytes]
Format = Literal["lines", "raw", "parquet"]
Documents = Literal["blank-line", "file"]
Progress = Callable[[int], object]

FORMATS: tuple[Format, ...] = ("lines", "raw", "parquet")

# No sentence is this long: it is a file of another kind, and would have to be held whole.
LONGEST_LINE = 2**20
# Raw text is split once this much of a paragraph has been read; what may not be finished waits for more.
_PARAGRAPH = 2**16
_READ = 2**16
_ROWS = 64


def read_sentences(
    sources: Sequence[Source],
    format: Format = "lines",
    *,
    documents: Documents = "blank-line",
    column: str | None = None,
    progress: Progress | None = None,
) -> Iterator[str | None]:
    """Yield the sentences, stripped, and None at each end of a document (never twice in a row, never first).

    ``sources`` are paths or binary files such as ``sys.stdin.buffer``; ``column`` names a Parquet file's column where
    it has several of text. ``progress`` is called with the bytes read since its last call. Raises `InputError` for a
    source that cannot be read, is not UTF-8 (with the line), has a line longer than `LONGEST_LINE` bytes, or holds no
    sentence.
    """
    if format not in FORMATS:
        raise InputError(f"the format must be one of {', '.join(FORMATS)}, not {format!r}")
    if not sources:
        raise InputError("no text: name at least one file")
    report = progress or (lambda size: None)
    for source in sources:
        name = source_name(source)
        within = False  # a document that has a sentence
        found = False
        try:
            # Only what is opened here is closed.
            with open(source, "rb") if isinstance(source, str | Path) else nullcontext(source) as file:
                if format == "parquet":
                    items = _rows(file, name, column, report)
                elif format == "raw":
                    items = _raw(file, name, documents, report)
                else:
                    items = _lines(file, name, documents, report)
                for sentence in items:
                    if sentence is not None:
                        within = found = True
                        yield sentence
                    elif within:
                        within = False
                        yield None
        except OSError as error:
            raise InputError(f"{name}: cannot be read ({error.strerror or error})") from None
        if not found:
            raise InputError(f"{name}: no text in it")
        if within:
            yield None


def source_name(source: Source) -> str:
    """What a message calls it: the path, or "stdin"."""
    if isinstance(source, str | Path):
        return str(source)
    return str(getattr(source, "name", "the file")).replace("<stdin>", "stdin")


def _lines(file: IO[bytes], name: str, documents: Documents, report: Progress) -> Iterator[str | None]:
    for number, text, whole in _decoded(file, name, LONGEST_LINE, report):
        if not whole:
            raise InputError(
                f"{name}, line {number}: longer than {LONGEST_LINE:,} bytes; text that is not one sentence per line is "
                'read with the format "raw"'
            )
        sentence = text.strip()
        if sentence:
            yield sentence
        elif documents == "blank-line":
            yield None


def _raw(file: IO[bytes], name: str, documents: Documents, report: Progress) -> Iterator[str | None]:
    split = _splitter()
    paragraph = ""
    begins = True  # a line, not the middle of a long one
    for _, text, whole in _decoded(file, name, _READ, report):
        if begins and whole and not text.strip():
            yield from split(paragraph)
            paragraph = ""
            if documents == "blank-line":
                yield None
        else:
            paragraph += text  # the newline is white space to the splitter, and is made one below
            if len(paragraph) > _PARAGRAPH:
                *finished, rest = split(paragraph) or [""]
                yield from finished
                if len(rest) > _PARAGRAPH:  # no sentence is that long, and text without stops would be held whole
                    head, _, tail = rest.rpartition(" ")
                    yield head or rest
                    rest = tail if head else ""
                paragraph = rest + ("\n" if paragraph[-1].isspace() else "")
        begins = whole
    yield from split(paragraph)


def _decoded(file: IO[bytes], name: str, most: int, report: Progress) -> Iterator[tuple[int, str, bool]]:
    """(line number from 1, its text, whether the line ends here); longer lines come in parts of ``most`` bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    number, unreported, first = 1, 0, True
    while part := file.readline(most):
        whole = part.endswith(b"\n") or len(part) < most
        try:
            text = decoder.decode(part, final=whole)
        except UnicodeDecodeError as error:
            raise InputError(f"{name}, line {number}: not UTF-8 ({error.reason}); convert the file first") from None
        if first:
            text = text.removeprefix("\ufeff")  # the byte order mark that some editors write
            first = False
        yield number, text, whole
        number += part.endswith(b"\n")
        unreported += len(part)
        if unreported >= _READ:
            report(unreported)
            unreported = 0
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise InputError(f"{name}, line {number}: not UTF-8 (unexpected end of data); convert the file first") from None
    report(unreported)


def _splitter() -> Callable[[str], list[str]]:
    try:
        import nupunkt
    except ImportError:
        raise InputError('raw text needs nupunkt to find sentences: pip install "refbert[raw]"') from None

    def split(paragraph: str) -> list[str]:
        # Lines of running text break anywhere; to the splitter a line break could be the end of a heading.
        text = " ".join(paragraph.split())
        found = [str(sentence) for sentence in nupunkt.sent_tokenize(text)] if text else []
        return [sentence.strip() for sentence in found if sentence.strip()]

    return split


def _rows(file: IO[bytes], name: str, column: str | None, report: Progress) -> Iterator[str | None]:
    """Each row's sentences, then None. Arrow's two formats are told from Parquet by their first bytes."""
    try:
        import pyarrow as arrow
        from pyarrow import ipc, parquet
    except ImportError:
        raise InputError('Parquet and Arrow files need pyarrow: pip install "refbert[arrow]"') from None
    if not file.seekable():
        raise InputError(f"{name}: Parquet and Arrow are read from files, not from a pipe")
    head, size = file.read(6), file.seek(0, os.SEEK_END)
    file.seek(0)
    held = _Held(file, size)
    batches: Iterator[Any]
    try:
        if head.startswith(b"PAR1"):
            table = parquet.ParquetFile(held, pre_buffer=False)
            chosen = _column(table.schema_arrow, name, column, arrow)
            rows = table.metadata.num_rows
            batches = table.iter_batches(batch_size=_ROWS, columns=[chosen], use_threads=False)
        elif head == b"ARROW1":
            opened = ipc.open_file(held)
            chosen, rows = _column(opened.schema, name, column, arrow), 0
            batches = (opened.get_batch(i) for i in range(opened.num_record_batches))
        else:
            stream = ipc.open_stream(held)
            chosen, rows = _column(stream.schema, name, column, arrow), 0
            batches = iter(stream)
        split: Callable[[str], list[str]] | None = None
        for batch in batches:
            values = batch.column(batch.schema.get_field_index(chosen))
            values.validate(full=True)  # offsets that point out of their buffer would be followed
            for row in values:
                value = row.as_py()
                if isinstance(value, str):
                    split = split or _splitter()
                    for paragraph in value.split("\n\n"):
                        yield from split(paragraph)
                else:
                    yield from (line.strip() for line in value or () if line and line.strip())
                yield None
            if rows:
                report(size * batch.num_rows // rows)
    except (arrow.ArrowException, UnicodeDecodeError, MemoryError) as error:
        reason = str(error).partition("\n")[0] or "it asks for more memory than there is"
        raise InputError(f"{name}: cannot be read as Parquet or Arrow ({reason})") from None
    if not rows:
        report(size)


class _Held(io.RawIOBase):
    """A file that gives no more than it has: room for what is asked for is made before anything is read.

    To close it leaves the file open, which is closed by who opened it.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._size - self._file.tell())
        return self._file.read(left if count < 0 else min(count, left))

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _column(schema: Any, name: str, column: str | None, arrow: Any) -> str:
    """The column of text: the one asked for, "text", or the only one."""

    def is_text(kind: Any) -> bool:
        return bool(arrow.types.is_string(kind) or arrow.types.is_large_string(kind))

    def holds_text(kind: Any) -> bool:
        is_list = arrow.types.is_list(kind) or arrow.types.is_large_list(kind)
        return is_text(kind) or (is_list and is_text(kind.value_type))

    of_text = [field.name for field in schema if holds_text(field.type)]
    fits = [column] if column is not None else ["text"] if "text" in of_text else of_text
    if len(fits) != 1 or fits[0] not in of_text:
        wanted = "no column of text" if column is None else f"no column of text {column!r}"
        if len(fits) > 1:
            wanted = "several columns of text, none of them named text"
        raise InputError(f"{name}: {wanted} (columns: {', '.join(schema.names)})")
    if schema.names.count(fits[0]) > 1:
        raise InputError(f"{name}: two columns are called {fits[0]!r}")
    return fits[0]
