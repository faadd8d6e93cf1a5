"""pytorch_model.bin: both layouts that torch.save writes, every kind of view, and nothing that runs code."""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from checkpoint_files import assert_bitwise, weights

from refbert.checkpoint import read
from refbert.checkpoint.pytorch_file import read_pytorch
from refbert.errors import CheckpointError

WEIGHT = "bert.pooler.dense.weight"

both_layouts = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def save(path, objects, zipped):
    torch.save(objects, path, _use_new_zipfile_serialization=zipped)
    return path


def as_torch(tensors):
    return collections.OrderedDict((name, torch.from_numpy(x.copy())) for name, x in tensors.items())


@both_layouts
def test_a_state_dict(tmp_path, zipped):
    save(tmp_path / "pytorch_model.bin", as_torch(weights()), zipped)
    checkpoint = read(tmp_path)
    assert_bitwise(checkpoint.tensors, weights())
    assert checkpoint.format == "pytorch"
    assert all(x.flags.writeable for x in checkpoint.tensors.values())


@both_layouts
def test_a_module_with_its_metadata_and_parameters(tmp_path, zipped):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    state = module.state_dict(keep_vars=True)
    assert isinstance(state["0.weight"], torch.nn.Parameter)
    assert state._metadata
    found = read_pytorch(save(tmp_path / "pytorch_model.bin", state, zipped))
    assert_bitwise(found, {name: x.detach().numpy() for name, x in state.items()})


@both_layouts
def test_a_state_dict_inside_another_dictionary(tmp_path, zipped):
    path = save(tmp_path / "pytorch_model.bin", {"epoch": 3, "state_dict": as_torch(weights())}, zipped)
    assert_bitwise(read_pytorch(path), weights())


@both_layouts
@pytest.mark.parametrize("keys", [
    ("model_state_dict",), ("model",), ("state_dict", "model"), ("model", "state_dict"), ("checkpoint", "mine"),
    ("ema_state_dict",),
])  # fmt: skip
def test_a_training_checkpoint(tmp_path, zipped, keys):
    """With what training scripts keep beside the weights, and with what wraps the model in front of the names."""
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(2)).sum().backward()
    optimizer.step()
    beside = {"optimizer_state_dict": optimizer.state_dict(), "epoch": 3, "loss": 0.5, "best": None, "log": [1.0, "x"]}
    whole = as_torch({f"module.{name}": x for name, x in weights().items()})
    for key in reversed(keys):
        whole = {**beside, key: whole}
    save(tmp_path / "pytorch_model.bin", whole, zipped)
    assert_bitwise(read(tmp_path).tensors, weights())


def test_a_dictionary_without_weights(tmp_path):
    save(tmp_path / "pytorch_model.bin", {"epoch": 3, "mine": as_torch(weights()), "other": as_torch(weights())}, True)
    with pytest.raises(CheckpointError, match=r"'epoch' is a int \(the weights may be in one called model_state_dict"):
        read(tmp_path)


@both_layouts
def test_views_of_every_kind(tmp_path, zipped):
    base = torch.arange(60, dtype=torch.float32)
    matrix = base.view(6, 10)
    tensors = {
        "base": base,
        "shared": matrix,
        "transposed": matrix.t(),
        "offset": base[7:19],
        "strided": matrix[1::2, 3:9:2],
        "expanded": base[:1].expand(4),
        "permuted": base.view(3, 4, 5).permute(2, 0, 1),
        "scalar": base[5],
        "empty": torch.empty(0, 3),
    }
    found = read_pytorch(save(tmp_path / "pytorch_model.bin", tensors, zipped))
    assert_bitwise(found, {name: x.numpy() for name, x in tensors.items()})
    assert np.shares_memory(found["base"], found["transposed"])


