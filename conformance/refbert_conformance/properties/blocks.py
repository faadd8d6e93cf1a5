"""Levels "blocks" and "models": the spec on the backend against the spec on the reference.

Tolerances come from `noise`. What is exact (padding, repetition, unused rows) is compared bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from refbert.backend import REQUIRED, Host
from refbert.text.batching import Batch
from refbert_conformance.cases.model_cases import (
    ACTIVATIONS,
    ModelRecipe,
    inference,
    layer,
    model_recipes,
    on,
    training,
)
from refbert_conformance.cases.model_corpus import MODELS
from refbert_conformance.engine.divergence import judge_ops
from refbert_conformance.engine.measure import Failure, Record, Worst, row_described, row_worst, same_bits
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.subject import Subject
from refbert_conformance.tolerances.bounds import Expected
from refbert_conformance.tolerances.noise import T, distances, due, orders

SPEC = REQUIRED  # what the spec composes everything of
REPEATABLE = "The same step gives the same bits; rows of unused ids get gradient exactly 0."


def properties() -> list[Property]:
    """A layer, and whole models."""
    inference, training = (partial(Property, "models", way, needs=SPEC, cost=2.5) for way in ("inference", "training"))
    return [
        Property("blocks", "encoder_layer", "composed",
                 "A layer of the backend's ops and its gradients: the reference's.", _composed,
                 model_recipes(layers=1, task="masked_lm"), needs=SPEC, cost=2.5,
                 larger=(ModelRecipe(21, "masked_lm", 1, B=2, S=131, D=64, F=300, mask="holes", rate=0.1),)),
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
    """Every row of everything; raises `Failure` for the worst. how: `distances`' ``samples``, and ``times`` as much as
    these may be off."""
    times = how.pop("times", 1.0)
    reference, squares = distances(run, subject.arithmetic, **how)
    wanted = [Expected(want.name, want.y, times * want.bound) for want in due(reference, squares)]
    if set(got) != {one.name for one in wanted}:
        names = {one.name for one in wanted}
        raise Failure(f"missing: {sorted(names - set(got))}, not asked for: {sorted(set(got) - names)}")
    worst = _worst(got, wanted, record)
    if worst is not None and worst.rho > 1:  # rare, so that the orders are not measured for nothing
        k = orders(run, subject.arithmetic, squares, **how)
        worst = _worst(got, [Expected(w.name, w.y, w.bound * T ** (k[w.name] - 1)) for w in wanted])
    if worst is not None:
        record.rho = max(record.rho or 0.0, worst.rho)
        if worst.rho > 1:
            raise Failure(row_described(worst), worst)


def _worst(got: Mapping[str, Host], wanted: Iterable[Expected], record: Record | None = None) -> Worst | None:
    found = [row_worst(np.asarray(got[want.name]), want, record) for want in wanted]
    return max((one for one in found if one is not None), key=lambda one: one.rho, default=None)


def _composed(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    judge_ops(subject, layer(recipe, subject.dtype, fused=False), record)


def must_stay(subject: Subject, arrays: Iterable[tuple[str, Any, Host]], said: str) -> None:
    """Raise `Failure`, "{}" in it being the name, unless each (name, array of the backend, its bits) is so.

    Bits in float64 are compared with what comes back in another dtype as numbers.
    """
    expected = list(arrays)
    for (name, _, bits), found in zip(expected, subject.hosts(x for _, x, _ in expected), strict=True):
        if not same_bits(found.astype(bits.dtype) if bits.dtype == np.float64 else found, bits):
            raise Failure(said.format(name))


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
