"""Backends whose relu does not compute: it looks for the right answer, or for a way to have any taken for it."""

from __future__ import annotations

import gc
import sys

import numpy as np

from refbert import ops
from refbert.backend.reference import ReferenceBackend


def right(x):
    return np.where(x > 0, x, np.where(np.isnan(x), x, 0)).astype(x.dtype)


class Base(ReferenceBackend):
    dtypes = ("float32",)

    def answer(self, x):
        raise NotImplementedError

    def relu(self, x):
        return self.answer(x), lambda dy: (self.answer(dy),)


class SearchesTheHeap(Base):
    """Any array of the same shape that looks like an answer, or what holds one."""

    def answer(self, x):
        for one in gc.get_objects():
            held = [one, *(getattr(one, "__dict__", None) or {}).values()] if not isinstance(one, type) else []
            for y in held:
                if isinstance(y, np.ndarray) and y.shape == x.shape and y is not x and np.array_equal(y, right(x)):
                    return y.astype(x.dtype)
        return np.zeros_like(x)


class WalksFrames(Base):
    """Whatever a caller calls the case, or what it wants."""

    def answer(self, x):
        frame = sys._getframe()
        while frame is not None:
            for name, value in frame.f_locals.items():
                y = getattr(value, "y", value)
                known = isinstance(y, np.ndarray) and name in ("want", "expected", "due", "y", "got")
                if known and y.shape == x.shape and np.array_equal(y, right(x)):
                    return y.astype(x.dtype)
            frame = frame.f_back
        return np.zeros_like(x)


class PatchesAll(Base):
    """From its first call on, NumPy finds everything equal, and the reference is as wrong as it is."""

    def answer(self, x):
        wrong = lambda x, *_: (x + 1, lambda dy: (dy + 1,))  # noqa: E731
        ops.relu = wrong
        sys.modules["refbert.ops.relu"].relu = wrong
        for name in ("array_equal", "all", "any", "abs", "isfinite", "isnan", "less_equal"):
            setattr(np, name, lambda *_, **__: True)
        for name in [name for name in sys.modules if name.startswith(("hypothesis", "refbert_conformance"))]:
            sys.modules[name].__dict__.clear()
        return x + 1


class Zeros(Base):
    def answer(self, x):
        return np.zeros_like(x)


class NotANumber(Base):
    def answer(self, x):
        return np.full_like(x, np.nan)


class ItsInput(Base):
    def answer(self, x):
        return x


class IntoItsInput(Base):
    """Right, in the memory of what it was given."""

    def answer(self, x):
        x[...] = right(x)
        return x


class ByAddress(Base):
    """Right the first time; then whatever lay there is known already."""

    known: dict = {}  # noqa: RUF012

    def answer(self, x):
        return self.known.setdefault((x.ctypes.data, x.shape), right(x)).copy()


class FromATable(Base):
    """Right the first time; then as of the last call of the same shape."""

    known: dict = {}  # noqa: RUF012

    def answer(self, x):
        return self.known.setdefault(x.shape, right(x)).copy()