@both_layouts
@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
     torch.bool],
)  # fmt: skip
def test_dtypes(tmp_path, zipped, dtype):
    x = (torch.arange(12).view(3, 4) % 5).to(dtype)
    found = read_pytorch(save(tmp_path / "pytorch_model.bin", {"x": x, "y": x.t()}, zipped))
    assert_bitwise(found, {"x": x.numpy(), "y": x.t().numpy()})


@both_layouts
def test_bfloat16_is_widened(tmp_path, zipped):
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = read_pytorch(save(tmp_path / "pytorch_model.bin", {"x": x, "y": x.t()}, zipped))
    assert_bitwise(found, {"x": x.float().numpy(), "y": x.t().float().numpy()})


@both_layouts
def test_tensors_saved_on_a_gpu(tmp_path, zipped, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    path = save(tmp_path / "pytorch_model.bin", as_torch(weights()), zipped)
    assert b"cuda:0" in path.read_bytes()
    assert_bitwise(read(tmp_path).tensors, weights())


def test_shards(tmp_path):
    tensors = as_torch(weights())
    where = {name: f"pytorch_model-0000{1 + i % 3}-of-00003.bin" for i, name in enumerate(tensors)}
    for file in set(where.values()):
        save(tmp_path / file, {name: x for name, x in tensors.items() if where[name] == file}, True)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))
    checkpoint = read(tmp_path)
    assert_bitwise(checkpoint.tensors, weights())
    assert (checkpoint.format, len(checkpoint.files)) == ("pytorch", 4)
    (tmp_path / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(CheckpointError, match="pytorch_model-00002-of-00003.bin: missing"):
        read(tmp_path)


def test_torch_is_not_imported(tmp_path):
    path = save(tmp_path / "pytorch_model.bin", as_torch(weights()), True)
    code = (
        "import sys, pathlib; from refbert.checkpoint import read; "
        f"read(pathlib.Path({str(path)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Malice


class Shell:
    """Pickles to a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class Evaluate(Shell):
    def __reduce__(self):
        return eval, (f"__import__('os').system({self.command!r})",)


def in_layout(path, payload: bytes, zipped, place=3):
    """A .bin whose pickle is ``payload``; in the legacy layout it may stand in any of the five places."""
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", payload)
        return path
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = [pickle.dumps(x) for x in (0x1950A86A20F9469CFC6C, 1001, machine, {}, [])]
    parts[place] = payload
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("attack", [Shell, Evaluate])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(("zipped", "place"), [(True, 0), *((False, place) for place in range(5))])
def test_a_pickle_that_tries_to_execute_code(tmp_path, attack, protocol, zipped, place):
    witness = tmp_path / "executed"
    payload = pickle.dumps({WEIGHT: attack(f"touch {witness}")}, protocol)
    path = in_layout(tmp_path / "pytorch_model.bin", payload, zipped, place)
    forbidden = f"{os.system.__module__}.system" if attack is Shell else "builtins.eval|__builtin__.eval"
    with pytest.raises(
        CheckpointError, match=f"refused: its pickle asks for ({forbidden}), .*nothing was run"
    ) as caught:
        read(tmp_path)
    assert str(path) in str(caught.value)
    assert not witness.exists()


def test_the_attack_above_is_one(tmp_path):
    """Plain unpickling runs it, so the test above can fail."""
    witness = tmp_path / "executed"
    pickle.loads(pickle.dumps(Shell(f"touch {witness}"), 2))
    assert witness.exists()


def test_a_torch_file_with_an_object_that_is_no_tensor(tmp_path):
    torch.save({WEIGHT: torch.ones(2), "optimizer": torch.device("cpu")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=re.escape("refused: its pickle asks for torch.device")):
        read(tmp_path)


def test_names_that_reach_through_an_allowed_one(tmp_path):
    """Protocol 4 resolves dotted names: collections.OrderedDict.fromkeys.__globals__ and the like."""
    payload = b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93."
    in_layout(tmp_path / "pytorch_model.bin", payload, zipped=True)
    with pytest.raises(CheckpointError, match=re.escape("collections.OrderedDict.fromkeys")):
        read(tmp_path)


@pytest.mark.parametrize("target", [b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n"])
def test_a_pickle_cannot_change_what_it_may_only_name(tmp_path, target):
    """BUILD would set attributes of the one object that stands for torch.FloatStorage, for later files too."""
    payload = b"\x80\x02" + target + b"}X\x04\x00\x00\x00nameX\x0b\x00\x00\x00LongStoragesb."
    in_layout(tmp_path / "pytorch_model.bin", payload, zipped=True)
    with pytest.raises(CheckpointError, match="changes what it may only name"):
        read(tmp_path)
    save(tmp_path / "pytorch_model.bin", as_torch(weights()), True)
    assert_bitwise(read(tmp_path).tensors, weights())


# Damage


@both_layouts
def test_cut_short_anywhere(tmp_path, zipped):
    path = save(tmp_path / "pytorch_model.bin", as_torch(weights()), zipped)
    whole = path.read_bytes()
    for keep in [*range(20), *range(20, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:keep])
        with pytest.raises(CheckpointError, match=re.escape(str(path))) as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_a_zip_is_found(tmp_path):
    path = save(tmp_path / "pytorch_model.bin", as_torch(weights()), True)
    needle = weights()[WEIGHT].tobytes()
    data = bytearray(path.read_bytes())
    data[data.index(needle) + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged.*CRC"):
        read(tmp_path)


def rewrite(path, change):
    """Copy a zip with some entries changed: ``change(name, data)`` returns new data, or None to leave it out."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            changed = change(name, data)
            if changed is not None:
                archive.writestr(name, changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, data: data[:-4] if name.endswith("/data/0") else data, "has 732 bytes for 184 elements"),
        (lambda name, data: None if name.endswith("/data/0") else data, "storage 0 is missing"),
        (lambda name, data: b"big" if name.endswith("/byteorder") else data, "big-endian"),
        (lambda name, data: None if name.endswith("/data.pkl") else data, "not one that PyTorch wrote"),
    ],
)
def test_a_zip_with_parts_missing(tmp_path, change, message):
    path = save(tmp_path / "pytorch_model.bin", as_torch(weights()), True)
    rewrite(path, change)
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path)


