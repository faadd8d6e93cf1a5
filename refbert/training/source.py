"""What the training loop asks of its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from refbert.backend import Host
from refbert.text.batching import Batch


class Source(Protocol):
    """An endless stream of batches that knows where it is.

    ``fingerprint`` is a digest of the data and of every setting that decides what comes; a run goes on only with the
    one that it began with.
    """

    fingerprint: str

    def next(self, step: int) -> tuple[Batch, dict[str, Host]]:
        """The global batch of the update ``step`` (from 0) and its labels, named as in `refbert.config.heads`.

        Every process of a data-parallel run gets the same batch; the loop takes its rows.
        """
        ...

    def state(self) -> dict[str, Any]:
        """Where the batch after the last one begins, as JSON."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state` of a source with the same fingerprint."""
        ...
