"""What stands between the suite and a backend that is not called as others are."""

from __future__ import annotations

import functools
from typing import Any

from refbert.backend import TRAINING
from refbert_conformance.engine.measure import Unsupported
from refbert_conformance.tolerances.bounds import ARRAYS

INFERENCE = "the backend is for inference (gradients = False)"


class _Absent(Unsupported, AttributeError):
    """So that `getattr` with a default and `hasattr` work as ever."""


class ForInference:
    """A backend that declares ``gradients = False``: asking for a gradient is `Unsupported`, not its failure."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        if name in TRAINING and not callable(getattr(self._backend, name, None)):
            raise _Absent(INFERENCE)
        found = getattr(self._backend, name)
        return _without_pullback(found) if name in ARRAYS and callable(found) else found


def _without_pullback(op: Any) -> Any:
    @functools.wraps(op)
    def call(*arguments: Any, **options: Any) -> Any:
        result = op(*arguments, **options)
        return (result[0], refused) if isinstance(result, tuple) and len(result) == 2 else result

    return call


def refused(dy: Any) -> Any:
    """The pullback of what has none."""
    raise Unsupported(INFERENCE)
