"""Levels "blocks" and "models": the spec on the backend, and the backend's own fused blocks, against the spec on the
reference.

Tolerances come from `noise`. What is exact (padding, repetition, unused rows) is compared bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from refbert.backend import REQUIRED, Host
from refbert.text.batching import Batch
from refbert_conformance.cases.inputs import masks, rounded
from refbert_conformance.cases.model_cases import (
    ACTIVATIONS,
    ModelRecipe,
    Repeated,
    inference,
    large_layers,
    layer,
    model_recipes,
    on,
    training,
)
from refbert_conformance.cases.model_corpus import CHANGING, FUSED, LARGE_LAYERS, LARGEST_LAYERS, MODELS
from refbert_conformance.engine.divergence import composed_layer, judge_ops
from refbert_conformance.engine.measure import Failure, Record, Worst, row_described, row_failure, row_worst, same_bits
from refbert_conformance.engine.property import FIRST, Property, first_call
from refbert_conformance.engine.subject import Subject
from refbert_conformance.tolerances.bounds import Expected
from refbert_conformance.tolerances.noise import FEW, tolerances

SPEC = REQUIRED  # what the spec composes everything of


REPEATABLE = "The same step gives the same bits; rows of unused ids get gradient exactly 0."


def properties() -> list[Property]:
    """Composed, fused, whole."""
    drawn: dict[str, Any] = {"draw": model_recipes(layers=1, task="masked_lm", rate=0.0)}
    block = partial(Property, "blocks", "encoder_layer")
    fused = partial(block, needs=(*SPEC, "encoder_layer"))
    inference, training = (partial(Property, "models", way, needs=SPEC, cost=2.5) for way in ("inference", "training"))
    return [
        block("composed", "A layer of the backend's ops and its gradients: the reference's.", _composed,
              model_recipes(layers=1, task="masked_lm"), needs=SPEC, cost=2.5,
              larger=(ModelRecipe(21, "masked_lm", 1, B=2, S=131, D=64, F=300, mask="holes", rate=0.1),)),
        fused("fused", "The backend's own layer is the spec's composition of the reference.", _fused,
              corpus=FUSED, cost=2, **drawn),
        fused("fused: first call", FIRST, first_call(_fused), corpus=FUSED[:1]),
        fused("fused: real sizes", "So it is at the sizes of models.", _fused_large, cost=15,
              draw=large_layers(task="masked_lm", rate=0.0),
              corpus=LARGE_LAYERS[:2], larger=LARGE_LAYERS[2:], largest=LARGEST_LAYERS),
        fused("fused: calls", "It repeats bit for bit, and changes no input or old result.", _fused_calls,
              corpus=FUSED[:3], cost=3, **drawn),
        fused("fused: options", "Each option counts in every call, whatever was asked before.", _fused_options,
              corpus=CHANGING, cost=20, **drawn),
        fused("fused: unseen keys", "Padding's content changes no bit of what is not padding.", _fused_padding,
              cost=3, **drawn),
        fused("fused: each weight", "Each weight counts where all others are the same arrays.", _fused_each,
              cost=10, **drawn),
        inference("accuracy", "Hidden states, attention maps and logits are the reference's.", _inference,
                  model_recipes(rate=0.0), MODELS[:3]),
        inference("padding", "What is in padding positions changes no bit of the rest.", _padding,
                  model_recipes(layers=2, task="masked_lm", mask_value=-math.inf, rate=0.0)),
        training("accuracy", "Loss and every gradient, dropout included, are the reference's.", _training,
                 model_recipes(), MODELS,
                 larger=(ModelRecipe(1, B=3, S=131, D=64, F=200, V=515, mask="ragged", rate=0.1),)),
        training("repeatable", REPEATABLE, partial(repeat, own=False), model_recipes(task="pretraining")),
    ]  # fmt: skip


def compare(
    subject: Subject, run: Callable[[Any], Mapping[str, Host]], got: Mapping[str, Host], record: Record, **how: Any
) -> None:
    """Every row of everything; raises `Failure` for the worst. how: `tolerances`' ``samples``, and ``times`` as much as
    these may be off."""
    worst: Worst | None = None
    times = how.pop("times", 1.0)
    wanted = [Expected(want.name, want.y, times * want.bound) for want in tolerances(run, subject.arithmetic, **how)]
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


def _fused_large(subject: Subject, example: Repeated, record: Record) -> None:
    x, local, options = _fused_inputs(subject, example.recipe)
    (want,) = tolerances(lambda b: {"y": composed_layer(b, x, local, options)}, subject.arithmetic, samples=FEW)
    every, mask = example.tiled(x), example.tiled(options["mask"])
    call, params = subject.op("encoder_layer"), on(subject.backend, local)
    device = subject.device(every)
    y = call(device, params, **{**options, "mask": mask})
    call(subject.device(every[::-1]), params, **{**options, "mask": mask[::-1]})
    if not np.array_equal(subject.host(device), every):
        raise Failure("encoder_layer wrote into x")
    due = Expected("y", example.tiled(want.y), example.tiled(want.bound))
    row_failure(subject.host(y, every.shape, "y"), due, record)


def _composed(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    judge_ops(subject, layer(recipe, subject.dtype, fused=False), record)


def _fused(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    run = layer(recipe, subject.dtype, fused=True)
    compare(subject, run, run(subject.backend), record)


def layer_parameters(recipe: ModelRecipe, dtype: str) -> dict[str, Host]:
    """The first encoder layer's parameters by local name."""
    prefix = "bert.encoder.layer.0."
    parameters = recipe.parameters(dtype)
    return {name.removeprefix(prefix): x for name, x in parameters.items() if name.startswith(prefix)}


