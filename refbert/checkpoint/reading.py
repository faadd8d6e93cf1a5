"""Read a directory (or one file) into a `Checkpoint`: find the weights, read them, give them refbert's names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refbert.backend import Host
from refbert.checkpoint import names
from refbert.checkpoint.quantized import READ_ALONE, dequantize
from refbert.checkpoint.safetensors_file import read_safetensors
from refbert.checkpoint.tensorflow_file import data_files, read_tensorflow, state_file_choice
from refbert.errors import CheckpointError
from refbert.files.json import read_object
from refbert.files.reading import is_directory, is_file, reading

# In the order in which they are looked for; a TensorFlow index, of any name, comes last.
WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
_TENSORFLOW = "bert_model.ckpt.index"

# Weights that refbert does not read, and the option with which an older transformers (before 5) does.
_UNREAD = {"flax_model.msgpack": "from_flax=True", "tf_model.h5": "from_tf=True"}


@dataclass(frozen=True)
class Checkpoint:
    """What is on disk, under refbert's names; converted are names, transposes, bfloat16 and int8 rows (to float32).

    tensors: name -> array, [out, in] for a matrix; float32 safetensors and TensorFlow tensors are views of the file.
    format: "safetensors", "pytorch" or "tensorflow".
    files: the files that were read.
    ignored: entries that are not weights, under the file's own names: buffers, optimizer state, second names of tied
        or duplicated tensors.
    """

    tensors: Mapping[str, Host]
    format: str
    files: tuple[Path, ...]
    ignored: tuple[str, ...]


def read(directory: Path) -> Checkpoint:
    """Read the checkpoint in a local directory, or one weights file named directly.

    Raises `CheckpointError` if there is none, if it is damaged, unsafe or in a form that refbert does not read, or if
    its decoder is not tied to the word embeddings.
    """
    file = _find(Path(directory))
    raw, kind, files = read_file(file)
    raw = dequantize(raw, file)
    fronts = names.fronts(raw)
    if len(fronts) > 1 and "" not in fronts:
        some = ", ".join(fronts[:4])
        raise CheckpointError(f"{file}: holds {len(fronts)} models, called {some}; keep the weights of one")
    front = "".join(fronts[:1])
    tensors: dict[str, Host] = {}
    ignored = []
    for name, array in raw.items():
        if not names.is_weight(name):
            ignored.append(name)
            continue
        if kind == "tensorflow":
            known, transposed = names.from_tensorflow(name)
            array = array.T if transposed and array.ndim == 2 else array
        else:
            known = names.from_hugging_face(name, front)
        if not np.issubdtype(array.dtype, np.floating):
            if names.is_known(known) or known in names.TIED:
                raise CheckpointError(f"{file}: {name} is {array.dtype}; {READ_ALONE}")
            ignored.append(name)
        elif known not in tensors:
            tensors[known] = array
        elif _same(tensors[known], array):
            ignored.append(name)
        else:
            raise CheckpointError(f"{file}: {known} is there twice with different values, once as {name}")
    ignored += _untie(tensors, file)
    return Checkpoint(tensors, kind, files, tuple(ignored))


def _untie(tensors: dict[str, Host], file: Path) -> list[str]:
    """Drop the second names of tied tensors; the names dropped."""
    dropped = []
    for alias, owner in names.TIED.items():
        if alias not in tensors:
            continue
        array = tensors.pop(alias)
        if owner not in tensors:
            tensors[owner] = array  # the tensor was stored once, under this name
        elif not _same(tensors[owner], array):
            raise CheckpointError(f"{file}: {alias} differs from {owner}; untied decoders are not supported")
        dropped.append(alias)
    return dropped


def _same(a: Host, b: Host) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)


def read_file(file: Path) -> tuple[dict[str, Host], str, tuple[Path, ...]]:
    """Read a weights file: its tensors under its own names, its format, and the files that were read.

    Raises `CheckpointError` as `read`.
    """
    with reading(file, CheckpointError), file.open("rb") as opened:
        if opened.read(43) == b"version https://git-lfs.github.com/spec/v1\n":
            raise CheckpointError(f"{file}: only a Git LFS pointer, not the weights; run `git lfs pull` there")
    if file.name.endswith(".index.json"):
        kind = "safetensors" if ".safetensors." in file.name else "pytorch"
        tensors, shards = _read_sharded(file, read_safetensors if kind == "safetensors" else _read_pytorch)
        return tensors, kind, (file, *shards)
    if file.suffix == ".safetensors":
        return read_safetensors(file), "safetensors", (file,)
    if file.suffix == ".index":
        return read_tensorflow(file), "tensorflow", (file, *data_files(file))
    return _read_pytorch(file), "pytorch", (file,)


def _read_pytorch(file: Path) -> dict[str, Host]:
    from refbert.checkpoint.pytorch_file import read_pytorch  # here: other formats need no zip files

    return read_pytorch(file)


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


def _read_sharded(index: Path, read: Callable[[Path], dict[str, Host]]) -> tuple[dict[str, Host], list[Path]]:
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


def _find(path: Path) -> Path:
    """The file to read first; raises `CheckpointError` that says what was looked for."""
    if is_file(path, CheckpointError):
        if path.suffix in (".safetensors", ".bin", ".pt", ".pth", ".index") or path.name.endswith(".index.json"):
            return path
        raise CheckpointError(
            f"{path}: not a weights file (.safetensors, .bin, .index); name the directory that holds the checkpoint"
        )
    if not is_directory(path, CheckpointError):
        prefix = path.with_name(f"{path.name}.index")  # TensorFlow's own way to name a checkpoint
        if is_file(prefix, CheckpointError):
            return prefix
        raise CheckpointError(f"{path}: no such directory")
    for name in WEIGHTS:
        if is_file(path / name, CheckpointError):
            return path / name
    with reading(path, CheckpointError):
        listed = sorted(name for name in os.listdir(path) if name.endswith(".index"))
    indices = [path / name for name in listed if is_file(path / name, CheckpointError)]
    if len(indices) > 1:
        preferred = (_TENSORFLOW, f"{state_file_choice(path)}.index")
        chosen = [index for index in indices if index.name in preferred]
        if len(chosen) != 1:
            raise CheckpointError(f"{path}: {len(indices)} TensorFlow checkpoints; name one, such as {indices[-1]}")
        return chosen[0]
    if indices:
        return indices[0]
    for name, option in _UNREAD.items():
        if is_file(path / name, CheckpointError):
            raise CheckpointError(
                f"{path}: only {name}, which refbert does not read. Convert it with transformers<5: "
                f"AutoModel.from_pretrained(directory, {option}).save_pretrained(directory)"
            )
    raise CheckpointError(f"{path}: no weights (looked for {', '.join(WEIGHTS)}, *.ckpt.index)")
