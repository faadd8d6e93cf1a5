"""What stands between the suite and a backend that is not called as others are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refbert.backend import TRAINING
from refbert.backend.wrapper import Wrapper
from refbert_conformance.engine.measure import Unsupported
from refbert_conformance.tolerances.bounds import ARRAYS

INFERENCE = "the backend is for inference (gradients = False)"


class _Absent(Unsupported, AttributeError):
    """So that `getattr` with a default and `hasattr` work as ever."""


class ForInference(Wrapper):
    """A backend that declares ``gradients = False``: asking for a gradient is `Unsupported`, not its failure."""

    def __getattr__(self, name: str) -> Any:
        if name in TRAINING and not callable(getattr(self.backend, name, None)):
            raise _Absent(INFERENCE)
        return super().__getattr__(name)

    def call(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Without the pullback of an op."""
        result = function(*arguments, **options)
        pair = name in ARRAYS and isinstance(result, tuple) and len(result) == 2
        return (result[0], refused) if pair else result


def refused(dy: Any) -> Any:
    """The pullback of what has none."""
    raise Unsupported(INFERENCE)