def _fused_inputs(subject: Subject, recipe: ModelRecipe) -> tuple[Host, dict[str, Host], dict[str, Any]]:
    local = layer_parameters(recipe, subject.dtype)
    x = rounded(recipe.spread * recipe.rng(6).standard_normal((recipe.B, recipe.S, recipe.A * recipe.D)), subject.dtype)
    c = recipe.choices
    options = {
        "mask": recipe.batch().attention_mask, "heads": c.heads, "mask_value": c.mask_value, "activation": c.activation,
        "eps": c.layer_norm_eps,
    }  # fmt: skip
    return x, local, options


def check_calls(
    subject: Subject,
    op: str,
    x: Host,
    local: Mapping[str, Host],
    options: Mapping[str, Any],
    host: str,
    same: Mapping[str, Host],
) -> None:
    """A layer's conduct: results that stay, inputs that stay, the same bits again, and an error that is the spec's.

    host: the option that is a host array. same: what else it may be given as, which must make no difference.
    """
    call, before = subject.op(op), options[host].copy()
    device, params = subject.device(x.copy()), {name: subject.device(w.copy()) for name, w in local.items()}
    y = call(device, params, **options)
    kept = np.array(subject.host(y, x.shape, "y"))
    call(subject.device(rounded(x + 1, subject.dtype)), params, **options)
    if not same_bits(np.array(subject.host(y)), kept):
        raise Failure("a later call changed an earlier result")
    if not same_bits(np.array(subject.host(device)).astype(float), x):
        raise Failure(f"{op} wrote into x")
    for name, w in local.items():
        if not same_bits(np.array(subject.host(params[name])).astype(float), w):
            raise Failure(f"{op} wrote into {name}")
    if not np.array_equal(options[host], before):
        raise Failure(f"{op} wrote into the {host}")
    try:
        call(device, params, **{**options, "activation": "unheard of"})
    except ValueError:
        pass
    else:
        raise Failure("an unknown activation was accepted; the spec raises ValueError")
    if op in subject.arithmetic.nondeterministic:
        return
    for number in range(2, 6):
        if not same_bits(np.array(subject.host(call(device, params, **options))), kept):
            raise Failure(f"call {number} with the same arguments gives other bits")
    for what, other in same.items():
        if not same_bits(np.array(subject.host(call(device, params, **{**options, host: other}))), kept):
            raise Failure(f"the {host} {what} gives other bits")


def _fused_calls(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    x, local, options = _fused_inputs(subject, recipe)
    mask = options["mask"]
    same = {f"of {np.dtype(kind)}": mask.astype(kind) for kind in (np.bool_, np.int32, np.float32)}
    same |= {f"that says yes by {what}": other for what, other in masks(mask).items()}
    same |= {"by columns": np.asfortranarray(mask), "of every other entry": np.repeat(mask, 2, axis=1)[:, ::2]}
    check_calls(subject, "encoder_layer", x, local, options, "mask", same)
    params = {name: subject.device(w) for name, w in local.items()}
    nothing = subject.op("encoder_layer")(subject.device(x[:0]), params, **{**options, "mask": mask[:0]})
    subject.host(nothing, (0, *x.shape[1:]), "y of an empty batch")


def changing(recipe: ModelRecipe) -> tuple[ModelRecipe, ...]:
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
    for one in changing(recipe):
        _fused(subject, one, record)


def each_weight(
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
    each_weight(subject, local, others, lambda p: {"y": np.array(subject.host(call(device, p, **options)))})


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
    judge_ops(subject, inference(recipe, subject.dtype), record)


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
    changed = inference(With(recipe, batch=lambda: other), subject.dtype)  # type: ignore[arg-type]
    a, b = run(subject.backend), changed(subject.backend)
    last = f"hidden_states[{recipe.layers}]"
    if not same_bits(a[last][visible], b[last][visible]):
        raise Failure("with other tokens in padding positions, the hidden states of the rest change")


class With:
    """A recipe with something else in it."""

    def __init__(self, recipe: ModelRecipe, **members: Any) -> None:
        self._recipe = recipe
        self.__dict__.update(members)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._recipe, name)


def _training(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    judge_ops(subject, training(possible(recipe), subject.dtype), record)


def possible(recipe: ModelRecipe) -> ModelRecipe:
    """The recipe with words enough for a vocabulary."""
    return replace(recipe, V=max(recipe.V, 2))


def repeat(subject: Subject, recipe: ModelRecipe, record: Record, *, own: bool) -> None:
    """The same step gives the same bits, and rows of unused ids no gradient; own: by the backend's own objective."""
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
