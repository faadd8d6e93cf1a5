"""Whole configurations to try, and what is computed of them on any backend: the same function for truth and subject."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from refbert import ops
from refbert.backend import Host
from refbert.batching import Batch
from refbert.config import BertConfig
from refbert.parameters import POOLED_HEADS, shapes
from refbert.randomness import Dropout
from refbert.spec.bert import bert, objective
from refbert.spec.choices import Choices
from refbert.spec.encoder import Watch, encoder_layer
from refbert.spec.heads import masked_lm
from refbert.spec.parts import Scope
from refbert_conformance.cases import MASKS
from refbert_conformance.inputs import rounded

TASKS: Mapping[str, tuple[str, ...]] = {
    "pretraining": ("masked_lm", "next_sentence"),
    "masked_lm": ("masked_lm",),
    "answers": ("question_answering",),
    "tags": ("token_classification",),
    "classes": ("sequence_classification",),
    "numbers": ("sequence_classification",),
    "choices": ("multiple_choice",),
}
ACTIVATIONS = ("gelu_erf", "gelu_tanh", "relu", "tanh", "linear")


@dataclass(frozen=True)
class ModelRecipe:
    """A model, a batch and labels in a few numbers; all drawn from ``seed``."""

    seed: int
    task: str = "pretraining"
    layers: int = 2
    B: int = 2
    S: int = 5
    A: int = 2
    D: int = 3
    F: int = 7
    V: int = 11
    activation: str = "gelu_erf"
    eps: float = 1e-12
    mask: str = "ragged"
    mask_value: float = -math.inf
    rate: float = 0.0
    scale: float = 0.5

    @property
    def config(self) -> BertConfig:
        """The sizes."""
        return BertConfig(
            vocab_size=self.V, hidden_size=self.A * self.D, num_hidden_layers=self.layers, num_attention_heads=self.A,
            intermediate_size=self.F, max_position_embeddings=self.S + 2, num_labels=3, layer_norm_eps=self.eps,
        )  # fmt: skip

    @property
    def choices(self) -> Choices:
        """Everything else that decides; three rates, so that no site can borrow another's."""
        google = self.mask_value != -math.inf
        return Choices(
            layers=self.layers, heads=self.A, activation=self.activation, layer_norm_eps=self.eps,
            mask_value=self.mask_value, hidden_dropout=self.rate, attention_dropout=self.rate / 2,
            classifier_dropout=self.rate * 0.75, span_mean_over_batch=google,
            # Google's 1e-5 hides in float32's rounding of a loss; that it is used at all shows with a larger one.
            masked_lm_epsilon=(0.5, 1e-5)[self.seed % 2] if google else 0.0,
        )  # fmt: skip

    @property
    def heads(self) -> tuple[str, ...]:
        """The task's heads."""
        return TASKS[self.task]

    @property
    def draws(self) -> Dropout | None:
        """Dropout's masks, or None without dropout."""
        return Dropout(self.seed) if self.rate else None

    def rng(self, salt: int) -> np.random.Generator:
        """Numbers for one purpose."""
        return np.random.default_rng((self.seed, salt))

    def parameters(self, dtype: str) -> dict[str, Host]:
        """Weights exact in the dtype; γ around 1, biases as large as weights."""
        rng = self.rng(1)
        return {
            name: rounded(("LayerNorm.weight" in name) + self.scale * rng.standard_normal(shape), dtype)
            for name, shape in shapes(self.config, self.heads, pooler=True).items()
        }

    def batch(self) -> Batch:
        """Ids with repeats, both segments, and a mask."""
        rng = self.rng(2)
        shape = (self.B, self.S)
        mask = np.ones(shape, np.int64)
        if self.mask == "ragged":
            mask = (np.arange(self.S) < rng.integers(1, self.S + 1, (self.B, 1))).astype(np.int64)
        elif self.mask == "holes":
            mask = (rng.random(shape) < 0.6).astype(np.int64)
            mask[:, 0] = 1
        elif self.mask == "one":
            mask = (np.arange(self.S) == rng.integers(0, self.S, (self.B, 1))).astype(np.int64)
        elif self.mask == "none":
            mask[0] = 0
        return Batch(rng.integers(0, self.V, shape), rng.integers(0, 2, shape), mask)

    def labels(self) -> dict[str, Host]:
        """What the task's loss needs; some labels do not count."""
        rng = self.rng(3)
        B, S = self.B, self.S
        if self.task in ("pretraining", "masked_lm"):
            labels = np.where(rng.random((B, S)) < 0.5, rng.integers(0, self.V, (B, S)), ops.IGNORE)
            labels[0, 0] = self.V - 1
            found = {"labels": labels}
            return found | {"next_sentence_label": rng.integers(0, 2, B)} if self.task == "pretraining" else found
        if self.task == "answers":
            starts, ends = rng.integers(0, S + 1, B), rng.integers(0, S + 1, B)
            starts[-1] = S  # one past the end: an answer outside the window
            return {"start_positions": starts, "end_positions": ends}
        if self.task == "tags":
            return {"labels": np.where(rng.random((B, S)) < 0.7, rng.integers(0, 3, (B, S)), ops.IGNORE)}
        if self.task == "classes":
            return {"labels": rng.integers(0, 3, B)}
        if self.task == "numbers":
            return {"labels": rounded(rng.standard_normal((B, 3)), "float16")}
        return {"labels": np.zeros(1, np.int64)}  # one question whose choices are the batch's rows


