"""The errors that refbert raises on purpose.

Each carries one line that says what is wrong and what to do about it. The command line prints that line and
exits with status 2; anything else that escapes is a bug in refbert.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Characters of a message. Names and values come from files and may be of any length and content.
_LONGEST = 480
_KEPT_AT_END = 160


def one_line(text: str) -> str:
    """The text on one line of at most some 500 characters, the middle left out, with nothing that steers a terminal."""
    if not text.isprintable():
        text = printable(" ".join(text.split()))
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - _KEPT_AT_END - 3]} … {text[-_KEPT_AT_END:]}"
    return text


def printable(text: str) -> str:
    """The text with what cannot be printed, ends of lines included, as Python escapes it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class _OneLine(Exception):
    def __str__(self) -> str:
        return one_line(super().__str__()).strip() or type(self).__name__  # a plugin may raise one without a word


class RefbertError(_OneLine):
    """Base of every error that is the input's or the environment's, not refbert's."""

    status = 2  # of a command that it ends


class InputError(RefbertError):
    """Text, ids, labels or batches that the model cannot take."""


class TextError(InputError):
    """One of several texts that the model cannot take: the one of that ``number``, from 0; the others may be fine."""

    def __init__(self, number: int, why: str, what: str = "text") -> None:
        super().__init__(f"{what} {number + 1} {why}")
        self.number, self.why = number, why


class ConfigError(RefbertError):
    """A configuration that is not a BERT configuration, or not one that refbert implements."""


class CheckpointError(RefbertError):
    """A checkpoint that is missing, damaged, unsafe, or of the wrong shape."""


class TokenizerError(RefbertError):
    """No tokenizer where one is needed, or one that cannot be read."""


class BackendError(RefbertError):
    """Base of what can go wrong between refbert and a backend."""


class UnknownBackend(BackendError):
    """No backend of that name is installed."""


class BackendUnavailable(BackendError):
    """The backend exists, but its library or its device is not here; the message says how to get it."""


class Unsupported(BackendError):
    """The backend is here, but does not offer the operation, dtype or device that was asked for."""


class RefbertWarning(_OneLine, UserWarning):
    """Something that changes results and that the user may not expect: cut text, unused tensors."""


_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


def warn(text: str, *, stacklevel: int = 1) -> None:
    """Warn the user; ``stacklevel`` counts from the caller, as `warnings.warn` does."""
    if not _quiet.get():
        warnings.warn(text, RefbertWarning, stacklevel=stacklevel + 1)


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, this thread warns of nothing. The filters of `warnings` belong to all threads, so they stay."""
    before = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(before)
