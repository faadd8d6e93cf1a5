"""Map weight files: views of them, a check of every number, and whether the file has changed.

A page of a mapped file counts as the process's memory from when it is first touched. A look at every weight, to see
that none is NaN, would make that the whole file, of which a run may use a fraction: a text has few of the vocabulary's
rows. So the tensor is looked at in blocks, and each block's pages are let go; what is used later is mapped again, from
the system's cache. For all-MiniLM-L6-v2 that is a peak of 96 MB instead of 142.

What is written to a mapped file later shows in the weights, and where the file is cut short the process dies (SIGBUS).
Neither can be prevented, but `MappedFiles` notices what has happened before the weights are used again. A file that
takes the other's place, by a rename, which is how refbert writes, does no harm: the mapping keeps the old one.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refbert.backend import Host
from refbert.errors import CheckpointError
from refbert.files.reading import reading

_BLOCK = 1 << 20  # numbers: 4 MB of float32


def map_file(path: Path) -> npt.NDArray[np.uint8]:
    """Map the file's bytes; writing to them changes memory only. Raises `CheckpointError` if it cannot be read."""
    with reading(path, CheckpointError):
        if os.stat(path).st_size == 0:  # which cannot be mapped
            return np.empty(0, np.uint8)
        return np.asarray(np.memmap(path, dtype=np.uint8, mode="c"))


class MappedFiles:
    """Files that weights are views of, as they are now; several threads may `check` one."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._seen = {file: _stamp(file) for file in files}

    def check(self) -> None:
        """Raise `CheckpointError` if one of the files has been written to since."""
        for file, seen in self._seen.items():
            now = _stamp(file)
            if now[:2] == seen[:2] and now != seen:
                raise CheckpointError(
                    f"{file}: changed since the model was loaded, and the weights are views of it: load it again (to "
                    "change a checkpoint that is in use, write another file and rename it over this one)"
                )


def watch(
    files: Iterable[Path], stored: Mapping[str, Host], used: Mapping[str, Any], to_numpy: Callable[[Any], Host]
) -> MappedFiles | None:
    """Return the files if the arrays in use are views of them; None if the backend made copies of ``stored``."""
    mapped = [name for name, tensor in stored.items() if mapping_of(tensor) is not None]
    if not mapped:
        return None
    smallest = min(mapped, key=lambda name: stored[name].nbytes)  # to_numpy may be a copy from a device
    return MappedFiles(files) if np.may_share_memory(to_numpy(used[smallest]), stored[smallest]) else None


def _stamp(file: Path) -> tuple[int, ...]:
    """Which file it is (device and number), its size, and when it was last written; nothing if it is gone."""
    try:
        found = os.stat(file)
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def is_finite(tensor: Host, *, let_go: bool) -> bool:
    """Whether no entry is NaN or infinite. ``let_go``: unmap what was looked at; only for what nobody has written to,
    since what was written would go with it."""
    flat = tensor.reshape(-1) if tensor.flags.c_contiguous else tensor.T.reshape(-1)
    # The extremes carry every NaN and infinity with them, and take no memory.
    return all(np.isfinite(block.min()) and np.isfinite(block.max()) for block in blocks(flat, let_go=let_go))


def blocks(flat: Host, *, let_go: bool) -> Iterator[Host]:
    """Yield [N] in parts, each unmapped after use if ``let_go``."""
    mapping = mapping_of(flat) if let_go else None
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        try:
            yield block
        finally:
            if mapping is not None:
                _let_go(block, mapping)


def mapping_of(tensor: Host) -> mmap.mmap | None:
    """Return what the tensor is a view of, if that is a mapped file."""
    base: object = tensor
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


def _let_go(block: Host, mapping: mmap.mmap) -> None:
    """Unmap the pages that lie in the block whole; those at its ends may hold another's numbers, and stay."""
    begins = block.ctypes.data - np.frombuffer(mapping, np.uint8).ctypes.data
    first = -(-begins // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (begins + block.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first and hasattr(mapping, "madvise"):
        mapping.madvise(mmap.MADV_DONTNEED, first, last - first)
