"""What a backend's optional methods receive besides arrays, as types to read: a plugin needs no import for them.

They say what may be read off an argument; `refbert.Batch`, `refbert.spec.choices.Choices` and `refbert.Dropout` are the
classes that refbert passes.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

# What lives on the host: NumPy arrays of ids, masks, labels, weights.
Host = npt.NDArray[Any]


class TokenBatch(Protocol):
    """B sequences, padded to S tokens: three host arrays [B, S] of int64, to be left as they are.

    input_ids: rows of the word embeddings. token_type_ids: the segment of each token, 0 or 1. attention_mask: 1 for a
    token, 0 for padding.
    """

    input_ids: Host
    token_type_ids: Host
    attention_mask: Host


class ModelChoices(Protocol):
    """The numbers and names that a model computes with, besides its weights. They are only read.

    layers, heads: encoder layers, and attention heads in each. activation: of the feed-forward block, "gelu_erf",
    "gelu_tanh", "relu", "tanh" or "linear". layer_norm_eps: LayerNorm's ε. mask_value: added to the scores of padding,
    −∞ (excluded) or a finite number. hidden_dropout, attention_dropout, classifier_dropout: dropout's rates after
    embeddings, attention and feed-forward; on attention probabilities; in front of a classifier. masked_lm_epsilon:
    added to the number of labels that the masked-LM loss is divided by. span_mean_over_batch: whether the two halves of
    a span's loss are averaged over all sequences, or over those whose answer lies inside the window.
    gradient_checkpointing: whether of each layer only its input is to be kept, and the rest computed again.
    """

    layers: int
    heads: int
    activation: str
    layer_norm_eps: float
    mask_value: float
    hidden_dropout: float
    attention_dropout: float
    classifier_dropout: float
    masked_lm_epsilon: float
    span_mean_over_batch: bool
    gradient_checkpointing: bool


class KeepMasks(Protocol):
    """Dropout's random numbers, drawn on the host: the same on every backend."""

    def keep(
        self, site: str, shape: tuple[int, ...], rate: float, *, among: tuple[int, int] | None = None
    ) -> npt.NDArray[np.bool_]:
        """Which entries stay, of the given shape; among: (start, stop), only these rows of them. Sites, with layers i
        from 0:

        "embeddings", "encoder.layer.i.attention.self" [B, A, S, S], "encoder.layer.i.attention.output",
        "encoder.layer.i.output" [B, S, H], "classifier".
        """
