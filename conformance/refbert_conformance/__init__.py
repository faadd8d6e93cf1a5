"""Proving or disproving a backend against refbert.ops: ``refbert conform``, docs/conformance.md.

docs/architecture.md lists what stands where; `refbert_conformance.properties.table` all that must hold. `assert_within`
and `bound` are for tests of anybody's: docs/assert-within.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refbert_conformance.within import assert_within, bound

__all__ = ["assert_within", "bound"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from refbert_conformance import within

        return getattr(within, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
