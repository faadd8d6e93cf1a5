"""The errors that refbert raises on purpose.

Each carries one line that says what is wrong and what to do about it. The command line prints that line and
exits with status 2; anything else that escapes is a bug in refbert.
"""

from __future__ import annotations


class RefbertError(Exception):
    """Base of every error that is the input's or the environment's, not refbert's."""


class InputError(RefbertError):
    """Text, ids, labels or batches that the model cannot take."""


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


class RefbertWarning(UserWarning):
    """Something that changes results and that the user may not expect: cut text, unused tensors."""
