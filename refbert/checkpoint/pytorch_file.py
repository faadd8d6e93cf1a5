"""pytorch_model.bin without PyTorch, and without running anything that the file asks for.

A .bin file is a pickle, and unpickling calls whatever the pickle names. The unpickler here knows only the names in
`_ALLOWED`, each bound to an inert constructor of ours that records storages, offsets and strides; any other name is
an error before anything is called. Two layouts (torch/serialization.py):

zip     since PyTorch 1.6: an uncompressed archive with data.pkl and one entry data/KEY per storage
legacy  a magic number, a version, the machine's sizes, the objects, the storages' keys (five pickles in a row), then
        per key the number of elements (int64) and their bytes; every BERT published up to 2020 is one of these
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from refbert.checkpoint.safetensors_file import widen_bfloat16
from refbert.errors import CheckpointError

Host = npt.NDArray[Any]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_CHUNK = 1 << 24  # bytes

# bfloat16 is read as its bits and widened.
_STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "<u2",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1",
    "BoolStorage": "?",
}  # fmt: skip


class _Inert:
    """What a pickle gets from us. It may refer to these objects, but the BUILD opcode may not change them."""

    def __setstate__(self, state: object) -> None:
        raise _Damaged("its pickle changes what it may only name")


@dataclass(frozen=True)
class _Kind(_Inert):
    """Stands for a class such as torch.FloatStorage."""

    name: str


@dataclass(frozen=True)
class _Function(_Inert):
    """Stands for a function such as torch._utils._rebuild_tensor_v2."""

    call: Callable[..., object]

    def __call__(self, *args: object) -> object:
        return self.call(*args)


@dataclass
class _Storage(_Inert):
    """One storage: several tensors may be views of it. The device it was on does not matter here."""

    kind: str
    key: str
    size: int  # elements
    data: Host = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class _Tensor(_Inert):
    """A view of a storage; offset and strides are in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Forbidden(Exception):
    pass


class _Damaged(Exception):
    pass


def _rebuild_tensor(storage: object, offset: object, shape: object, strides: object, *_: object) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise _Damaged("a tensor without storage")
    return _Tensor(storage, _whole(offset), _whole_numbers(shape), _whole_numbers(strides))


def _rebuild_parameter(data: object, *_: object) -> object:
    return data


_ALLOWED: Mapping[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _Function(_rebuild_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): _Function(_rebuild_parameter),
    **{("torch", name): _Kind(name) for name in _STORAGES},
}


class _Unpickler(pickle.Unpickler):
    """Knows `_ALLOWED` and nothing else; collects the storages that the pickle refers to."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Forbidden(f"{module}.{name}") from None

    def persistent_load(self, pid: object) -> _Storage:
        """("storage", class, key, device, elements), and in legacy files a sixth item: a view (key, offset, size)."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], _Kind):
            raise _Damaged("a reference that is not to a storage")
        if len(pid) > 5 and pid[5] is not None:
            raise CheckpointError("storages that are views of others (PyTorch before 0.4) are not read")
        kind, key, size = pid[1].name, str(pid[2]), _whole(pid[4])
        storage = self.storages.setdefault(key, _Storage(kind, key, size))
        if (storage.kind, storage.size) != (kind, size):
            raise _Damaged(f"storage {key} is described in two ways")
        return storage