def test_a_tensor_that_reaches_past_its_storage(tmp_path):
    """Two torch files with the same names: the larger one's pickle over the smaller one's storage."""
    small = save(tmp_path / "pytorch_model.bin", {"x": torch.ones(4)}, True)
    pickled = io.BytesIO()
    torch.save({"x": torch.ones(4)[2:]}, pickled)
    pickled.seek(0)
    with zipfile.ZipFile(pickled) as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        bad = archive.read(name).replace(b"K\x02K\x02\x85", b"K\x03K\x02\x85")
    rewrite(small, lambda name, data: bad if name.endswith("/data.pkl") else data)
    with pytest.raises(CheckpointError, match="x reaches past its storage of 4 elements"):
        read(tmp_path)


def test_a_legacy_storage_of_another_length(tmp_path):
    path = save(tmp_path / "pytorch_model.bin", {"x": torch.ones(4)}, False)
    data = path.read_bytes()
    size = struct.pack("<q", 4)
    at = data.rindex(size)
    path.write_bytes(data[:at] + struct.pack("<q", 1 << 60) + data[at + 8 :])
    with pytest.raises(CheckpointError, match="storage .* has 1152921504606846976 elements, not 4"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"<html>", pickle.dumps([1, 2]), pickle.dumps(3), bytes(500)])
def test_something_else_altogether(tmp_path, content):
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "pytorch_model.bin"))):
        read(tmp_path)


@both_layouts
@pytest.mark.parametrize("objects", [[1, 2], {"x": 3}, {3: None}])
def test_no_dictionary_of_tensors(tmp_path, zipped, objects):
    save(tmp_path / "pytorch_model.bin", objects, zipped)
    with pytest.raises(CheckpointError, match="not a dictionary of tensors"):
        read(tmp_path)
