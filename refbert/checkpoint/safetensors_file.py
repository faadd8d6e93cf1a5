"""model.safetensors, read and written: the weights are the file, memory-mapped.

Format (huggingface/safetensors, README): u64 little-endian length of the header, the header as JSON
{name: {dtype, shape, data_offsets}}, then the data. The safetensors library checks the header (overlaps, holes, sizes,
the file's length); the arrays are then views of one private mapping: a page is read when it is first touched, and
float32 weights are never copied.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refbert.backend import Backend, Host, host_dtype
from refbert.checkpoint.budget import OverBudget, check_shape
from refbert.checkpoint.mapped import map_file
from refbert.errors import CheckpointError
from refbert.files.json import parse_json
from refbert.files.reading import reading
from refbert.files.writing import atomic

# Without BF16, which NumPy lacks. The 8-bit floats are not listed: no BERT is published in them.
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "?",
}  # fmt: skip
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}


def read_safetensors(path: Path) -> dict[str, Host]:
    """Every tensor of the file under the file's own names, as views of the mapped file; BF16 is widened to float32.

    The views are writable, but writing to one changes memory only, never the file. Raises `CheckpointError` for a
    file that is cut short, is not safetensors, or has a dtype that refbert does not read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with reading(path, CheckpointError), safe_open(path, framework="numpy"):
            pass
    except MemoryError:
        raise CheckpointError(f"{path}: too large to be mapped here") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged or cut short, download it again ({error})") from None
    mapped = map_file(path)
    start = 8 + int.from_bytes(mapped[:8].tobytes(), "little")
    header = parse_json(mapped[8:start].tobytes(), f"{path}, header", CheckpointError)
    header.pop("__metadata__", None)
    out = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        shape = tuple(entry["shape"])
        try:
            # The library has seen to it that the tensors are the file, each byte of it once.
            check_shape(name, shape)
        except OverBudget as error:
            raise CheckpointError(f"{path}: {error}") from None
        out[name] = _view(mapped[start + first : start + last], entry["dtype"], shape, name, path)
    return out


def write_safetensors(path: Path, arrays: Mapping[str, Any], backend: Backend[Any] | None = None) -> None:
    """Write the tensors atomically, one after the other, so that no second copy of them all is in memory.

    ``backend``: whose arrays they are, if not the host's; each comes to the host once. They keep their dtypes. The
    largest items come first, so that each lies at a multiple of its size; otherwise the order is that of ``arrays``.
    Raises OSError.
    """
    of_backend = None if backend is None else host_dtype(backend.dtype)
    dtypes = {name: np.dtype(of_backend or x.dtype).newbyteorder("<") for name, x in arrays.items()}
    names = sorted(arrays, key=lambda name: -dtypes[name].itemsize)
    # transformers 4 refuses a file that does not say which library's layout it is in.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        start, end = end, end + dtypes[name].itemsize * math.prod(arrays[name].shape)
        shape = [int(n) for n in arrays[name].shape]
        header[name] = {"dtype": _NAMES[dtypes[name]], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic(path) as part, part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            # The format is row-major; arrays from a TensorFlow checkpoint are transposed views.
            array = arrays[name] if backend is None else backend.to_numpy(arrays[name])
            file.write(np.ascontiguousarray(array, dtypes[name]).data)


def _view(data: Host, dtype: str, shape: tuple[int, ...], name: str, path: Path) -> Host:
    if dtype == "BF16":
        return widen_bfloat16(data.view("<u2").reshape(shape))
    if dtype not in _DTYPES:
        raise CheckpointError(f"{path}: {name} is {dtype}, which refbert does not read; store it as F32, F16 or BF16")
    array = data.view(_DTYPES[dtype]).reshape(shape)
    # A header whose length is no multiple of 8 leaves the data misaligned, which compiled kernels do not take.
    return array if array.flags.aligned else array.copy()


def widen_bfloat16(bits: Host) -> npt.NDArray[np.float32]:
    """bfloat16 stored as uint16 -> float32, exactly: bfloat16 is the upper half of a float32's bits."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
