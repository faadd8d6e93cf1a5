"""Labelled examples as a stream of batches: every example once an epoch, in an order drawn anew for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from refbert.backend import Host
from refbert.data.draws import generator
from refbert.data.features import Feature, collate
from refbert.errors import InputError
from refbert.text.batching import Batch
from refbert.text.tokenization import Tokenizer


class Epochs:
    """A `refbert.training.loop.Source`: a batch depends on the seed and the step alone.

    The last batch of an epoch holds what is left and may be smaller. Batches are padded to their longest row.
    """

    def __init__(self, features: Sequence[Feature], tokenizer: Tokenizer, *, batch_size: int, seed: int) -> None:
        if not features:
            raise InputError("no examples to learn from")
        self._features, self._tokenizer = features, tokenizer
        self._batch_size, self._seed = batch_size, seed
        self._done = 0

    @property
    def updates(self) -> int:
        """Updates in an epoch."""
        return -(-len(self._features) // self._batch_size)

    def next(self, step: int) -> tuple[Batch, dict[str, Host]]:
        """Return the batch of an update and its labels."""
        epoch, number = divmod(step, self.updates)
        start = number * self._batch_size
        chosen = _order(self._seed, epoch, len(self._features))[start : start + self._batch_size]
        self._done = step + 1
        return collate([self._features[i] for i in chosen], self._tokenizer)

    def state(self) -> dict[str, Any]:
        """How many batches have been given; the rest follows from the seed."""
        return {"batches": self._done}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the count, which is all that there is."""
        self._done = state["batches"]


@lru_cache(maxsize=1)
def _order(seed: int, epoch: int, examples: int) -> list[int]:
    order: list[int] = generator("epoch", seed, epoch).permutation(examples).tolist()
    return order
