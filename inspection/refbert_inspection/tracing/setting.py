"""The inputs of a pass: weights, batch, labels, and the choices that decide what is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.config import BertConfig
from refbert.config.heads import HEADS, PRETRAINING
from refbert.config.parameters import shapes
from refbert.config.profiles import Profile, get_profile
from refbert.model import Model
from refbert.ops.cross_entropy import IGNORE
from refbert.spec.choices import Choices
from refbert.text.batching import Batch
from refbert_conformance.cases.inputs import rounded
from refbert_inspection.tracing.passes import Pass, run_pass

# The sizes of the model without weights: small, all different, and dropout has no part in it.
SYNTHETIC = BertConfig(
    vocab_size=37, hidden_size=12, num_hidden_layers=3, num_attention_heads=3, intermediate_size=20,
    max_position_embeddings=16, type_vocab_size=2,
)  # fmt: skip
# From coarse to fine: weights are rounded to the coarser of two dtypes, so that both sides have the same.
COARSE = ("bfloat16", "float16", "float32", "float64")


@dataclass(frozen=True, eq=False)
class Setting:
    """parameters: on the host, by name.   labels: None for a projection of the last hidden states (see `run_pass`)."""

    config: BertConfig
    parameters: Mapping[str, Host]
    batch: Batch
    choices: Choices
    heads: tuple[str, ...]
    labels: Mapping[str, Host] | None
    backward: bool

    @property
    def has_pooler(self) -> bool:
        """Whether the weights have one."""
        return "bert.pooler.dense.weight" in self.parameters

    def run(self, backend: Any, *, keep_inputs: bool = False) -> Pass:
        """The pass on a backend, composed of its ops."""
        on = {name: backend.asarray(x) for name, x in self.parameters.items()}
        return run_pass(
            backend, on, self.batch, self.choices, self.heads, labels=self.labels, backward=self.backward,
            keep_inputs=keep_inputs,
        )  # fmt: skip

    def under(self, profile: str | Profile | None) -> Setting:
        """The same under another profile; None: as it is."""
        return self if profile is None else replace(self, choices=Choices.of(self.config, get_profile(profile)))

    def in_dtype(self, *dtypes: str) -> Setting:
        """The weights rounded to the coarsest of the dtypes."""
        coarsest = min(dtypes, key=COARSE.index)
        return replace(self, parameters={name: rounded(x, coarsest) for name, x in self.parameters.items()})

    def differs_from(self, other: Setting) -> tuple[str, ...]:
        """The choices that are not the other's, in words."""
        pairs = ((f.name, getattr(self.choices, f.name), getattr(other.choices, f.name)) for f in fields(Choices))
        return tuple(f"{name}: {mine} against {theirs}" for name, mine, theirs in pairs if mine != theirs)


def of_model(model: Model, batch: Batch, *, backward: bool) -> Setting:
    """A model on a batch; its labels are `labels_for`'s."""
    batch.check(model.config)
    labels = labels_for(model.heads, batch, model.config) if backward else None
    return Setting(model.config, model.state_dict(), batch, model.choices, model.heads, labels, backward)


def synthetic(*, backward: bool = True, seed: int = 0, profile: str = "hf") -> Setting:
    """Random weights of the sizes above and a batch with padding: γ around 1, biases as large as weights."""
    rng = np.random.default_rng(seed)
    parameters = {
        name: rounded(("LayerNorm.weight" in name) + 0.5 * rng.standard_normal(shape), "float32")
        for name, shape in shapes(SYNTHETIC, PRETRAINING, pooler=True).items()
    }
    mask = (np.arange(9) < np.array([[9], [4], [6]])).astype(np.int64)
    batch = Batch(rng.integers(0, SYNTHETIC.vocab_size, (3, 9)), rng.integers(0, 2, (3, 9)), mask)
    labels = labels_for(PRETRAINING, batch, SYNTHETIC) if backward else None
    choices = Choices.of(SYNTHETIC, get_profile(profile))
    return Setting(SYNTHETIC, parameters, batch, choices, PRETRAINING, labels, backward)


def labels_for(heads: tuple[str, ...], batch: Batch, config: BertConfig) -> dict[str, Host] | None:
    """Labels for a loss: the tokens that stand there at every third place, first classes, first places.

    None for a model without heads, and for one whose only heads are multiple choice or regression.
    """
    B, S = batch.shape
    seen = (batch.attention_mask == 1) & (np.arange(S) % 3 == 1)
    first = np.zeros(B, np.int64)
    values = {
        "masked_lm": np.where(seen, batch.input_ids, IGNORE),
        "next_sentence": np.arange(B) % 2,
        "token_classification": np.where(seen, 0, IGNORE),
        "question_answering": first,
    }
    if config.num_labels > 1:
        values["sequence_classification"] = first
    found: dict[str, Host] = {}
    for name, labels in values.items():
        for key in HEADS[name].labels if name in heads else ():
            found.setdefault(key, labels)  # what the masked-LM head and a classifier call "labels" is the former's
    return found or None
