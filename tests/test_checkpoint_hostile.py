"""Small files that declare large things: refused in one line, before anything of the size is made."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from checkpoint_files import assert_bitwise, entry, message, number, table, weights
from hostile import bounded, refused

from refbert.checkpoint import pickled, read
from refbert.checkpoint.budget import Budget, OverBudget, check_shape
from refbert.checkpoint.pytorch_file import read_pytorch
from refbert.errors import CheckpointError

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
MACHINE = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)


def spin():
    while True:
        pass


def test_the_limits_of_these_tests_bite():
    with bounded(megabytes=64), pytest.raises(MemoryError):
        bytearray(1 << 28)
    with bounded(seconds=0.2), pytest.raises(TimeoutError):
        spin()


# Budgets


def test_a_budget_is_spent_once():
    budget = Budget(100, times=2)
    budget.tensor("a", (5, 5), 4)
    budget.spend(100, "b")
    budget.spend(0, "nothing")
    with pytest.raises(OverBudget, match="damaged: c asks for more than a file of 100 bytes can hold"):
        budget.spend(1, "c")


@pytest.mark.parametrize("shape", [(1,) * 33, (1,) * 65, (0, 1 << 63), (1 << 40, 1 << 40, 0), (-1,)])
def test_shapes_that_no_array_has(shape):
    with pytest.raises(OverBudget):
        check_shape("x", shape)


# Pickles


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def whole(n: int) -> bytes:
    return pickle.dumps(n, 2)[2:-1]


def storage(key: str, elements: int, kind: str = "FloatStorage") -> bytes:
    """The reference to a storage, on the stack."""
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + whole(elements) + b"tQ"


def tensor(reference: bytes, shape: bytes, strides: bytes, offset: int = 0) -> bytes:
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference + whole(offset) + shape + strides
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(whole, values)) + b"t"


def write_zip(path, payload: bytes, storages=(("0", bytes(64)),)):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        for key, data in storages:
            archive.writestr(f"archive/data/{key}", data)
    return path


def write_legacy(path, payload: bytes, storages=(("0", bytes(64)),)):
    keys = pickle.dumps([key for key, _ in storages], 2)
    data = b"".join(struct.pack("<q", len(raw) // 4) + raw for _, raw in storages)
    path.write_bytes(MAGIC + MACHINE + payload + keys + data)
    return path


layouts = pytest.mark.parametrize("write", [write_zip, write_legacy])


def state(*items: tuple[str, bytes]) -> bytes:
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in items) + b"u."


@layouts
def test_these_builders_build(tmp_path, write):
    payload = state(("x", tensor(storage("0", 16), numbers(2, 8), numbers(8, 1))))
    assert_bitwise(read_pytorch(write(tmp_path / "pytorch_model.bin", payload)), {"x": np.zeros((2, 8), np.float32)})


@layouts
@pytest.mark.parametrize(
    "shape", [(1 << 31,), (1 << 20, 1 << 20), (1 << 40, 1 << 40), (1,) * 65, (1 << 64,), (0, 1 << 61, 1 << 61)]
)
def test_a_tensor_with_stride_0(tmp_path, write, shape):
    reference = storage("0", 16)
    payload = state(("bert.pooler.dense.weight", tensor(reference, numbers(*shape), numbers(*[0] * len(shape)))))
    refused(CheckpointError, "damaged", read, write(tmp_path / "pytorch_model.bin", payload))


@layouts
def test_many_names_for_one_storage(tmp_path, write):
    """Not one of them is larger than its storage."""
    reference = storage("0", 1 << 18)
    value = tensor(reference, numbers(1 << 9, 1 << 9), numbers(1 << 9, 1))
    items = [(f"bert.encoder.layer.{i}.output.dense.weight", value) for i in range(5000)]
    path = write(tmp_path / "pytorch_model.bin", state(*items), [("0", bytes(1 << 20))])
    refused(CheckpointError, "asks for more than a file of .* bytes can hold", read, path)


def test_a_tied_tensor_may_have_two_names(tmp_path):
    reference = storage("0", 1 << 18)
    matrix = tensor(reference, numbers(512, 512), numbers(512, 1))
    decoder = tensor(reference, numbers(512, 512), numbers(512, 1))
    path = write_zip(
        tmp_path / "pytorch_model.bin",
        state(("bert.embeddings.word_embeddings.weight", matrix), ("cls.predictions.decoder.weight", decoder)),
        [("0", bytes(1 << 20))],
    )
    assert set(read(path).tensors) == {"bert.embeddings.word_embeddings.weight"}


@layouts
@pytest.mark.parametrize(
    ("what", "payload"),
    [
        ("a memo far beyond the others", b"\x80\x02]r\xff\xff\xff\x7f."),
        ("a memo as text", b"\x80\x02]p4294967295\n."),
        ("a text longer than the file", b"\x80\x02X\xff\xff\xff\xff."),
        ("bytes longer than any file", b"\x80\x05\x8e" + b"\xff" * 7 + b"\x7f."),
        ("a bytearray", b"\x80\x05\x96" + struct.pack("<Q", 1 << 35) + b"."),
        ("a frame", b"\x80\x05\x95" + struct.pack("<Q", 1 << 35) + b"]."),
        ("a number of 2 GB", b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b"."),
        ("a number of 6,000 digits", b"\x80\x02I" + b"7" * 6000 + b"\n."),
        ("a deep tuple as a key", b"\x80\x02})" + b"\x85" * 400_000 + b"Ns."),
        ("a tuple of itself twice, 60 deep, as a key",
         b"\x80\x02}K\x01" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60)) + b"Ns."),
        ("a deep tuple as a storage's name",
         b"\x80\x02(" + text("storage") + b"ctorch\nFloatStorage\n)" + b"\x85" * 200_000 + text("cpu") + b"K\x10tQ."),
        ("a long number as a key, often",
         b"\x80\x02}\x8b" + struct.pack("<i", 100_000) + b"\x11" * 100_000 + b"q\x000" + b"h\x00Ns" * 50_000 + b"."),
        ("a dictionary of a long list, often",
         b"\x80\x02](" + b"K\x01K\x02\x86" * 20_000 + b"eq\x00\x85q\x010"
         + b"ccollections\nOrderedDict\nh\x01R" * 20_000 + b"."),
        ("a long tuple as a shape, often",
         b"\x80\x02(" + b"K\x01" * 100_000 + b"tq\x010"
         + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage("0", 16) + b"K\x00h\x01h\x01tR" * 1000 + b"."),
        ("nothing but dictionaries", b"\x80\x02" + b"}" * 1_000_000 + b"."),
        ("nothing but marks", b"\x80\x02" + b"(" * 1_000_000 + b"."),
        ("an empty stack", b"\x80\x02."),
        ("an item too many", b"\x80\x02s."),
        ("a call of what was called", b"\x80\x02ccollections\nOrderedDict\n)R)R."),
        ("a set", b"\x80\x04\x8f."),
    ],
)  # fmt: skip
def test_pickles_that_ask_for_too_much(tmp_path, write, what, payload):
    refused(CheckpointError, "damaged|not a", read, write(tmp_path / "pytorch_model.bin", payload), megabytes=400)


def test_a_pickle_may_not_take_more_steps_than_any_needs(monkeypatch):
    payload = pickle.dumps({"a": [1, 2, 3]}, 2)
    assert pickled.unpickle(io.BytesIO(payload), {}, repr) == {"a": [1, 2, 3]}
    monkeypatch.setattr(pickled, "STEPS", 5)
    with pytest.raises(pickled.Damaged, match="more than 5 steps"):
        pickled.unpickle(io.BytesIO(payload), {}, repr)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_what_pickle_makes_of_them(protocol):
    shared = [1, "ü", None]
    value = {"a": shared, "b": (shared, True, -1.5, 1 << 70), 3: {"deep": [[], (), {}]}, "long": "x" * 300}
    value["b"][0].append(("1", 2, 3, 4.0))
    found = pickled.unpickle(io.BytesIO(pickle.dumps(value, protocol)), {}, repr)
    assert found == value
    assert found["a"] is found["b"][0]


def test_a_state_dict_of_python_2(tmp_path):
    """Where OrderedDict is made of a list of pairs, and names are bytes."""
    payload = (
        b"\x80\x02ccollections\nOrderedDict\n](]" + b"U\x01x" + tensor(storage("0", 16), numbers(16), numbers(1))
        + b"\x86e\x85R."
    )  # fmt: skip
    payload = payload.replace(b"](]U", b"](U")
    assert_bitwise(read_pytorch(write_legacy(tmp_path / "pytorch_model.bin", payload)), {"x": np.zeros(16, np.float32)})


# Zip archives


def entry_of_zip(
    name: str, data: bytes, *, at: int, claims: int | None = None, crc: int | None = None, method: int = 0
):
    """(local header and data, the line of the directory)."""
    size = len(data) if claims is None else claims
    fields = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0x21, zlib.crc32(data), size, size, len(name), 0)
    local = b"PK\x03\x04" + fields + name.encode() + data
    return local, b"PK\x01\x02" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, at) + name.encode()


def zip_of(locals_, directory) -> bytes:
    body, lines = b"".join(locals_), b"".join(directory)
    end = struct.pack("<HHHHIIH", 0, 0, len(directory), len(directory), len(lines), len(body), 0)
    return body + lines + b"PK\x05\x06" + end


def test_entries_that_lie_over_each_other(tmp_path):
    """2,000 storages of 1 MB, all of them the same megabyte."""
    items = [(f"t{i}", tensor(storage(str(i), 1 << 18), numbers(1 << 18), numbers(1))) for i in range(2000)]
    pickled_, line = entry_of_zip("archive/data.pkl", state(*items), at=0)
    data, _ = entry_of_zip("archive/data/0000", bytes(1 << 20), at=len(pickled_))
    lines = [entry_of_zip(f"archive/data/{i}", bytes(1 << 20), at=len(pickled_))[1] for i in range(2000)]
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(zip_of([pickled_, data], [line, *lines]))
    refused(CheckpointError, "asks for more than a file", read, path)


@pytest.mark.parametrize("what", ["archive/data.pkl", "archive/byteorder", "archive/data/0"])
def test_entries_that_inflate(tmp_path, what):
    path = tmp_path / "pytorch_model.bin"
    parts = {
        "archive/data.pkl": state(("x", tensor(storage("0", 1 << 26), numbers(1 << 26), numbers(1)))),
        "archive/byteorder": b"little",
        "archive/data/0": bytes(64),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            inflating = name == what
            archive.writestr(name, bytes(1 << 28) if inflating else data,
                             compress_type=zipfile.ZIP_DEFLATED if inflating else zipfile.ZIP_STORED)  # fmt: skip
    refused(CheckpointError, "compressed|damaged", read, path, megabytes=200)


@pytest.mark.parametrize("claims", [1 << 20, (1 << 32) - 2])
def test_an_entry_that_claims_more_than_the_file(tmp_path, claims):
    payload = state(("x", tensor(storage("0", claims // 4), numbers(claims // 4), numbers(1))))
    first, line = entry_of_zip("archive/data.pkl", payload, at=0)
    second, other = entry_of_zip("archive/data/0", bytes(64), at=len(first), claims=claims)
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(zip_of([first, second], [line, other]))
    refused(CheckpointError, "asks for more than a file", read, path)


def test_two_entries_of_one_name(tmp_path):
    first, line = entry_of_zip("archive/data.pkl", state(), at=0)
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(zip_of([first, first], [line, line]))
    refused(CheckpointError, "two entries have one name", read, path)


# safetensors


def write_safetensors(path, header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


@pytest.mark.parametrize(
    "header",
    [
        {"x": {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]}},
        {"x": {"dtype": "F32", "shape": [0, 1 << 62, 1 << 62], "data_offsets": [0, 0]}},
        {"x": {"dtype": "F32", "shape": [1 << 31, 1 << 31], "data_offsets": [0, 4]}},
        b'{"x": ' + b"[" * 100_000,
        b'{"x": {"dtype": "F32", "shape": [' + b"7" * 5000 + b'], "data_offsets": [0, 4]}}',
        b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, '
        b'"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
        b'\xef\xbb\xbf{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"\xff": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
        {"x\x1b[31m\n" * 10_000: {"dtype": "F8_E5M2", "shape": [4], "data_offsets": [0, 4]}},
    ],
)
def test_headers_of_safetensors(tmp_path, header):
    refused(
        CheckpointError,
        r"model\.safetensors",
        read,
        write_safetensors(tmp_path / "model.safetensors", header, bytes(4)),
    )


def test_an_index_that_names_one_file_many_times(tmp_path):
    """By hard links: read as a pickle, each would be in memory once more."""
    torch.save({name: torch.from_numpy(x) for name, x in weights().items()}, tmp_path / "0.bin")
    for i in range(1, 4):
        (tmp_path / f"{i}.bin").hardlink_to(tmp_path / "0.bin")
    where = {name: f"{i % 4}.bin" for i, name in enumerate(weights())}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))
    refused(CheckpointError, r"1\.bin: the same file as 0\.bin", read, tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "bert_model.ckpt.index", "x.index.json"])
def test_pipes_in_the_place_of_files(tmp_path, name):
    """To open one would be to wait for ever."""
    os.mkfifo(tmp_path / name)
    refused(CheckpointError, "no weights", read, tmp_path)
    with pytest.raises(CheckpointError):
        read(tmp_path / name)


# TensorFlow


def bundle(tmp_path, items, data=bytes(64), **layout):
    (tmp_path / "bert_model.ckpt.data-00000-of-00001").write_bytes(data)
    header = {b"": number(1, 1) + message(3, number(1, 1))}
    index = tmp_path / "bert_model.ckpt.index"
    index.write_bytes(table(header | items, **layout))
    return index


def test_names_that_share_their_beginnings(tmp_path):
    """A few bytes a name in the file, each of them 2,000 long."""
    value = entry(1, (1,), 0, 0, bytes(4))
    names = {b"x" * 2000 + b"%04d" % i: value for i in range(2000)}
    index = bundle(tmp_path, names, per_block=1 << 20, restart_every=1 << 20)
    assert index.stat().st_size < 1 << 17
    refused(CheckpointError, "the length of its names asks for more", read, index, megabytes=200)


def test_tensors_that_are_one_region(tmp_path):
    data = bytes(1 << 20)
    value = entry(1, (1 << 9, 1 << 9), 0, 0, data)
    index = bundle(tmp_path, {f"bert/encoder/layer_{i}/output/dense/kernel".encode(): value for i in range(1000)}, data)
    refused(CheckpointError, "asks for more than a file of 1,048,576 bytes", read, index)


@pytest.mark.parametrize("shape", [(1,) * 65, (0, 1 << 62, 1 << 62), (1 << 40, 0), (1 << 63,)])
def test_shapes_in_an_index(tmp_path, shape):
    index = bundle(tmp_path, {b"bert/pooler/dense/bias": entry(1, shape, 0, 0, b"")})
    if shape == (1 << 40, 0):
        assert read(index).tensors["bert.pooler.dense.bias"].shape == shape
    else:
        refused(CheckpointError, "damaged", read, index)