def read_pytorch(path: Path) -> dict[str, Host]:
    """Every tensor of the state dict under the file's own names; bfloat16 is widened to float32.

    A state dict under the key "state_dict" is found too. Raises `CheckpointError` for a file that is cut short or
    damaged, and for one whose pickle names anything but tensors; then nothing of it has been run.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            loaded = _load_zip(file) if zipped else _load_legacy(file)
            return _state_dict(loaded)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except _Forbidden as error:
        raise CheckpointError(
            f"{path}: refused: its pickle asks for {error}, which is not part of a tensor; nothing was run. "
            "Save the weights alone, as safetensors"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    # A damaged pickle can raise nearly anything (documentation of `pickle`), MemoryError included.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path}: damaged or cut short, download it again ({reason})") from error


def _load_zip(file: IO[bytes]) -> object:
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError("a zip archive, but not one that PyTorch wrote (no data.pkl)")
        root = pickles[0].removesuffix("data.pkl")
        order = f"{root}byteorder"
        if order in entries and archive.read(order) != b"little":
            raise CheckpointError("written on a big-endian machine, which refbert does not read")
        unpickler = _Unpickler(io.BytesIO(archive.read(pickles[0])))
        loaded = unpickler.load()
        for storage in unpickler.storages.values():
            info = entries.get(f"{root}data/{storage.key}")
            if info is None:
                raise _Damaged(f"storage {storage.key} is missing")
            if info.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError("a compressed archive, which PyTorch does not write")
            if info.file_size < storage.size * _dtype(storage).itemsize:
                raise _Damaged(f"storage {storage.key} has {info.file_size} bytes for {storage.size} elements")
            with archive.open(info) as stream:  # reading to the end checks the entry's CRC-32
                storage.data = _read(stream, info.file_size).view(_dtype(storage))[: storage.size]
        return loaded


def _load_legacy(file: IO[bytes]) -> object:
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise CheckpointError("not a file that torch.save wrote")
    if _Unpickler(file).load() != _LEGACY_VERSION:
        raise CheckpointError("written by a version of PyTorch that refbert does not know")
    machine = _Unpickler(file).load()
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise CheckpointError("written on a big-endian machine, which refbert does not read")
    unpickler = _Unpickler(file)
    loaded = unpickler.load()
    keys = _Unpickler(file).load()
    if not isinstance(keys, list) or {str(key) for key in keys} != set(unpickler.storages):
        raise _Damaged("the list of storages does not fit the tensors")
    for key in keys:
        storage = unpickler.storages[str(key)]
        size = int(_read(file, 8).view("<i8")[0])
        if size != storage.size:
            raise _Damaged(f"storage {key} has {size} elements, not {storage.size}")
        storage.data = _read(file, size * _dtype(storage).itemsize).view(_dtype(storage))
    return loaded


def _dtype(storage: _Storage) -> np.dtype[Any]:
    return np.dtype(_STORAGES[storage.kind])


def _read(file: IO[bytes], size: int) -> Host:
    """The next ``size`` bytes, in memory that belongs to us alone, so that the arrays are writable."""
    data = np.empty(size, np.uint8)
    at = 0
    while at < size:
        part = file.read(min(size - at, _CHUNK))
        if not part:
            raise _Damaged("it ends too early")
        data[at : at + len(part)] = np.frombuffer(part, np.uint8)
        at += len(part)
    return data


def _state_dict(loaded: object) -> dict[str, Host]:
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict):
        raise CheckpointError(f"holds a {type(loaded).__name__}, not a dictionary of tensors")
    out = {}
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise CheckpointError(f"is not a dictionary of tensors: {name!r} is a {type(tensor).__name__}")
        out[name] = _materialise(name, tensor)
    return out


def _materialise(name: str, tensor: _Tensor) -> Host:
    dtype = _dtype(tensor.storage)
    if len(tensor.shape) != len(tensor.strides):
        raise _Damaged(f"{name} has {len(tensor.shape)} sizes and {len(tensor.strides)} strides")
    if math.prod(tensor.shape):
        last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
        if last >= tensor.storage.size:
            raise _Damaged(f"{name} reaches past its storage of {tensor.storage.size} elements")
        array: Host = np.ndarray(
            tensor.shape,
            dtype,
            tensor.storage.data,
            tensor.offset * dtype.itemsize,
            tuple(stride * dtype.itemsize for stride in tensor.strides),
        )
    else:
        array = np.empty(tensor.shape, dtype)
    return widen_bfloat16(array) if tensor.storage.kind == "BFloat16Storage" else array


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _Damaged(f"{value!r} where a size is expected")
    return value


def _whole_numbers(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple | list):
        raise _Damaged(f"{values!r} where a shape is expected")
    return tuple(_whole(value) for value in values)
