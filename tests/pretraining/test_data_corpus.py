"""Files to sentences: where documents end, what a file may not be, and that no format needs a whole file."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest

from refbert.data import corpus
from refbert.data.corpus import read_sentences
from refbert.errors import InputError


def read(path_or_files, *args, **kwargs):
    sources = path_or_files if isinstance(path_or_files, list) else [path_or_files]
    documents = [[]]
    for item in read_sentences(sources, *args, **kwargs):
        if item is None:
            assert documents[-1]  # never twice in a row, never first
            documents.append([])
        else:
            documents[-1].append(item)
    assert documents.pop() == []  # the last document has ended too
    return documents


def test_lines(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeff\n\n One. \r\nTwo\u2028 two.\r\n\r\n \t \nThrée.".encode())
    assert read(file) == [["One.", "Two\u2028 two."], ["Thrée."]]
    assert read(file, documents="file") == [["One.", "Two\u2028 two.", "Thrée."]]
    # A document ends with its file.
    assert read([file, io.BytesIO(b"Four.\n")]) == [["One.", "Two\u2028 two."], ["Thrée."], ["Four."]]


def test_raw():
    pytest.importorskip("nupunkt")
    text = b"Dr. Smith went to\nWashington. He came\nback on Jan. 5.\n\nA new document. It is short.\n"
    first = ["Dr. Smith went to Washington.", "He came back on Jan. 5."]
    second = ["A new document.", "It is short."]
    assert read([io.BytesIO(text)], "raw") == [first, second]
    assert read([io.BytesIO(text)], "raw", documents="file") == [first + second]


def test_raw_text_without_line_breaks_is_split_as_it_comes(monkeypatch):
    pytest.importorskip("nupunkt")
    sentence = "This sentence is number {} of the café's paragraph."
    expected = [sentence.format(i) for i in range(400)]
    text = " ".join(expected).encode()
    monkeypatch.setattr(corpus, "_READ", 97)  # cuts words, and characters of two bytes
    monkeypatch.setattr(corpus, "_PARAGRAPH", 300)
    assert read([io.BytesIO(text)], "raw") == [expected]
    endless = b"word " * 1000
    found = read([io.BytesIO(endless)], "raw")[0]
    assert " ".join(found).split() == ["word"] * 1000
    assert max(map(len, found)) <= 300 + 97


@pytest.mark.parametrize("kind", ["parquet", "arrow file", "arrow stream"])
def test_parquet_and_arrow(tmp_path, kind):
    arrow = pytest.importorskip("pyarrow")
    pytest.importorskip("nupunkt")
    from pyarrow import ipc, parquet

    texts = [f"Document {i} begins. It ends\n\nA paragraph." for i in range(150)]
    table = arrow.table({"id": list(range(150)), "text": [*texts[:-1], None], "title": ["t"] * 150})
    split = arrow.table({"sentences": [["One. Not split.", " Two "], [], ["Three", ""]]})
    for number, content in enumerate((table, split)):
        path = tmp_path / f"{number}"
        if kind == "parquet":
            parquet.write_table(content, path, row_group_size=40)
        else:
            new = ipc.new_file if kind == "arrow file" else ipc.new_stream
            with new(path, content.schema) as writer:
                writer.write_table(content, max_chunksize=40)
    found = read(tmp_path / "0", "parquet")
    assert len(found) == 149
    assert found[7] == ["Document 7 begins.", "It ends", "A paragraph."]
    assert read(tmp_path / "0", "parquet", column="title") == [["t"]] * 150
    assert read(tmp_path / "1", "parquet") == [["One. Not split.", "Two"], ["Three"]]
    with pytest.raises(InputError, match=r"no column of text 'id' \(columns: id, text, title\)"):
        read(tmp_path / "0", "parquet", column="id")


def test_one_line_for_what_cannot_be_read(tmp_path):
    def written(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    line = corpus.LONGEST_LINE
    cases = {
        "nothing: no text in it": (written("nothing", b""), "lines"),
        "blank: no text in it": (written("blank", b"\n \n\t\n"), "lines"),
        "missing: cannot be read": (tmp_path / "missing", "lines"),
        f"{tmp_path.name}: cannot be read": (tmp_path, "lines"),
        "latin, line 3: not UTF-8": (written("latin", b"one\ntwo\ncaf\xe9 au lait\nfour\n"), "lines"),
        "cut, line 2: not UTF-8": (written("cut", b"one\ntwo \xc3"), "lines"),
        "utf16, line 1: not UTF-8": (written("utf16", "text".encode("utf-16")), "raw"),
        "long, line 2: longer than": (written("long", b"one\n" + b"x" * line + b" more\n"), "lines"),
        "the format must be one of": (written("some", b"one\n"), "csv"),
        "nothing: cannot be read as Parquet": (tmp_path / "nothing", "parquet"),
        "half: cannot be read as Parquet": (written("half", b"PAR1 and no more"), "parquet"),
    }
    pytest.importorskip("pyarrow")
    for message, (path, form) in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            read(path, form)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="name at least one file"):
        read([])
    stdin = io.BytesIO()
    stdin.name = "<stdin>"
    with pytest.raises(InputError, match="stdin: no text"):
        read([stdin])


@pytest.mark.parametrize("kind", ["file", "stream"])
@pytest.mark.parametrize("column", ["text", "sentences"])
@pytest.mark.parametrize("wrong", [2**20, -8, 3])
def test_offsets_that_point_out_of_their_buffer(tmp_path, kind, column, wrong):
    """Read as they stand they show what lies in memory beside the file, or crash; the third one runs backwards."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import ipc

    words = ["a cat", "a dog sat", "the mat!", "on it"]
    rows = words if column == "text" else [[word] for word in words]
    table = arrow.table(
        {column: arrow.array(rows, arrow.string() if column == "text" else arrow.list_(arrow.string()))}
    )
    path = tmp_path / "x.arrow"
    with (ipc.new_file if kind == "file" else ipc.new_stream)(path, table.schema) as writer:
        writer.write_table(table)
    content = path.read_bytes()
    ends = np.cumsum([0, *map(len, words)], dtype="<i4")  # where each text begins, and the last one ends
    assert content.count(ends.tobytes()) == 1
    changed = ends.copy()
    changed[-2] = wrong
    path.write_bytes(content.replace(ends.tobytes(), changed.tobytes()))
    with pytest.raises(InputError, match="x.arrow: cannot be read as Parquet or Arrow"):
        read(path, "parquet")


@pytest.mark.parametrize(("module", "form", "extra"), [("nupunkt", "raw", "raw"), ("pyarrow", "parquet", "arrow")])
def test_a_missing_extra_is_named(monkeypatch, module, form, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf'pip install "refbert\[{extra}\]"'):
        read([io.BytesIO(b"Text.\n")], form)


def test_progress_counts_the_bytes(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"a sentence\n" * 20_000)
    seen = []
    read(file, progress=seen.append)
    assert sum(seen) == 220_000
    assert len(seen) > 2


def test_two_columns_of_one_name(tmp_path):
    import pyarrow as pa

    table = pa.table([pa.array(["a cat"]), pa.array([1])], names=["text", "text"])
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(InputError, match="two columns are called 'text'"):
        list(read_sentences([tmp_path / "x.arrow"], "parquet"))
