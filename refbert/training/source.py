"""What the training loop asks of its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from refbert.backend import Host
from refbert.text.batching import Batch


class Source(Protocol):
    """An endless stream of batches that knows where it is."""

    def next(self, step: int) -> tuple[Batch, dict[str, Host]]:
        """Return the global batch of update ``step`` (from 0) and its labels, named as in `refbert.config.heads`.

        Every process of a data-parallel run gets the same batch; the loop takes its rows.
        """
        ...

    def state(self) -> dict[str, Any]:
        """Return the position after the last batch, as JSON."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue at a `state` of a source of the same data and settings."""
        ...
