"""Whole configurations to try, and what is computed of them: the same function for reference and subject."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from refbert import ops
from refbert.backend import Host
from refbert.config import BertConfig
from refbert.config.parameters import shapes
from refbert.randomness import Dropout
from refbert.spec.bert import bert, objective
from refbert.spec.choices import Choices
from refbert.spec.encoder import Watch, encoder_layer
from refbert.spec.head_table import denominators, labelled_heads
from refbert.spec.heads import masked_lm
from refbert.spec.scope import Scope
from refbert.text.batching import Batch
from refbert.wire.remote import get_each, put_each
from refbert_conformance.cases.inputs import rounded
from refbert_conformance.cases.operations import MASKS

TASKS: Mapping[str, tuple[str, ...]] = {
    "pretraining": ("masked_lm", "next_sentence"),
    "reversed": ("next_sentence", "masked_lm"),
    # Heads that the labels say nothing about take no part.
    "words only": ("masked_lm", "next_sentence"),
    "order only": ("masked_lm", "next_sentence"),
    "masked_lm": ("masked_lm",),
    "answers": ("question_answering",),
    "tags": ("token_classification",),
    "classes": ("sequence_classification",),
    "numbers": ("sequence_classification",),
    "several": ("sequence_classification",),
    "choices": ("multiple_choice",),
}
_PAIRED = ("pretraining", "reversed")
# What an example leaves out, so that each is decided by its own rate, and "draws" by none: an evaluation.
OFF = ("", "hidden", "attention", "classifier", "draws")
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
    spread: float = 1.0
    off: str = ""
    step: int = 0
    part: bool = False
    checkpointing: bool = False

    @property
    def config(self) -> BertConfig:
        """The sizes."""
        return BertConfig(
            vocab_size=self.V, hidden_size=self.A * self.D, num_hidden_layers=self.layers, num_attention_heads=self.A,
            intermediate_size=self.F, max_position_embeddings=self.S + 2, num_labels=self.K, layer_norm_eps=self.eps,
            type_vocab_size=4,
        )  # fmt: skip

    @property
    def operations(self) -> int:
        """About how many a forward takes."""
        head = 2 * self.A * self.D * self.V
        return self.B * self.S * (self.layers * _a_token(self) + head)

    @property
    def K(self) -> int:
        """Classes."""
        return (3, 1, 5, 2)[self.seed % 4]

    @property
    def choices(self) -> Choices:
        """Everything else that decides; three rates, so that no site can borrow another's."""
        google = self.mask_value != -math.inf
        hidden, attention, classifier = (
            0.0 if self.off == name else share * self.rate
            for name, share in (("hidden", 1), ("attention", 0.5), ("classifier", 0.75))
        )
        return Choices(
            layers=self.layers, heads=self.A, activation=self.activation, layer_norm_eps=self.eps,
            mask_value=self.mask_value, hidden_dropout=hidden, attention_dropout=attention,
            classifier_dropout=classifier, span_mean_over_batch=google, gradient_checkpointing=self.checkpointing,
            # Google's 1e-5 hides in float32's rounding of a loss; that it is used at all shows with a larger one.
            masked_lm_epsilon=(0.5, 1e-5)[self.seed % 2] if google else 0.0,
        )  # fmt: skip

    @property
    def heads(self) -> tuple[str, ...]:
        """The task's heads."""
        return TASKS[self.task]

    @property
    def draws(self) -> Dropout | None:
        """Dropout's masks, or None: with no rates, or in an evaluation, which leaves the rates as they are."""
        rows = (1, 1 + self.B, 3 + self.B) if self.part else None
        return Dropout(self.seed, self.step, rows) if self.rate and self.off != "draws" else None

    def denominators(self, batch: Batch, labels: Mapping[str, Host]) -> dict[str, float] | None:
        """None, or where this is a part of a batch, those of a whole in which other rows have labels too."""
        if not self.part:
            return None
        own = denominators(labelled_heads(self.heads, labels), labels, batch.input_ids.shape[1], self.choices)
        return {name: 2 * own[name] + 3 for name in own}

    def rng(self, salt: int) -> np.random.Generator:
        """Numbers for one purpose."""
        return np.random.default_rng((self.seed, salt))

    def parameters(self, dtype: str) -> dict[str, Host]:
        """Weights exact in the dtype; γ around 1, biases as large as weights.

        ``spread`` multiplies all but the matrices of products: with 0.003, variances in LayerNorm are about 1e-5, so
        that an ε of that size counts.
        """
        rng = self.rng(1)
        found = {}
        for name, shape in shapes(self.config, self.heads, pooler=True).items():
            product = len(shape) == 2 and "embeddings" not in name
            w = ("LayerNorm.weight" in name) + self.scale * rng.standard_normal(shape)
            found[name] = rounded(w if product else self.spread * w, dtype)
        return found

    def batch(self) -> Batch:
        """Ids with repeats, several segments, and a mask."""
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
            mask[:1] = 0
        return Batch(rng.integers(0, self.V, shape), rng.integers(0, self.config.type_vocab_size, shape), mask)

    def labels(self) -> dict[str, Host]:
        """What the task's loss needs; some labels do not count."""
        rng = self.rng(3)
        B, S, K = self.B, self.S, self.K
        found: dict[str, Host] = {}
        if self.task in (*_PAIRED, "words only", "masked_lm"):
            labels = np.where(rng.random((B, S)) < 0.5, rng.integers(0, self.V, (B, S)), ops.IGNORE)
            labels[:1, :1] = self.V - 1
            if self.seed % 8 == 7:
                labels[:] = ops.IGNORE
            found["labels"] = labels
        if self.task in (*_PAIRED, "order only"):
            found["next_sentence_label"] = np.where(rng.random(B) < 0.8, rng.integers(0, 2, B), ops.IGNORE)
        if found:
            return found
        if self.task == "answers":
            starts, ends = rng.integers(-2, S + 3, B), rng.integers(-2, S + 3, B)
            starts[-1:] = S  # one past the end: an answer outside the window
            return {"start_positions": starts, "end_positions": ends}
        if self.task == "tags":
            return {"labels": np.where(rng.random((B, S)) < 0.7, rng.integers(0, K, (B, S)), ops.IGNORE)}
        if self.task == "classes":
            return {"labels": np.where(rng.random(B) < 0.8, rng.integers(0, K, B), ops.IGNORE)}
        if self.task == "several":
            return {"labels": np.where(rng.random((B, K)) < 0.9, rng.integers(0, 2, (B, K)), ops.IGNORE)}
        if self.task == "numbers":
            return {"labels": rounded(rng.standard_normal((B, K)), "bfloat16")}
        each = next(n for n in (3, 2, 1) if B % n == 0)  # the batch's rows are the choices of one or more questions
        return {"labels": rng.integers(0, each, B // each)}

    @property
    def axes(self) -> dict[str, int]:
        """What may be shrunk, by name."""
        return {name: getattr(self, name) for name in ("layers", "B", "S", "A", "D", "F", "V")}

    def resized(self, **axes: int) -> ModelRecipe:
        """The same with other sizes."""
        return replace(self, **axes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Repeated:
    """A large batch: ``copies`` times the sequences of a recipe, one after the other. What is due is known from one."""

    recipe: ModelRecipe
    copies: int

    @property
    def seed(self) -> int:
        """The recipe's."""
        return self.recipe.seed

    @property
    def operations(self) -> int:
        """About how many a forward takes."""
        return self.copies * self.recipe.operations

    @property
    def axes(self) -> dict[str, int]:
        """What may be shrunk, by name."""
        return {"copies": self.copies, **self.recipe.axes}

    def resized(self, copies: int | None = None, **axes: int) -> Repeated:
        """The same with other sizes."""
        return Repeated(self.recipe.resized(**axes), copies or self.copies)

    def tiled(self, x: Host) -> Host:
        """A host array of the recipe's batch, as often as the batch has it."""
        return np.tile(x, (self.copies, *(1,) * (x.ndim - 1)))


# A drawn layer may have so many operations.
_OPERATIONS = 2**26


def _a_token(recipe: ModelRecipe) -> int:
    """The operations of a layer for one token."""
    H = recipe.A * recipe.D
    return 2 * (4 * H * H + 2 * H * recipe.F + 2 * recipe.S * H)


def large_layers(**fixed: Any) -> st.SearchStrategy[Repeated]:
    """Layers as wide and batches as long as in published models; of what is wide and long at once, one sequence in
    copies."""
    recipes = model_recipes(
        layers=1, B=st.integers(1, 2), S=st.one_of(st.integers(10, 150), st.sampled_from([128, 129, 257, 300])),
        A=st.sampled_from([2, 1, 3, 4, 8, 12]), D=st.sampled_from([64, 32, 48]), scale=0.04,
        F=st.sampled_from([512, 256, 128, 313, 1024, 3072]), part=False, **fixed,
    )  # fmt: skip
    return st.builds(_affordable, recipes, st.integers(1, 40))


def _affordable(recipe: ModelRecipe, copies: int) -> Repeated:
    rows = _OPERATIONS // _a_token(recipe)
    recipe = replace(recipe, B=max(1, min(recipe.B, rows // recipe.S)), S=max(1, min(recipe.S, rows)))
    return Repeated(recipe, max(1, min(copies, 2**19 // (recipe.B * recipe.S * max(recipe.A * recipe.D, recipe.F)))))


def model_recipes(**fixed: Any) -> st.SearchStrategy[ModelRecipe]:
    """Whole configurations, all sizes small and unequal."""
    drawn: dict[str, Any] = {
        "seed": st.integers(0, 2**20),
        "task": st.sampled_from(tuple(TASKS)),
        "layers": st.integers(1, 2),
        "B": st.integers(1, 4),
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
        "spread": st.sampled_from([1.0, 0.003]),
        "off": st.sampled_from(OFF),
        "step": st.sampled_from([0, 1, 1000]),
        "part": st.booleans(),
    }
    return st.builds(ModelRecipe, **{name: s for name, s in drawn.items() if name not in fixed}, **{
        name: st.just(value) if not isinstance(value, st.SearchStrategy) else value for name, value in fixed.items()
    })  # fmt: skip


def on(backend: Any, arrays: Mapping[str, Host]) -> dict[str, Any]:
    """Arrays on a backend."""
    return dict(zip(arrays, put_each(backend, tuple(arrays.values())), strict=True))


def to_hosts(backend: Any, arrays: Mapping[str, Any]) -> dict[str, Host]:
    """A backend's arrays on the host."""
    return dict(zip(arrays, get_each(backend, tuple(arrays.values())), strict=True))


def training(recipe: ModelRecipe, dtype: str, *, own: bool = False) -> Callable[[Any], dict[str, Host]]:
    """The loss, its terms and every gradient; ``own``: by the backend's objective instead of the spec's."""
    parameters, batch, labels = recipe.parameters(dtype), recipe.batch(), recipe.labels()
    cotangent = rounded(recipe.rng(4).normal(1, 1, ()), dtype)

    def run(backend: Any) -> dict[str, Host]:
        p = on(backend, parameters)
        arguments = (p, batch, labels, recipe.heads, recipe.choices)
        whole: dict[str, Any] = {"draws": recipe.draws, "denominators": recipe.denominators(batch, labels)}
        if own and hasattr(backend, "objective"):
            loss, terms, pullback = backend.objective(*arguments, **whole)
        else:
            loss, terms, pullback = objective(backend, *arguments, **whole)
        gradients = pullback(backend.asarray(cotangent))
        return to_hosts(backend, {"loss": loss} | {f"loss of {name}": x for name, x in terms.items()} | gradients)

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
        return to_hosts(backend, found)

    return run


def layer(recipe: ModelRecipe, dtype: str, *, fused: bool) -> Callable[[Any], dict[str, Host]]:
    """One encoder layer: fused, its result; composed, also its pullback."""
    parameters = recipe.parameters(dtype)
    rng = recipe.rng(5)
    shape = (recipe.B, recipe.S, recipe.A * recipe.D)
    # Inputs of every size, down to where ε is all that is left of the variance.
    size = (1.0, 1.0, 1e-3, 30.0)[recipe.seed % 4]
    x = rounded(size * recipe.spread * rng.standard_normal(shape), dtype)
    dy = rounded(rng.standard_normal(shape), dtype)
    mask, c = recipe.batch().attention_mask, recipe.choices
    prefix = "bert.encoder.layer.0."

    def run(backend: Any) -> dict[str, Host]:
        p = Scope(on(backend, parameters), prefix)
        if fused and hasattr(backend, "encoder_layer"):
            y = backend.encoder_layer(backend.asarray(x), p, mask=mask, **c.layer_options())
            return {"y": backend.to_numpy(y)}
        y, pullback = encoder_layer(
            backend, p, backend.asarray(x), mask, c, site="layer", draws=None if fused else recipe.draws
        )
        if fused:
            return {"y": backend.to_numpy(y)}
        dx, gradients = pullback(backend.asarray(dy))
        return to_hosts(backend, {"y": y, "dx": dx} | gradients)

    return run
