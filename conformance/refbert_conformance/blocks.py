"""Levels "blocks" and "models": the spec on the backend, and the backend's own fused blocks, against the spec on the
truth.

Tolerances come from `noise`. What is exact (padding, repetition, unused rows) is compared bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from refbert.batching import Batch
from refbert_conformance.inputs import rounded
from refbert_conformance.measure import Failure, Record, Worst, row_described, row_worst, same_bits
from refbert_conformance.models import ACTIVATIONS, ModelRecipe, inference, layer, model_recipes, on, training
from refbert_conformance.noise import tolerances
from refbert_conformance.properties import Property
from refbert_conformance.subject import Host, Subject

_SPEC = (
    "asarray", "to_numpy", "add", "reshape", "transpose", "embedding", "gather", "linear", "layer_norm", "gelu", "relu",
    "tanh", "attention_probabilities", "attention", "dropout", "cross_entropy", "mean_squared_error",
)  # fmt: skip


_REPEATABLE = "The same step gives the same bits; rows of unused ids get gradient exactly 0."


def properties() -> list[Property]:
    """Composed, fused, whole."""
    plain = {"rate": 0.0}
    one_layer = model_recipes(layers=1, task="masked_lm", **plain)
    fused: dict[str, Any] = {"needs": (*_SPEC, "encoder_layer"), "draw": lambda s: one_layer}
    own: dict[str, Any] = {"needs": (*_SPEC, "objective"), "draw": lambda s: model_recipes()}
    return [
        Property(
            "blocks", "encoder_layer", "composed", "A layer of the backend's ops, and its gradients, are the truth's.",
            check=_composed, draw=lambda s: model_recipes(layers=1, task="masked_lm"), needs=_SPEC, cost=2.5,
        ),
        Property(
            "blocks", "encoder_layer", "fused", "The backend's own layer is the spec's composition of the truth.",
            check=_fused, corpus=lambda s: _FUSED, cost=2, **fused,
        ),
        Property(
            "blocks", "encoder_layer", "fused: calls", "It repeats bit for bit, and changes no input or old result.",
            check=_fused_calls, corpus=lambda s: _FUSED[:3], cost=3, **fused,
        ),
        Property(
            "blocks", "encoder_layer", "fused: options", "Each option counts in every call, whatever was asked before.",
            check=_fused_options, corpus=lambda s: _CHANGING, cost=20, **fused,
        ),
        Property(
            "blocks", "encoder_layer", "fused: unseen keys", "Padding's content changes no bit of what is not padding.",
            check=_fused_padding, cost=3, **fused,
        ),
        Property(
            "models", "inference", "accuracy", "Hidden states, attention maps and logits are the truth's.",
            check=_inference, draw=lambda s: model_recipes(**plain), corpus=lambda s: _MODELS[:3],
            needs=_SPEC, cost=2.5,
        ),
        Property(
            "models", "inference", "padding", "What is in padding positions changes no bit of the rest.",
            check=_padding, needs=_SPEC, cost=2.5,
            draw=lambda s: model_recipes(layers=2, task="masked_lm", mask_value=-math.inf, **plain),
        ),
        Property(
            "models", "training", "accuracy", "Loss and every gradient, dropout included, are the truth's.",
            check=_training, draw=lambda s: model_recipes(), corpus=lambda s: _MODELS, needs=_SPEC, cost=2.5,
        ),
        Property(
            "models", "training", "repeatable", _REPEATABLE,
            check=_repeatable, draw=lambda s: model_recipes(task="pretraining"), needs=_SPEC, cost=2.5,
        ),
        Property(
            "models", "objective", "accuracy", "The backend's own model and its gradients are the spec's on the truth.",
            check=_objective, corpus=lambda s: _MODELS, cost=2.5, **own,
        ),
        Property(
            "models", "objective", "repeatable", _REPEATABLE,
            check=_own_repeatable, cost=2.5, **own,
        ),
        Property(
            "models", "objective", "options", "Each option counts in every call, whatever was asked before.",
            check=_own_options, corpus=lambda s: _CHANGING, cost=20, **own,
        ),
        Property(
            "models", "objective", "calls", "A call changes no weight, batch or label, and no earlier gradient.",
            check=_own_calls, cost=2.5, **own,
        ),
    ]  # fmt: skip


_FUSED = (
    *(
        ModelRecipe(seed, "masked_lm", 1, activation=activation, mask=mask, mask_value=value, eps=eps, A=A, D=D)
        for seed, (activation, mask, value, eps, A, D) in enumerate([
            ("gelu_erf", "ragged", -math.inf, 1e-12, 2, 3),
            ("gelu_tanh", "holes", -10000.0, 1e-5, 3, 2),
            ("relu", "none", -math.inf, 1e-12, 1, 5),
            ("tanh", "none", -10000.0, 1e-3, 4, 1),
            ("linear", "one", -math.inf, 1e-2, 2, 2),
            ("gelu_erf", "all", -math.inf, 1e-12, 3, 8),
            ("gelu_tanh", "none", -math.inf, 1e-12, 3, 8),
        ])
    ),
    *(  # scores far beyond ±10,000: what is masked must be so at any height
        ModelRecipe(seed, "masked_lm", 1, S=6, mask=mask, scale=60.0)
        for seed in (0, 1, 4, 5)
        for mask in ("one", "holes")
    ),
    # more sequences, heads and tokens than one block of threads
    ModelRecipe(8, "masked_lm", 1, B=5, S=9, A=12, D=4, F=40, mask="ragged"),
    ModelRecipe(9, "masked_lm", 1, B=2, S=70, mask="all"),
)  # fmt: skip
# What changes from call to call in "options".
_CHANGING = (ModelRecipe(1, "masked_lm", 1, mask="none"), ModelRecipe(2, "masked_lm", 1, mask_value=-10000.0))
_MODELS = (
    *(
        ModelRecipe(seed, task, 2, B=3, S=5, rate=rate, mask=mask, mask_value=value)
        for seed, (task, rate, mask, value) in enumerate([
            ("pretraining", 0.0, "ragged", -math.inf),
            ("pretraining", 0.3, "holes", -math.inf),
            ("masked_lm", 0.0, "holes", -10000.0),
            ("answers", 0.1, "ragged", -10000.0),
            ("answers", 0.0, "ragged", -math.inf),
            ("tags", 0.0, "ragged", -math.inf),
            ("classes", 0.3, "all", -math.inf),
            ("numbers", 0.0, "one", -10000.0),
            ("choices", 0.1, "ragged", -math.inf),
        ])
    ),
    ModelRecipe(9, "pretraining", 3, B=5, S=9, A=5, D=4, F=17, V=40, rate=0.1),
)  # fmt: skip


def compare(
    subject: Subject, run: Callable[[Any], Mapping[str, Host]], got: Mapping[str, Host], record: Record
) -> None:
    """Every row of everything; raises `Failure` for the worst."""
    worst: Worst | None = None
    wanted = tolerances(run, subject.arithmetic)
    if set(got) != {one.name for one in wanted}:
        names = {one.name for one in wanted}
        raise Failure(f"missing: {sorted(names - set(got))}, not asked for: {sorted(set(got) - names)}")
    for want in wanted:
        one = row_worst(np.asarray(got[want.name]), want, record)
        if one is not None and (worst is None or one.rho > worst.rho):
            worst = one
    if worst is not None:
        record.rho = max(record.rho or 0.0, worst.rho)
        if worst.rho > 1:
            raise Failure(row_described(worst), worst)


def _composed(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    run = layer(recipe, subject.dtype, fused=False)
    compare(subject, run, run(subject.backend), record)


def _fused(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    run = layer(recipe, subject.dtype, fused=True)
    compare(subject, run, run(subject.backend), record)


def _fused_inputs(subject: Subject, recipe: ModelRecipe) -> tuple[Host, dict[str, Host], dict[str, Any]]:
    prefix = "bert.encoder.layer.0."
    parameters = recipe.parameters(subject.dtype)
    local = {name.removeprefix(prefix): x for name, x in parameters.items() if name.startswith(prefix)}
    x = rounded(recipe.rng(6).standard_normal((recipe.B, recipe.S, recipe.A * recipe.D)), subject.dtype)
    c = recipe.choices
    options = {
        "mask": recipe.batch().attention_mask, "heads": c.heads, "mask_value": c.mask_value, "activation": c.activation,
        "eps": c.layer_norm_eps,
    }  # fmt: skip
    return x, local, options


def _fused_calls(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    x, local, options = _fused_inputs(subject, recipe)
    call = subject.op("encoder_layer")
    device, params = subject.device(x.copy()), {name: subject.device(w.copy()) for name, w in local.items()}
    mask = options["mask"].copy()
    y = call(device, params, **options)
    kept = np.array(subject.host(y, x.shape, "y"))
    call(subject.device(rounded(x + 1, subject.dtype)), params, **options)
    if not same_bits(np.array(subject.host(y)), kept):
        raise Failure("a later call changed an earlier result")
    if not same_bits(np.array(subject.host(device)).astype(float), x):
        raise Failure("encoder_layer wrote into x")
    for name, w in local.items():
        if not same_bits(np.array(subject.host(params[name])).astype(float), w):
            raise Failure(f"encoder_layer wrote into {name}")
    if not np.array_equal(mask, options["mask"]):
        raise Failure("encoder_layer wrote into the mask")
    try:
        call(device, params, **{**options, "activation": "unheard of"})
    except ValueError:
        pass
    else:
        raise Failure("an unknown activation was accepted; the spec raises ValueError")
    if "encoder_layer" not in subject.arithmetic.nondeterministic:
        for number in range(2, 6):
            if not same_bits(np.array(subject.host(call(device, params, **options))), kept):
                raise Failure(f"call {number} with the same arguments gives other bits")
        for kind in (np.bool_, np.int32, np.float32):
            again = call(device, params, **{**options, "mask": options["mask"].astype(kind)})
            if not same_bits(np.array(subject.host(again)), kept):
                raise Failure(f"a mask of {np.dtype(kind)} gives other bits than one of int64")


def _changing(recipe: ModelRecipe) -> tuple[ModelRecipe, ...]:
    """The recipe, others of the very same shapes that differ in one thing, and the recipe again: who keeps what one
    call computed or compiled must know for which arguments it holds."""
    other_mask = "holes" if recipe.mask != "holes" else "ragged"
    return (
        recipe,
        replace(recipe, seed=recipe.seed + 4),
        replace(recipe, eps=0.3),
        replace(recipe, mask=other_mask),
        replace(recipe, mask="none"),
        replace(recipe, mask="none", mask_value=-math.inf if recipe.mask_value != -math.inf else -10000.0),
        *(replace(recipe, activation=name) for name in ACTIVATIONS if name != recipe.activation),
        replace(recipe, A=recipe.D, D=recipe.A),
        recipe,
    )


def _fused_options(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    for one in _changing(recipe):
        _fused(subject, one, record)


def _own_options(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    for one in (*_changing(recipe), replace(recipe, rate=0.3), replace(recipe, rate=0.1)):
        _objective(subject, one, record)


def _own_calls(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    recipe = _possible(recipe)
    call = subject.op("objective")

    def step(recipe: ModelRecipe) -> tuple[dict[str, Any], dict[str, Host], Batch, dict[str, Host], dict[str, Any]]:
        weights, batch, labels = recipe.parameters(subject.dtype), recipe.batch(), recipe.labels()
        p = on(subject.backend, {name: w.copy() for name, w in weights.items()})
        loss, _, pullback = call(p, batch, labels, recipe.heads, recipe.choices, draws=recipe.draws)
        results = {"loss": loss, **pullback(subject.device(np.ones(())))}
        return p, weights, batch, labels, results

    p, weights, batch, labels, results = step(recipe)
    for name, w in weights.items():
        if not same_bits(np.array(subject.host(p[name])).astype(float), w):
            raise Failure(f"objective wrote into {name}")
    clean = recipe.batch()
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        if not np.array_equal(getattr(batch, name), getattr(clean, name)):
            raise Failure(f"objective wrote into {name}")
    for name, array in recipe.labels().items():
        if not np.array_equal(labels[name], array):
            raise Failure(f"objective wrote into {name}")
    hosts = {name: subject.host(x) for name, x in results.items()}
    kept = {name: np.array(x) for name, x in hosts.items()}
    step(replace(recipe, seed=recipe.seed + 1))
    for name, was in kept.items():
        if not same_bits(np.array(subject.host(results[name])), was) or not same_bits(np.array(hosts[name]), was):
            raise Failure(f"a later step changed the earlier {name}")


def _fused_padding(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    x, local, options = _fused_inputs(subject, recipe)
    visible = options["mask"].astype(bool)
    judged = visible & visible.any(axis=-1, keepdims=True)
    other = np.where(visible[..., None], x, rounded(recipe.rng(7).standard_normal(x.shape) * 5, subject.dtype))
    call = subject.op("encoder_layer")
    params = {name: subject.device(w) for name, w in local.items()}
    a, b = (np.array(subject.host(call(subject.device(one), params, **options)))[judged] for one in (x, other))
    if not same_bits(a, b):
        raise Failure("with other content in padding positions, the rest changes")


def _inference(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    run = inference(recipe, subject.dtype)
    compare(subject, run, run(subject.backend), record)


def _padding(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    batch = recipe.batch()
    visible = batch.attention_mask.astype(bool) & batch.attention_mask.any(axis=-1, keepdims=True)
    rng = recipe.rng(8)
    other = Batch(
        np.where(visible, batch.input_ids, rng.integers(0, recipe.V, visible.shape)),
        np.where(visible, batch.token_type_ids, rng.integers(0, 2, visible.shape)),
        batch.attention_mask,
    )
    run = inference(recipe, subject.dtype)
    changed = inference(_With(recipe, other), subject.dtype)  # type: ignore[arg-type]
    a, b = run(subject.backend), changed(subject.backend)
    last = f"hidden_states[{recipe.layers}]"
    if not same_bits(a[last][visible], b[last][visible]):
        raise Failure("with other tokens in padding positions, the hidden states of the rest change")


class _With:
    """A recipe with another batch."""

    def __init__(self, recipe: ModelRecipe, batch: Batch) -> None:
        self._recipe, self._batch = recipe, batch

    def batch(self) -> Batch:
        return self._batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._recipe, name)


def _training(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    run = training(_possible(recipe), subject.dtype)
    compare(subject, run, run(subject.backend), record)


def _objective(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    recipe = _possible(recipe)
    compare(
        subject, training(recipe, subject.dtype), training(recipe, subject.dtype, own=True)(subject.backend), record
    )


def _possible(recipe: ModelRecipe) -> ModelRecipe:
    return replace(recipe, V=max(recipe.V, 2))


def _repeatable(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    _repeat(subject, recipe, own=False)


def _own_repeatable(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    _repeat(subject, recipe, own=True)


def _repeat(subject: Subject, recipe: ModelRecipe, *, own: bool) -> None:
    run = training(recipe, subject.dtype, own=own)
    first = run(subject.backend)
    if not subject.arithmetic.nondeterministic:
        for number in (2, 3):
            for name, again in run(subject.backend).items():
                if not same_bits(np.asarray(first[name]), np.asarray(again)):
                    raise Failure(f"step {number} with the same arguments gives another {name}")
    if "masked_lm" in recipe.heads:
        return  # the tied decoder reaches every word
    words = first["bert.embeddings.word_embeddings.weight"]
    unused = np.setdiff1d(np.arange(recipe.V), recipe.batch().input_ids)
    if np.any(words[unused] != 0):
        raise Failure("the word embedding of an id that is not in the batch has a gradient")


__all__ = ["properties", "st"]
