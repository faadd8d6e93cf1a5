"""pytorch_model.bin without PyTorch, and without running anything that the file asks for.

A .bin file is a pickle, and unpickling calls whatever the pickle names. `refbert.checkpoint.pickled` knows only the
names in `_KNOWN`, each bound to an inert constructor of ours that records storages, offsets and strides; any other name
is an error before anything is called. Two layouts (torch/serialization.py):

zip     since PyTorch 1.6: an uncompressed archive with data.pkl and one entry data/KEY per storage
legacy  a magic number, a version, the machine's sizes, the objects, the storages' keys (five pickles in a row), then
        per key the number of elements (int64) and their bytes; every BERT published up to 2020 is one of these

The tensors are views of the mapped file, wherever it has them at addresses that NumPy can use.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.checkpoint.budget import DIMENSIONS, PARTS, TENSORS, Budget
from refbert.checkpoint.mapped import blocks, map_file, mapping_of
from refbert.checkpoint.pickled import Damaged, Forbidden, unpickle
from refbert.checkpoint.safetensors_file import widen_bfloat16
from refbert.errors import CheckpointError
from refbert.files.reading import shown

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_LOCAL_HEADER = 30  # of a zip entry: the lengths of name and extra field are its last four bytes

# bfloat16 is read as its bits and widened.
_STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "<u2",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1",
    "BoolStorage": "?",
}  # fmt: skip


@dataclass(frozen=True)
class _Kind:
    """Stands for a class such as torch.FloatStorage."""

    name: str
    dtype: np.dtype[Any]


@dataclass
class _Storage:
    """One storage: several tensors may be views of it. The device it was on does not matter here."""

    kind: _Kind
    key: str
    size: int  # elements
    data: Host = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides are in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: object, offset: object, shape: object, strides: object, *_: object) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise Damaged("a tensor without storage")
    return _Tensor(storage, _whole(offset), _whole_numbers(shape), _whole_numbers(strides))


def _rebuild_parameter(data: object, *_: object) -> object:
    return data


_KNOWN: Mapping[tuple[str, str], object] = {
    ("collections", "OrderedDict"): dict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    **{("torch", name): _Kind(name, np.dtype(dtype)) for name, dtype in _STORAGES.items()},
}


class _Storages(dict[str, _Storage]):
    """The storages that a pickle refers to, by key."""

    def refer(self, identity: object) -> _Storage:
        """("storage", class, key, device, elements), and in legacy files a sixth item: a view (key, offset, size)."""
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
            raise Damaged("a reference that is not to a storage")
        if len(identity) > 5 and identity[5] is not None:
            raise CheckpointError("storages that are views of others (PyTorch before 0.4) are not read")
        kind, key, size = identity[1], _key(identity[2]), _whole(identity[4])
        if not isinstance(kind, _Kind):
            raise Damaged("a reference that is not to a storage")
        storage = self.setdefault(key, _Storage(kind, key, size))
        if (storage.kind, storage.size) != (kind, size):
            raise Damaged(f"storage {key} is described in two ways")
        return storage


def read_pytorch(path: Path) -> dict[str, Host]:
    """Every tensor of the state dict under the file's own names; bfloat16 is widened to float32.

    A state dict inside of another dictionary, as training scripts write it, is found too (`_WEIGHTS`). Raises
    `CheckpointError` for a file that is cut short or damaged, for one that declares more than it holds, and for one
    whose pickle names anything but tensors; then nothing of it has been run.
    """
    try:
        content = map_file(path)
        zipped = content[:4].tobytes() == b"PK\x03\x04"
        loaded = _load_zip(path, content) if zipped else _load_legacy(content)
        return _state_dict(loaded, Budget(content.size, times=TENSORS))
    except CheckpointError as error:
        said = str(error)
        raise (error if said.startswith(f"{path}") else CheckpointError(f"{path}: {said}")) from None
    except Forbidden as error:
        raise CheckpointError(
            f"{path}: refused: its pickle asks for {error}, which is not part of a tensor; nothing was run. "
            "Save the weights alone, as safetensors"
        ) from None
    # A damaged file can raise nearly anything on its way through zipfile and pickletools, MemoryError included.
    except Exception as error:
        raise CheckpointError(
            f"{path}: damaged or cut short, download it again ({error or type(error).__name__})"
        ) from error


def _load_zip(path: Path, content: Host) -> object:
    with zipfile.ZipFile(path) as archive:
        listed = archive.infolist()
    entries = {info.filename: info for info in listed}
    if len(entries) < len(listed):
        raise Damaged("two entries have one name")
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError("a zip archive, but not one that PyTorch wrote (no data.pkl)")
    root = pickles[0].removesuffix("data.pkl")
    order = f"{root}byteorder"
    parts = Budget(content.size, times=PARTS)
    if order in entries and _entry(entries[order], content, parts).tobytes() != b"little":
        raise CheckpointError("written on a big-endian machine, which refbert does not read")
    storages = _Storages()
    loaded = unpickle(io.BytesIO(_entry(entries[pickles[0]], content, parts).tobytes()), _KNOWN, storages.refer)
    for storage in storages.values():
        info = entries.get(f"{root}data/{storage.key}")
        if info is None:
            raise Damaged(f"storage {storage.key} is missing")
        length = storage.size * storage.kind.dtype.itemsize
        if info.file_size < length:
            raise Damaged(f"storage {storage.key} has {info.file_size} bytes for {storage.size} elements")
        storage.data = _aligned(_entry(info, content, parts)[:length], storage.kind.dtype)
    return loaded


def _entry(info: zipfile.ZipInfo, content: Host, parts: Budget) -> Host:
    """The bytes of an entry of the archive, their CRC-32 checked."""
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
        raise CheckpointError("a compressed archive, which PyTorch does not write")
    parts.spend(info.file_size, info.filename)
    header = content[info.header_offset : info.header_offset + _LOCAL_HEADER].tobytes()
    if len(header) < _LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
        raise Damaged(f"{info.filename} is not where the archive says")
    start = info.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", header[-4:]))
    data = _part(content, start, info.file_size)
    crc = 0
    for block in blocks(data, let_go=True):
        crc = zlib.crc32(block.data, crc)
    if crc != info.CRC:
        raise Damaged(f"the CRC of {info.filename} is wrong")
    return data


def _load_legacy(content: Host) -> object:
    file = mapping_of(content)
    if file is None:
        raise Damaged("it is empty")
    storages = _Storages()
    if unpickle(file, _KNOWN, storages.refer) != _LEGACY_MAGIC:
        raise CheckpointError("not a file that torch.save wrote")
    if unpickle(file, _KNOWN, storages.refer) != _LEGACY_VERSION:
        raise CheckpointError("written by a version of PyTorch that refbert does not know")
    machine = unpickle(file, _KNOWN, storages.refer)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise CheckpointError("written on a big-endian machine, which refbert does not read")
    loaded = unpickle(file, _KNOWN, storages.refer)
    keys = unpickle(file, _KNOWN, storages.refer)
    if not isinstance(keys, list) or sorted(map(_key, keys)) != sorted(storages):
        raise Damaged("the list of storages does not fit the tensors")
    at = file.tell()
    for key in keys:
        storage = storages[str(key)]
        size = int.from_bytes(content[at : at + 8].tobytes(), "little")
        if size != storage.size:
            raise Damaged(f"storage {key} has {size} elements, not {storage.size}")
        data = _part(content, at + 8, size * storage.kind.dtype.itemsize)
        storage.data = _aligned(data, storage.kind.dtype)
        at += 8 + data.size
    return loaded


def _part(content: Host, start: int, length: int) -> Host:
    if start + length > content.size:
        raise Damaged("it ends too early")
    return content[start : start + length]


def _aligned(data: Host, dtype: np.dtype[Any]) -> Host:
    """The bytes, moved where they lie at an address that the dtype cannot have."""
    return data if data.ctypes.data % dtype.alignment == 0 else data.copy()


# Where a training script keeps the weights, beside epochs, optimizers and the like.
_WEIGHTS = (
    "model_state_dict", "state_dict", "model_state", "model", "module", "network", "net", "weights", "checkpoint",
)  # fmt: skip


def _state_dict(loaded: object, budget: Budget) -> dict[str, Host]:
    for _ in range(3):  # one inside the other
        if isinstance(loaded, dict):
            called = [found for key in _WEIGHTS if isinstance(found := loaded.get(key), dict)]
            others = [found for found in loaded.values() if _is_state_dict(found)]
            loaded = called[0] if called else others[0] if len(others) == 1 else loaded
    if not isinstance(loaded, dict):
        raise CheckpointError(f"holds a {type(loaded).__name__}, not a dictionary of tensors")
    out = {}
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            where = f"the weights may be in one called {', '.join(_WEIGHTS[:4])}"
            raise CheckpointError(f"is not a dictionary of tensors: {name!r} is a {type(tensor).__name__} ({where})")
        out[name] = _materialise(name, tensor, budget)
    return out


def _is_state_dict(value: object) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(one, _Tensor) for one in value.values())


def _materialise(name: str, tensor: _Tensor, budget: Budget) -> Host:
    storage, shape, dtype = tensor.storage, tensor.shape, tensor.storage.kind.dtype
    budget.tensor(name, shape, dtype.itemsize)
    if len(shape) != len(tensor.strides):
        raise Damaged(f"{name} has {len(shape)} sizes and {len(tensor.strides)} strides")
    if math.prod(shape):
        last = tensor.offset + sum((n - 1) * stride for n, stride in zip(shape, tensor.strides, strict=True))
        if last >= storage.size:
            raise Damaged(f"{name} reaches past its storage of {storage.size} elements")
        strides = tuple(stride * dtype.itemsize for stride in tensor.strides)
        array: Host = np.ndarray(shape, dtype, storage.data, tensor.offset * dtype.itemsize, strides)
    else:
        array = np.empty(shape, dtype)
    return widen_bfloat16(array) if storage.kind.name == "BFloat16Storage" else array


def _key(value: object) -> str:
    if not isinstance(value, str | int):
        raise Damaged(f"{shown(value)} where the name of a storage is expected")
    return str(value)


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise Damaged(f"{shown(value)} where a size is expected")
    return value


def _whole_numbers(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > DIMENSIONS:
        raise Damaged(f"{shown(values)} where a shape is expected")
    return tuple(_whole(value) for value in values)
