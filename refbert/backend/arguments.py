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
    """B sequences, padded to S tokens: three host arrays [B, S] of int64, to be left as they are."""

    @property
    def input_ids(self) -> Host:
        """Rows of the word embeddings."""

    @property
    def token_type_ids(self) -> Host:
        """The segment of each token: 0 or 1."""

    @property
    def attention_mask(self) -> Host:
        """1 for a token, 0 for padding."""


class ModelChoices(Protocol):
    """The numbers and names that a model computes with, besides its weights."""

    @property
    def layers(self) -> int:
        """Encoder layers."""

    @property
    def heads(self) -> int:
        """Attention heads A in each layer."""

    @property
    def activation(self) -> str:
        """Of the feed-forward block: "gelu_erf", "gelu_tanh", "relu", "tanh" or "linear"."""

    @property
    def layer_norm_eps(self) -> float:
        """ε of LayerNorm."""

    @property
    def mask_value(self) -> float:
        """What is added to the scores of padding: −∞ (it is excluded) or a finite number."""

    @property
    def hidden_dropout(self) -> float:
        """Dropout's rate after embeddings, attention and feed-forward."""

    @property
    def attention_dropout(self) -> float:
        """Dropout's rate on attention probabilities."""

    @property
    def classifier_dropout(self) -> float:
        """Dropout's rate in front of a classifier."""

    @property
    def masked_lm_epsilon(self) -> float:
        """Added to the number of labels that the masked-LM loss is divided by (Google: 1e-5)."""

    @property
    def span_mean_over_batch(self) -> bool:
        """Whether the span loss is a mean over all sequences, or over those whose span is in reach."""

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether of each layer only its input is to be kept, and the rest computed again in the backward."""


class KeepMasks(Protocol):
    """Dropout's random numbers, drawn on the host: the same on every backend."""

    def keep(self, site: str, shape: tuple[int, ...], rate: float) -> npt.NDArray[np.bool_]:
        """Which entries stay, of the given shape. Sites, with layers i from 0:

        "embeddings", "encoder.layer.i.attention.self" [B, A, S, S], "encoder.layer.i.attention.output",
        "encoder.layer.i.output" [B, S, H], "classifier".
        """
