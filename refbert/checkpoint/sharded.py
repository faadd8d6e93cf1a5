"""Checkpoints in several files: an index (model.safetensors.index.json) maps each tensor's name to its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refbert.errors import CheckpointError

Host = npt.NDArray[Any]


def weight_map(index: Path) -> dict[str, str]:
    """Tensor name -> name of the file next to the index; raises `CheckpointError` if the index is no such thing."""
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except OSError as error:
        raise CheckpointError(f"{index}: cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f'{index}: not an index of a sharded checkpoint (no "weight_map")') from None
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
    for file in sorted(set(where.values())):
        if not (index.parent / file).is_file():
            raise CheckpointError(f"{index.parent / file}: missing; {index.name} lists it")
        shards[file] = read(index.parent / file)
    for name, file in where.items():
        if name not in shards[file]:
            raise CheckpointError(f"{index.parent / file}: has no {name}, which {index.name} places there")
    return {name: shards[file][name] for name, file in where.items()}, [index.parent / file for file in shards]
