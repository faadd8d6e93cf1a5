"""The numbers and names that the spec computes with: a configuration read under a profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from refbert.config import BertConfig
from refbert.config.profiles import Profile


@dataclass(frozen=True)
class Choices:
    """Everything besides parameters and inputs that decides what comes out.

    activation is "gelu_erf", "gelu_tanh", "relu", "tanh" or "linear"; the rates are dropout probabilities; see
    `refbert.config.profiles.Profile` for the rest. Fields with a default are read in training alone.
    gradient_checkpointing changes no result: it says that a layer keeps nothing but its input for the backward, which
    runs the layer again.
    """

    layers: int
    heads: int
    activation: str
    layer_norm_eps: float
    mask_value: float
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    classifier_dropout: float = 0.0
    masked_lm_epsilon: float = 0.0
    span_mean_over_batch: bool = False
    gradient_checkpointing: bool = False

    @classmethod
    def of(cls, config: BertConfig, profile: Profile) -> Choices:
        """Resolve what a configuration leaves open; raises `ConfigError` for an unknown ``hidden_act``."""
        classifier = config.classifier_dropout
        return cls(
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            activation=profile.activation(config),
            layer_norm_eps=config.layer_norm_eps,
            mask_value=profile.mask_value,
            hidden_dropout=config.hidden_dropout_prob,
            attention_dropout=config.attention_probs_dropout_prob,
            classifier_dropout=config.hidden_dropout_prob if classifier is None else classifier,
            masked_lm_epsilon=profile.masked_lm_epsilon,
            span_mean_over_batch=profile.span_mean_over_batch,
        )

    @classmethod
    def of_layer(cls, *, heads: int, mask_value: float, activation: str, eps: float) -> Choices:
        """Those of one layer, from what a backend's `encoder_layer` is told."""
        return cls(1, heads, activation, eps, mask_value)

    def layer_options(self) -> dict[str, Any]:
        """What a backend's `encoder_layer` is told of them: `of_layer` reversed."""
        return {
            "heads": self.heads,
            "mask_value": self.mask_value,
            "activation": self.activation,
            "eps": self.layer_norm_eps,
        }
