"""Limit what a file may declare: its sizes are believed only as far as its own length covers them.

A file of a few kilobytes can declare tensors of terabytes, entries that lie over each other, or names that repeat each
other. Whatever is made of a file is first taken out of a budget, a small multiple of its length; real checkpoints stay
far within it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from refbert.backend import Host
from refbert.errors import CheckpointError

# A tensor is stored once; a tied one has two names, and bfloat16 is widened to twice its size.
TENSORS = 4
# Parts of a file that are read one after the other: each byte once.
PARTS = 1
# The names in a TensorFlow index are stored as what differs from the name before, some 15 bytes of 60, beside the
# entry of some 30 bytes.
NAMES = 16

DIMENSIONS = 32  # NumPy takes 64, released versions of it 32
_ELEMENTS = 1 << 62


class OverBudget(CheckpointError):
    """More than a file of its length can hold; the message lacks the file's name, which the reader puts before it."""


class Budget:
    """Bytes that are left of ``times`` a file's ``length``."""

    def __init__(self, length: int, *, times: int) -> None:
        self._length = length
        self._left = times * length

    def spend(self, size: int, what: str) -> None:
        """Take ``size`` bytes out; raises `OverBudget` that says what for, where they are not there."""
        self._left -= size
        if size < 0 or self._left < 0:
            raise OverBudget(f"damaged: {what} asks for more than a file of {self._length:,} bytes can hold")

    def tensor(self, name: str, shape: Sequence[int], itemsize: int) -> None:
        """`spend` a tensor's bytes; raises `OverBudget` also for a shape that no array has."""
        check_shape(name, shape)
        self.spend(math.prod(shape) * itemsize, name)


def check_shape(name: str, shape: Sequence[int]) -> None:
    """Raise `OverBudget` for a shape that no array has, whatever its number of entries."""
    if len(shape) > DIMENSIONS:
        raise OverBudget(f"damaged: {name} has {len(shape):,} dimensions")
    if any(n < 0 for n in shape) or math.prod(n or 1 for n in shape) > _ELEMENTS:
        raise OverBudget(f"damaged: {name} has an impossible shape")


# Bytes that a checkpoint of any size may have drawn beside it: a head on a model for a test.
_LEAST = 1 << 26


def check_drawn(shapes: Mapping[str, Sequence[int]], stored: Mapping[str, Host]) -> None:
    """Raise `OverBudget` for parameters to be drawn afresh that are out of proportion to those that are stored."""
    budget = Budget(max(_LEAST, sum(tensor.nbytes for tensor in stored.values())), times=PARTS)
    for name, shape in shapes.items():
        budget.tensor(name, shape, 4)
