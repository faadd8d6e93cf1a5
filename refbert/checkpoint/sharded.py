"""Checkpoints in several files: an index (model.safetensors.index.json) maps each tensor's name to its file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from refbert.backend import Host
from refbert.errors import CheckpointError
from refbert.files.json import read_object
from refbert.files.reading import is_file, reading


def weight_map(index: Path) -> dict[str, str]:
    """Tensor name -> name of the file next to the index; raises `CheckpointError` if the index is no such thing."""
    content = read_object(index, CheckpointError)
    if "weight_map" not in content:
        raise CheckpointError(f'{index}: not an index of a sharded checkpoint (no "weight_map")')
    found = content["weight_map"]
    if not isinstance(found, dict) or not found or not all(isinstance(file, str) for file in found.values()):
        raise CheckpointError(f"{index}: its weight_map does not map names to files")
    for file in found.values():
        # The index names its neighbours; a path that leads elsewhere has no business in it.
        if Path(file).name != file:
            raise CheckpointError(f'{index}: names the file "{file}", which is not next to it')
    return found


def read_sharded(index: Path, read: Callable[[Path], dict[str, np.ndarray]]) -> tuple[dict[str, Host], list[Path]]:
    """Every tensor that the index lists, and the files; raises `CheckpointError` for a missing file or tensor."""
    where = weight_map(index)
    shards = {}
    seen: dict[tuple[int, int], str] = {}
    for file in sorted(set(where.values())):
        path = index.parent / file
        if not is_file(path, CheckpointError):
            raise CheckpointError(f"{path}: missing; {index.name} lists it")
        with reading(path, CheckpointError):
            status = os.stat(path)
        # One file under many names would be read many times.
        if seen.setdefault((status.st_dev, status.st_ino), file) != file:
            raise CheckpointError(f"{path}: the same file as {seen[status.st_dev, status.st_ino]}")
        shards[file] = read(path)
    for name, file in where.items():
        if name not in shards[file]:
            raise CheckpointError(f"{index.parent / file}: has no {name}, which {index.name} places there")
    return {name: shards[file][name] for name, file in where.items()}, [index.parent / file for file in shards]
