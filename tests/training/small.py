"""A tiny model, a source of batches with uneven labels, and what trains one with the other."""

from __future__ import annotations

import numpy as np

import refbert
from refbert.config import BertConfig
from refbert.ops.cross_entropy import IGNORE
from refbert.text.batching import Batch

CONFIG = BertConfig(
    vocab_size=31, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
    max_position_embeddings=8,
)  # fmt: skip
PRETRAINING = ("masked_lm", "next_sentence")


def model(backend="numpy", dtype="float64", *, heads=PRETRAINING, config=CONFIG, profile="google", seed=1):
    return refbert.from_config(config, heads=heads, seed=seed, backend=backend, dtype=dtype, profile=profile)


def batch_and_labels(key, *, B=6, S=7, V=31):
    """Rows of different lengths, and from no to many labelled positions in a row."""
    rng = np.random.default_rng(key)
    lengths = rng.integers(3, S + 1, B)
    mask = np.arange(S) < lengths[:, None]
    ids = np.where(mask, rng.integers(5, V, (B, S)), 0)
    share = np.linspace(0, 0.9, B)[:, None]
    labels = np.where(mask & (rng.random((B, S)) < share), rng.integers(5, V, (B, S)), IGNORE)
    labels[-1, 0] = 7  # never no label at all
    second = np.where(mask & (np.arange(S) >= 2), 1, 0)
    return Batch(ids, second, mask.astype(np.int64)), {
        "labels": labels,
        "next_sentence_label": rng.integers(0, 2, B),
    }


class Stream:
    """A source (refbert.training.loop.Source): batch n is a function of (seed, n)."""

    def __init__(self, seed=0, *, B=6, S=7, only=None):
        self.seed, self.B, self.S, self.only = seed, B, S, only
        self.position = 0

    def next(self, step):
        number = self.position if self.only is None else self.position % self.only
        self.position += 1
        return batch_and_labels([self.seed, number], B=self.B, S=self.S)

    def state(self):
        return {"position": self.position}

    def restore(self, state):
        self.position = state["position"]
