"""model.safetensors: mapped, not copied; every float dtype; damage and shards."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from checkpoint_files import assert_bitwise, weights
from safetensors.numpy import load_file, save, save_file

from refbert.backend.reference import ReferenceBackend
from refbert.checkpoint import read
from refbert.checkpoint.safetensors_file import read_safetensors, widen_bfloat16, write_safetensors
from refbert.errors import CheckpointError

WEIGHT = "bert.pooler.dense.weight"


def by_hand(path, entries):
    """A safetensors file from name -> (dtype, shape, bytes), without the library; returns the path."""
    header, data = {}, b""
    for name, (dtype, shape, raw) in entries.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def owner(array):
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def test_float32_is_the_mapped_file_itself(tmp_path):
    expected = weights()
    save_file(expected, tmp_path / "model.safetensors")
    found = read(tmp_path).tensors
    assert_bitwise(found, expected)
    owners = {id(owner(x)) for x in found.values()}
    assert len(owners) == 1
    mapped = owner(found[WEIGHT])
    assert isinstance(mapped, np.memmap)
    assert all(np.shares_memory(x, mapped) and not x.flags.owndata for x in found.values())


def test_reading_takes_no_memory_until_it_is_touched(tmp_path):
    save_file({WEIGHT: np.ones(1 << 26, np.float32)}, tmp_path / "model.safetensors")  # 256 MiB

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    before = resident()
    found = read_safetensors(tmp_path / "model.safetensors")
    assert resident() - before < 1 << 26
    assert found[WEIGHT][-1] == 1


def test_writing_to_a_view_leaves_the_file_alone(tmp_path):
    save_file(weights(), tmp_path / "model.safetensors")
    before = (tmp_path / "model.safetensors").read_bytes()
    read(tmp_path).tensors[WEIGHT][:] = 7
    assert (tmp_path / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_dtypes_are_kept(tmp_path, dtype):
    expected = weights(dtype=dtype)
    save_file(expected, tmp_path / "model.safetensors")
    assert_bitwise(read(tmp_path).tensors, expected)


def test_bfloat16_is_widened_exactly(tmp_path):
    import torch
    from safetensors.torch import save_file as save_torch

    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    save_torch({WEIGHT: x}, tmp_path / "model.safetensors")
    assert_bitwise(read(tmp_path).tensors, {WEIGHT: x.float().numpy()})


def test_bfloat16_keeps_signs_infinities_and_nan():
    found = widen_bfloat16(np.array([0x8000, 0x7F80, 0xFF80, 0x7FC0, 0x3F80], np.uint16))
    np.testing.assert_array_equal(found, np.array([-0.0, np.inf, -np.inf, np.nan, 1.0], np.float32))
    assert np.signbit(found[0])


def test_an_odd_header_length_gives_aligned_arrays(tmp_path):
    raw = np.arange(4, dtype=np.float32)
    path = tmp_path / "model.safetensors"
    for name in ("w", "ww", "www", "wwww"):
        by_hand(path, {name: ("F32", [4], raw.tobytes())})
        found = read_safetensors(path)[name]
        assert found.flags.aligned
        np.testing.assert_array_equal(found, raw)


def test_an_empty_tensor_and_a_scalar(tmp_path):
    save_file({"a": np.zeros((0, 3), np.float32), "b": np.array(2.0)}, tmp_path / "model.safetensors")
    found = read(tmp_path).tensors
    assert found["a"].shape == (0, 3)
    assert found["b"] == 2.0


def test_whole_numbers_are_buffers_or_an_error(tmp_path):
    path = tmp_path / "model.safetensors"
    extra = {"embeddings.position_ids": np.arange(16), "unknown.counter": np.zeros(1, np.int64)}
    save_file(weights() | extra, path)
    checkpoint = read(tmp_path)
    assert_bitwise(checkpoint.tensors, weights())
    assert set(checkpoint.ignored) == set(extra)
    save_file(weights() | {WEIGHT: np.zeros((8, 8), np.int8)}, path)
    with pytest.raises(CheckpointError, match=re.escape(f"{WEIGHT} is int8; of quantised")):
        read(tmp_path)


def test_an_8_bit_float_is_refused(tmp_path):
    by_hand(tmp_path / "model.safetensors", {WEIGHT: ("F8_E4M3", [2], b"\0\0")})
    with pytest.raises(CheckpointError, match=f"{re.escape(WEIGHT)} is F8_E4M3"):
        read(tmp_path)


def test_cut_short_anywhere(tmp_path):
    path = tmp_path / "model.safetensors"
    whole = save(weights())
    header = 8 + int.from_bytes(whole[:8], "little")
    for keep in (0, 4, 8, 100, header - 1, header, header + 1, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(CheckpointError, match=f"{re.escape(str(path))}: damaged or cut short") as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)


def test_not_safetensors_at_all(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"<html>not found</html>" * 9)
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        read(tmp_path)


def test_a_git_lfs_pointer_is_recognised(tmp_path):
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        read(tmp_path)


# Shards


@pytest.fixture
def sharded(tmp_path):
    tensors = weights()
    files = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    where = {name: files[i % 2] for i, name in enumerate(tensors)}
    for file in files:
        save_file({name: x for name, x in tensors.items() if where[name] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return tmp_path


def test_shards(sharded):
    checkpoint = read(sharded)
    assert_bitwise(checkpoint.tensors, weights())
    assert [file.name for file in checkpoint.files] == [
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


def test_a_missing_shard(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00002.safetensors: missing"):
        read(sharded)


def test_a_tensor_that_is_not_in_its_shard(sharded):
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    index["weight_map"]["bert.nowhere"] = "model-00001-of-00002.safetensors"
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="model-00001-of-00002.safetensors: has no bert.nowhere"):
        read(sharded)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "a JSON object is expected"),
        ("{}", "not an index"),
        ('{"weight_map": {}}', "weight_map"),
        ('{"weight_map": {"a": 3}}', "weight_map"),
        ('{"weight_map": {"a": "../other/model.safetensors"}}', "not next to it"),
    ],
)
def test_an_index_that_makes_no_sense(sharded, text, message):
    (sharded / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read(sharded)


def test_what_is_written_the_library_reads(tmp_path):
    """Whatever the order, the dtype and the layout in memory; each tensor at a multiple of its item's size."""
    tensors = {
        "half": np.arange(3, dtype=np.float16),
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "big-endian": np.arange(3, dtype=">f4"),
        "none": np.zeros((0, 2), np.float32),
        "one": np.array(7, np.int64),
    }
    write_safetensors(tmp_path / "x", tensors)
    little = {name: x.astype(x.dtype.newbyteorder("<")) for name, x in tensors.items()}
    assert_bitwise(load_file(tmp_path / "x"), little)
    found = read_safetensors(tmp_path / "x")
    assert_bitwise(found, little)
    assert all(owner(array).base is not None for array in found.values() if array.size)  # none had to be copied


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_is_written_of_a_backend_comes_to_the_host_once(tmp_path, dtype):
    class Counting(ReferenceBackend):
        copies = 0

        def to_numpy(self, x):
            self.copies += 1
            return super().to_numpy(x)

    backend = Counting(dtype=dtype)
    tensors = {"a": np.arange(6, dtype=dtype).reshape(2, 3), "b": np.zeros(3, dtype)}
    write_safetensors(tmp_path / "x", {name: backend.asarray(x) for name, x in tensors.items()}, backend)
    assert backend.copies == len(tensors)
    assert_bitwise(read_safetensors(tmp_path / "x"), tensors)
