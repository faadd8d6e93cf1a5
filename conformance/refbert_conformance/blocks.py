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
from refbert_conformance.models import ACTIVATIONS, OFF, ModelRecipe, inference, layer, model_recipes, on, training
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
            "blocks", "encoder_layer", "fused: each weight", "Each weight counts where all others are the same arrays.",
            check=_fused_each, cost=10, **fused,
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
            check=_objective, corpus=lambda s: _OWN, cost=2.5, **own,
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
        Property(
            "models", "objective", "each argument", "Each weight, id and label counts where all others are the same.",
            check=_own_each, corpus=lambda s: _MODELS[1:4], cost=20, **own,
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
    # Features in whole blocks and fewer inside than outside (weights of 1/√H: with large ones softmax picks one key,
    # and rounding decides which); inside, more than a block and a rest; one of everything.
    ModelRecipe(12, "masked_lm", 1, B=1, S=3, A=2, D=64, F=72, mask="all", scale=0.1),
    ModelRecipe(13, "masked_lm", 1, B=2, S=2, A=3, D=2, F=300, mask="all"),
    ModelRecipe(16, "masked_lm", 1, B=1, S=1, A=1, D=8, F=1, mask="all"),
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
# What a whole model of the backend's own is tried on besides. Each rate on its own, an evaluation, later steps, heads
# in the other order or without labels; no label at all; several questions; answers before and beyond the window.
_OWN = (
    *_MODELS,
    *(ModelRecipe(2, "classes", 1, rate=0.4, off=off) for off in OFF),
    ModelRecipe(3, "pretraining", 1, rate=0.4, off="attention", step=1),
    ModelRecipe(3, "tags", 1, rate=0.4, off="hidden", step=12),
    *(ModelRecipe(4, task, 1, B=3) for task in ("reversed", "words only", "order only")),
    ModelRecipe(7, "masked_lm", 1),
    *(ModelRecipe(5, task, 1, B=3, rate=0.3, part=True) for task in ("pretraining", "answers", "classes")),
    *(ModelRecipe(seed, "choices", 1, B=6) for seed in (0, 1, 2)),
    *(ModelRecipe(seed, "answers", 1, B=8, mask_value=value) for seed in (0, 1) for value in (-math.inf, -10000.0)),
    *(ModelRecipe(seed, task, 1, B=8) for seed in (0, 1) for task in ("order only", "classes", "tags")),
    # Names of layers with two digits, and a site of dropout for each.
    ModelRecipe(10, "pretraining", 13, B=1, S=2, A=1, D=3, F=2, V=3, rate=0.3),
    # More tokens, predictions, words and features than one block.
    ModelRecipe(12, "masked_lm", 1, B=2, S=70, A=1, D=64, F=72, V=150, mask="all", scale=0.1),
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
        for layout in (np.asfortranarray(mask), np.repeat(mask, 2, axis=1)[:, ::2]):
            if not same_bits(np.array(subject.host(call(device, params, **{**options, "mask": layout}))), kept):
                raise Failure("a mask in another layout gives other bits")
    nothing = call(subject.device(x[:0]), params, **{**options, "mask": mask[:0]})
    subject.host(nothing, (0, *x.shape[1:]), "y of an empty batch")


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
    dropping = replace(recipe, rate=0.3)
    others = (dropping, replace(dropping, step=1), replace(dropping, seed=recipe.seed + 4), replace(recipe, rate=0.1))
    parts = (replace(dropping, part=True), replace(recipe, part=True))
    for one in (*_changing(recipe), *others, *parts, replace(dropping, off="draws")):
        _objective(subject, one, record)


def _own_calls(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    recipe = _possible(recipe)
    call = subject.op("objective")

    def step(recipe: ModelRecipe) -> tuple[Any, ...]:
        weights, batch, labels = recipe.parameters(subject.dtype), recipe.batch(), recipe.labels()
        p = on(subject.backend, {name: w.copy() for name, w in weights.items()})
        loss, _, pullback = call(p, batch, labels, recipe.heads, recipe.choices, draws=recipe.draws)
        results = {"loss": loss, **pullback(subject.device(np.ones(())))}
        return p, weights, batch, labels, results, pullback

    p, weights, batch, labels, results, pullback = step(recipe)
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
    if not subject.arithmetic.nondeterministic:
        for name, x in pullback(subject.device(np.ones(()))).items():
            if not same_bits(np.array(subject.host(x)), kept[name]):
                raise Failure(f"called again, after another step, the pullback gives another {name}")
        arguments = (recipe.heads, recipe.choices)
        narrow = {name: x.astype(np.int32) if x.dtype.kind == "i" else x for name, x in labels.items()}
        spread = {name: np.repeat(x, 2, axis=0)[::2] for name, x in labels.items()}
        for kind, other in (("32 bits", narrow), ("another layout", spread)):
            loss, _, _ = call(p, batch, other, *arguments, draws=recipe.draws)
            if not same_bits(np.array(subject.host(loss)), kept["loss"]):
                raise Failure(f"labels of {kind} give another loss")
    try:
        call(p, batch, {}, recipe.heads, recipe.choices, draws=recipe.draws)
    except ValueError:
        return
    raise Failure("without a labelled head there is no loss; the spec raises ValueError")


def _own_each(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    """Packed weights, compiled graphs and copies on a device are kept by some key: what is not in it must not count."""
    recipe = _possible(recipe)
    other = replace(recipe, seed=recipe.seed + 8)  # alike but for the numbers
    batch, labels = recipe.batch(), recipe.labels()
    call = subject.op("objective")

    def step(p: dict[str, Any]) -> dict[str, Host]:
        loss, _, pullback = call(p, batch, labels, recipe.heads, recipe.choices, draws=recipe.draws)
        results = {"loss": loss, **pullback(subject.device(np.ones(())))}
        return {name: np.array(subject.host(x)) for name, x in results.items()}

    _each_weight(subject, recipe.parameters(subject.dtype), other.parameters(subject.dtype), step)
    for one in _inputs_changed(recipe, other):
        run = training(one, subject.dtype, own=True)  # type: ignore[arg-type]
        compare(subject, training(one, subject.dtype), run(subject.backend), record)  # type: ignore[arg-type]


def _inputs_changed(recipe: ModelRecipe, other: ModelRecipe) -> list[_With]:
    """The recipe as it is, and with one of its ids, types, mask, labels and draws after the other from elsewhere."""
    a, b, labels = recipe.batch(), other.batch(), recipe.labels()
    batches = [
        Batch(b.input_ids, a.token_type_ids, a.attention_mask),
        Batch(a.input_ids, b.token_type_ids, a.attention_mask),
        Batch(a.input_ids, a.token_type_ids, b.attention_mask),
    ]
    found = [_With(recipe), *(_With(recipe, batch=lambda one=one: one) for one in batches)]
    for name, array in other.labels().items():
        found.append(_With(recipe, labels=lambda found=labels | {name: array}: found))
    if recipe.draws is not None:
        found.append(_With(recipe, draws=other.draws))
    return found


def _each_weight(
    subject: Subject,
    weights: dict[str, Host],
    others: dict[str, Host],
    call: Callable[[dict[str, Any]], dict[str, Host]],
) -> None:
    """One weight replaced, the others the same arrays as before, must be as good as all of them new."""
    if subject.arithmetic.nondeterministic:
        return
    p = on(subject.backend, weights)
    for name in weights:
        call(p)  # what it keeps is now of these
        got = call(p | {name: subject.device(others[name])})
        want = call(on(subject.backend, weights | {name: others[name]}))
        for output, x in want.items():
            if not same_bits(got[output], x):
                raise Failure(f"only {name} is new, and {output} is not what it is where every array is new")


def _fused_each(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    x, local, options = _fused_inputs(subject, recipe)
    _, others, _ = _fused_inputs(subject, replace(recipe, seed=recipe.seed + 8))
    call, device = subject.op("encoder_layer"), subject.device(x)
    _each_weight(subject, local, others, lambda p: {"y": np.array(subject.host(call(device, p, **options)))})


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
    types = recipe.config.type_vocab_size
    other = Batch(
        np.where(visible, batch.input_ids, rng.integers(0, recipe.V, visible.shape)),
        np.where(visible, batch.token_type_ids, rng.integers(0, types, visible.shape)),
        batch.attention_mask,
    )
    run = inference(recipe, subject.dtype)
    changed = inference(_With(recipe, batch=lambda: other), subject.dtype)  # type: ignore[arg-type]
    a, b = run(subject.backend), changed(subject.backend)
    last = f"hidden_states[{recipe.layers}]"
    if not same_bits(a[last][visible], b[last][visible]):
        raise Failure("with other tokens in padding positions, the hidden states of the rest change")


class _With:
    """A recipe with something else in it."""

    def __init__(self, recipe: ModelRecipe, **members: Any) -> None:
        self._recipe = recipe
        self.__dict__.update(members)

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
    batch = recipe.batch()
    used = {"position": np.arange(recipe.S), "token_type": batch.token_type_ids, "word": batch.input_ids}
    if "loss of masked_lm" in first:
        del used["word"]  # the tied decoder reaches every one
    for name, ids in used.items():
        gradient = first[f"bert.embeddings.{name}_embeddings.weight"]
        if np.any(gradient[np.setdiff1d(np.arange(len(gradient)), ids)] != 0):
            raise Failure(f"the {name} embedding of an id that is not in the batch has a gradient")


__all__ = ["properties", "st"]
