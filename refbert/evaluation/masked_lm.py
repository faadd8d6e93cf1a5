"""How well a model restores hidden words, and tells the next sentence from another, on text that it has not seen.

    loss        mean of −log p(word) over all hidden positions of the text, not of the batches' means
    perplexity  e^loss          accuracy  share of hidden positions where the word is the model's first guess
    next_sentence_loss, next_sentence_accuracy      the same over pairs, where the model has that head

What is hidden follows from the text and a seed alone (`refbert.data.rows`), so that two models, or one at two times,
are asked the same.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

import numpy as np

from refbert.backend import Host
from refbert.errors import InputError
from refbert.model import Model
from refbert.ops.cross_entropy import IGNORE, cross_entropy
from refbert.text.batching import Batch


@dataclass
class Sums:
    """What is added up over batches, and over processes that share them."""

    loss: float = 0.0
    right: float = 0.0
    hidden: float = 0.0
    pair_loss: float = 0.0
    pairs_right: float = 0.0
    pairs: float = 0.0

    def add(self, model: Model, batch: Batch, labels: dict[str, Host]) -> None:
        """One batch of `refbert.data.rows.Rows`; raises `InputError` if the model has no masked-LM head."""
        flat = labels["labels"].reshape(-1)
        positions = np.flatnonzero(flat != IGNORE)
        heads = ("masked_lm", "next_sentence") if "next_sentence_label" in labels else ("masked_lm",)
        logits = model.logits(batch, heads, masked_lm_positions=positions)
        loss, right = _compared(logits["masked_lm"], flat[positions])
        self.loss, self.right, self.hidden = self.loss + loss, self.right + right, self.hidden + len(positions)
        if "next_sentence" in heads:
            loss, right = _compared(logits["next_sentence"], labels["next_sentence_label"])
            self.pair_loss, self.pairs_right = self.pair_loss + loss, self.pairs_right + right
            self.pairs += len(batch.input_ids)

    def numbers(self) -> list[float]:
        """As they travel between processes; `Sums(*numbers)` are the sums again."""
        return list(astuple(self))

    def scores(self) -> dict[str, float]:
        """By name; raises `InputError` if nothing was hidden."""
        if not self.hidden:
            raise InputError("nothing is hidden in this text: it is too short, or the mask rate is 0")
        loss = self.loss / self.hidden
        perplexity = math.exp(loss) if loss < 700 else math.inf
        out = {"loss": loss, "perplexity": perplexity, "accuracy": self.right / self.hidden}
        if self.pairs:
            out["next_sentence_loss"] = self.pair_loss / self.pairs
            out["next_sentence_accuracy"] = self.pairs_right / self.pairs
        return out


def _compared(logits: Host, labels: Host) -> tuple[float, float]:
    """(sum of −log p(label), how many labels are the first guess), in float64."""
    wide = np.asarray(logits, dtype=np.float64)
    loss, _ = cross_entropy(wide, labels, denominator=1.0)
    return float(loss), float((wide.argmax(axis=-1) == labels).sum())
