"""The thread's floating-point mode, which a library may change for everybody: the reference would compute in it, too.

gcc links -ffast-math with code that sets flush-to-zero in every thread that loads the library and in those that it
starts. Where that is noticed, the mode is put back, and the backend's calls alone run in its own.

Source   C11 §7.6 (fegetenv, fesetenv); GCC's manual on -ffast-math and crtfastmath.o.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from refbert.backend.wrapper import Wrapper

_BYTES = 256  # more than a fenv_t has anywhere
_SMALLEST = sys.float_info.min
_HALF, _ONE, _ULP = 0.5, 1.0, sys.float_info.epsilon


def changed() -> str:
    """What is not as it should be: "flush-to-zero", "another direction of rounding", or ""."""
    if _SMALLEST * _HALF == 0.0:
        return "flush-to-zero"
    # Ties to even; then a little more than a tie, and −1: each other direction gets one of the three wrong.
    up, over, down = _ONE + _ULP * _HALF, _ONE + _ULP * 0.75, -_ONE - _ULP * 0.75
    return "" if (up, over, down) == (1.0, 1.0 + _ULP, -1.0 - _ULP) else "another direction of rounding"


def _functions() -> Any:
    for name in ("libm.so.6", None):
        try:
            library = ctypes.CDLL(name)
            return library.fegetenv, library.fesetenv
        except (OSError, AttributeError, TypeError):
            continue
    return None


_GET_SET = _functions()


def mode() -> Any:
    """The mode as it is, or None where it cannot be had."""
    if _GET_SET is None:
        return None
    found = ctypes.create_string_buffer(_BYTES)
    _GET_SET[0](found)
    return found


def set_mode(found: Any) -> None:
    """Go over to a mode that `mode` gave."""
    if _GET_SET is not None and found is not None:
        _GET_SET[1](found)


CLEAN = mode()  # imported before any backend is


class OwnMode(Wrapper):
    """A backend whose calls run in the mode that its library has set, and nothing else does."""

    def __init__(self, make: Callable[[], Any], found: Any) -> None:
        self._mode = found
        with self._own():
            super().__init__(make())

    @contextmanager
    def _own(self) -> Iterator[None]:
        set_mode(self._mode)
        try:
            yield
        finally:
            self._mode = mode()
            set_mode(CLEAN)

    def call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """In its own mode; pullbacks are the backend's, too."""
        with self._own():
            result = function(*arguments, **options)
        if isinstance(result, tuple):
            return tuple(self.wrapped(name, one) if callable(one) else one for one in result)
        return result
