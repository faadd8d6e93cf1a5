"""Backends whose library changes the floating-point mode of its process (modes:Name)."""

from __future__ import annotations

import ctypes

from refbert import ops
from refbert.backend.reference import ReferenceBackend

LIBM = ctypes.CDLL("libm.so.6")
UP, DOWN, TO_ZERO = 0x800, 0x400, 0xC00


def set_flush_to_zero():
    """As crtfastmath.o does it."""
    found = ctypes.create_string_buffer(256)
    LIBM.fegetenv(found)
    words = ctypes.cast(found, ctypes.POINTER(ctypes.c_uint32))
    words[7] |= 0x8040  # glibc's fenv_t on x86-64: MXCSR behind seven words of the x87
    LIBM.fesetenv(found)


class Base(ReferenceBackend):
    dtypes = ("float32",)


class AtMaking(Base):
    def __init__(self, dtype=None, device=None):
        set_flush_to_zero()
        super().__init__("float32", device)


class AtACall(Base):
    def softmax(self, x):
        set_flush_to_zero()
        return ops.softmax(x)


class AtThePullback(Base):
    def softmax(self, x):
        y, back = ops.softmax(x)

        def pullback(dy):
            set_flush_to_zero()
            return back(dy)

        return y, pullback


class Rounds(Base):
    def softmax(self, x):
        LIBM.fesetround(UP)
        return ops.softmax(x)


class AtMakingDeclared(AtMaking):
    arithmetic = {"flush_to_zero": True}  # noqa: RUF012


class AtACallDeclared(AtACall):
    arithmetic = {"flush_to_zero": True}  # noqa: RUF012
