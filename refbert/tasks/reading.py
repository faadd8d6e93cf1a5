"""What the tasks share: how texts are read, and what one head says of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import numpy.typing as npt

from refbert.config.heads import HEADS
from refbert.errors import InputError
from refbert.model import Model
from refbert.text.batching import by_length

if TYPE_CHECKING:
    from refbert.text.tokenization import Encoding


class Batching(TypedDict, total=False):
    """Keywords of every task. batch_size: texts per forward pass (32). progress: gets how many texts each one had."""

    batch_size: int
    progress: Callable[[int], object] | None


class Reading(Batching, total=False):
    """The same, and max_length: in tokens (the model's positions). truncate: longer texts are cut, not refused."""

    max_length: int | None
    truncate: bool


def require(model: Model, head: str, task: str) -> None:
    """Raise `InputError` if the model lacks the head that the task reads."""
    if head not in model.heads:
        raise InputError(f"{task} needs a {head} head; this model has: {', '.join(model.heads) or 'no head'}")


def logits_of(
    model: Model, head: str, encodings: Sequence[Encoding], batch_size: int = 32,
    progress: Callable[[int], object] | None = None,
) -> list[npt.NDArray[np.float64]]:  # fmt: skip
    """Return each text's logits, in input order: [K], or [S, K] of its own S tokens from a head that reads tokens."""
    found = {}
    for places, batch in by_length(model.tokenizer, encodings, batch_size, progress):
        for i, row in zip(places, model.logits(batch, (head,))[head], strict=True):
            own = row[: len(encodings[i].input_ids)] if HEADS[head].reads == "tokens" else row
            found[i] = np.array(own, dtype=np.float64)
    return [found[i] for i in range(len(encodings))]
