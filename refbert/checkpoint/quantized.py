"""Matrices as int8 rows with scales, in the layout "int-quantized" of compressed-tensors: read and written.

A matrix W [out, in] is stored as NAME, int8, and NAME_scale, [out, 1], W = NAME · NAME_scale in each entry; one scale
for the whole matrix, [1], is read too. Hugging Face transformers reads the same files with that library installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.errors import CheckpointError

_SCALE, _ZERO, _PACKED = "_scale", "_zero_point", "_packed"
_LARGEST = 127  # of the 256 values −128 stays unused, so that W and −W are stored alike

# What transformers needs to read such a file: the config.json's quantization_config. Its kernels multiply float
# weights; without "dequantize" it leaves the embeddings as int8.
CONFIG: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "dequantize": True,
    "config_groups": {
        "group_0": {
            "format": "int-quantized",
            "targets": ["Linear", "Embedding"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"},
        }
    },
}


# What is said of every other.
READ_ALONE = "of quantised checkpoints refbert reads symmetric int8 rows with scales alone (int-quantized)"


def quantize(tensors: Mapping[str, Host]) -> dict[str, Host]:
    """Round each matrix to int8 rows; vectors keep their dtype.

    A row's scale is its largest magnitude over 127, so that an entry moves by at most half of that. A row of zeros has
    scale 1.
    """
    out: dict[str, Host] = {}
    for name, tensor in tensors.items():
        if tensor.ndim != 2:
            out[name] = tensor
            continue
        largest = np.abs(tensor).max(axis=1, keepdims=True)
        scale = np.where(largest > 0, largest / _LARGEST, 1).astype(np.float32)
        out[name] = np.rint(tensor / scale).astype(np.int8)
        out[name + _SCALE] = scale
    return out


def dequantize(tensors: dict[str, Host], file: Path) -> dict[str, Host]:
    """Return the tensors with each int8 matrix that has scales as float32, and without the scales.

    Raises `CheckpointError` for scales that do not fit their matrix, for zero points other than 0 (rows that are not
    symmetric), and for other layouts of compressed-tensors (NAME_packed).
    """
    for name in tensors:
        if name.endswith(_PACKED):
            raise CheckpointError(f"{file}: {name} is packed; {READ_ALONE}")
    scaled = {name.removesuffix(_SCALE) for name in tensors if name.endswith(_SCALE)}
    out = {}
    for name, tensor in tensors.items():
        owner = name.removesuffix(_SCALE).removesuffix(_ZERO)
        if owner != name and owner in scaled and owner in tensors:
            if name.endswith(_ZERO) and tensor.any():
                raise CheckpointError(f"{file}: {name} is not 0; {READ_ALONE}")
            continue
        out[name] = _times(tensor, tensors[name + _SCALE], name, file) if name in scaled else tensor
    return out


def _times(tensor: Host, scale: Host, name: str, file: Path) -> Host:
    rows = (tensor.shape[0], 1) if tensor.ndim == 2 else None
    if tensor.dtype != np.int8 or rows is None:
        raise CheckpointError(
            f"{file}: {name} has scales, but is {tensor.dtype} {list(tensor.shape)}, not an int8 matrix"
        )
    if scale.shape not in (rows, (1,), ()) or not np.issubdtype(scale.dtype, np.floating):
        raise CheckpointError(
            f"{file}: {name}{_SCALE} is {scale.dtype} {list(scale.shape)}; {list(rows)} or [1] numbers are expected"
        )
    return tensor.astype(np.float32) * scale.astype(np.float32)