def model_recipes(**fixed: Any) -> st.SearchStrategy[ModelRecipe]:
    """Whole configurations, all sizes small and unequal."""
    drawn: dict[str, Any] = {
        "seed": st.integers(0, 2**20),
        "task": st.sampled_from(tuple(TASKS)),
        "layers": st.integers(1, 2),
        "B": st.integers(1, 3),
        "S": st.integers(1, 6),
        "A": st.integers(1, 3),
        "D": st.integers(1, 4),
        "F": st.integers(1, 9),
        "V": st.integers(2, 13),
        "activation": st.sampled_from(ACTIVATIONS),
        "eps": st.sampled_from([1e-12, 1e-5, 1e-2]),
        "mask": st.sampled_from(MASKS),
        "mask_value": st.sampled_from([-math.inf, -10000.0]),
        "rate": st.sampled_from([0.0, 0.3, 0.1]),
        "scale": st.sampled_from([0.5, 0.1, 1.5]),
    }
    return st.builds(ModelRecipe, **{name: s for name, s in drawn.items() if name not in fixed}, **{
        name: st.just(value) if not isinstance(value, st.SearchStrategy) else value for name, value in fixed.items()
    })  # fmt: skip


def on(backend: Any, arrays: Mapping[str, Host]) -> dict[str, Any]:
    """Arrays on a backend."""
    return {name: backend.asarray(x) for name, x in arrays.items()}


def training(recipe: ModelRecipe, dtype: str, *, own: bool = False) -> Callable[[Any], dict[str, Host]]:
    """The loss, its terms and every gradient; ``own``: by the backend's objective instead of the spec's."""
    parameters, batch, labels = recipe.parameters(dtype), recipe.batch(), recipe.labels()
    cotangent = rounded(recipe.rng(4).normal(1, 1, ()), dtype)

    def run(backend: Any) -> dict[str, Host]:
        p = on(backend, parameters)
        arguments = (p, batch, labels, recipe.heads, recipe.choices)
        if own and hasattr(backend, "objective"):
            loss, terms, pullback = backend.objective(*arguments, draws=recipe.draws)
        else:
            loss, terms, pullback = objective(backend, *arguments, draws=recipe.draws)
        gradients = pullback(backend.asarray(cotangent))
        found = {"loss": loss} | {f"loss of {name}": x for name, x in terms.items()} | gradients
        return {name: backend.to_numpy(x) for name, x in found.items()}

    return run


def inference(recipe: ModelRecipe, dtype: str) -> Callable[[Any], dict[str, Host]]:
    """Hidden states of every layer, the pooled vector, the masked-LM logits, attention maps: as `refbert run` does."""
    parameters, batch = recipe.parameters(dtype), recipe.batch()

    def run(backend: Any) -> dict[str, Host]:
        p = on(backend, parameters)
        watch: Watch[Any] = Watch(want_hidden_states=True, want_attentions=True)
        encoded, _ = bert(backend, p, batch, recipe.choices, pooled=True, gradients=False, watch=watch)
        found = {f"hidden_states[{i}]": x for i, x in enumerate(watch.hidden_states)}
        found |= {f"attentions[{i}]": x for i, x in enumerate(watch.attentions)}
        found["pooler_output"] = encoded.pooled
        if "masked_lm" in recipe.heads:
            found["logits"] = masked_lm(backend, p, encoded.hidden, np.arange(batch.input_ids.size), recipe.choices)[0]
        return {name: backend.to_numpy(x) for name, x in found.items()}

    return run


def layer(recipe: ModelRecipe, dtype: str, *, fused: bool) -> Callable[[Any], dict[str, Host]]:
    """One encoder layer: fused, its result; composed, also its pullback."""
    parameters = recipe.parameters(dtype)
    rng = recipe.rng(5)
    shape = (recipe.B, recipe.S, recipe.A * recipe.D)
    # Inputs of every size, down to where ε is all that is left of the variance.
    size = (1.0, 1.0, 1e-3, 30.0)[recipe.seed % 4]
    x = rounded(size * rng.standard_normal(shape), dtype)
    dy = rounded(rng.standard_normal(shape), dtype)
    mask, c = recipe.batch().attention_mask, recipe.choices
    prefix = "bert.encoder.layer.0."

    def run(backend: Any) -> dict[str, Host]:
        p = Scope(on(backend, parameters), prefix)
        if fused and hasattr(backend, "encoder_layer"):
            y = backend.encoder_layer(
                backend.asarray(x), p, mask=mask, heads=c.heads, mask_value=c.mask_value, activation=c.activation,
                eps=c.layer_norm_eps,
            )  # fmt: skip
            return {"y": backend.to_numpy(y)}
        y, pullback = encoder_layer(
            backend, p, backend.asarray(x), mask, c, site="layer", draws=None if fused else recipe.draws
        )
        if fused:
            return {"y": backend.to_numpy(y)}
        dx, gradients = pullback(backend.asarray(dy))
        return {"y": backend.to_numpy(y), "dx": backend.to_numpy(dx)} | {
            name: backend.to_numpy(g) for name, g in gradients.items()
        }

    return run


__all__ = ["POOLED_HEADS", "ModelRecipe", "inference", "layer", "model_recipes", "training"]
