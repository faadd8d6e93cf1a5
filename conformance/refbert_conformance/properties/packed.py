"""Level "blocks": the backend's own layer over sequences end to end, against the spec's, one sequence at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.spec.packed import packed_layer
from refbert.spec.scope import Scope
from refbert_conformance.cases.inputs import rounded
from refbert_conformance.cases.model_cases import ACTIVATIONS, ModelRecipe, Repeated, large_layers, model_recipes, on
from refbert_conformance.cases.model_corpus import LARGEST_LAYERS
from refbert_conformance.engine.measure import Failure, Record, row_failure, same_bits
from refbert_conformance.engine.property import FIRST, Property, first_call
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.blocks import SPEC, check_calls, compare, each_weight, layer_parameters
from refbert_conformance.tolerances.bounds import Expected
from refbert_conformance.tolerances.noise import FEW, tolerances


def properties() -> list[Property]:
    """Accuracy, conduct, options, weights, and that sequences do not see each other."""
    of = partial(Property, "blocks", "packed_encoder_layer", needs=(*SPEC, "packed_encoder_layer"))
    drawn = partial(of, draw=model_recipes(layers=1, task="masked_lm", rate=0.0))
    return [
        drawn("accuracy", "Each sequence is what the spec makes of it by itself.", _accurate, corpus=_CASES, cost=2),
        of("first call", FIRST, first_call(_accurate), corpus=_CASES[:1]),
        of("real sizes", "So it is at the sizes of models, and for many sequences.", _large, cost=15,
           draw=large_layers(task="masked_lm", rate=0.0), corpus=_LARGE[:1], larger=_LARGE[1:], largest=LARGEST_LAYERS),
        drawn("calls", "It repeats bit for bit, and changes no input or old result.", _calls,
              corpus=_CASES[:2], cost=3),
        drawn("options", "Each option counts in every call, whatever was asked before.", _options,
              corpus=_CASES[:1], cost=20),
        drawn("neighbours", "What is in one sequence changes no bit of the others.", _neighbours, cost=3),
        drawn("each weight", "Each weight counts where the others are the same arrays.", _each_weight, cost=10),
    ]  # fmt: skip


_CASES = (
    ModelRecipe(0, "masked_lm", 1, B=3, S=5, A=2, D=3),
    ModelRecipe(1, "masked_lm", 1, B=5, S=9, A=12, D=4, F=40, activation="gelu_tanh", eps=1e-5),
    ModelRecipe(2, "masked_lm", 1, B=2, S=70, A=1, D=5, activation="relu"),
    ModelRecipe(3, "masked_lm", 1, B=1, S=1, A=1, D=8, F=1, activation="tanh"),
    ModelRecipe(4, "masked_lm", 1, B=7, S=2, A=3, D=2, activation="linear", eps=1e-2),
)


_LARGE = (
    Repeated(ModelRecipe(0, "masked_lm", 1, B=3, S=150, A=2, D=64, F=256, scale=0.05), 3),
    Repeated(ModelRecipe(1, "masked_lm", 1, B=1, S=29, A=12, D=64, F=3072, scale=0.04), 28),
    Repeated(ModelRecipe(4, "masked_lm", 1, B=3, S=9, A=4, D=16, F=128, activation="gelu_tanh"), 43),
    Repeated(ModelRecipe(5, "masked_lm", 1, B=2, S=515, A=1, D=64, F=128, scale=0.05), 2),
    Repeated(ModelRecipe(8, "masked_lm", 1, B=4, S=70, A=4, D=64, F=512, scale=0.05, eps=1e-5), 5),
    Repeated(ModelRecipe(9, "masked_lm", 1, B=1, S=13, A=16, D=64, F=4096, scale=0.03), 6),
)


def _large(subject: Subject, example: Repeated, record: Record) -> None:
    """The longest is as long as it may be; then come the copies, each sequence as it is by itself."""
    recipe = example.recipe
    lengths = np.append(recipe.S, lengths_of(recipe)[1:])
    x, local, options = _inputs(recipe, subject.dtype, lengths)
    wanted = tolerances(packed_run(recipe, subject.dtype, lengths), subject.arithmetic, samples=FEW)
    params = on(subject.backend, local)
    every, many = example.tiled(x), np.tile(lengths, example.copies)
    call, device = subject.op("packed_encoder_layer"), subject.device(every)
    y = call(device, params, lengths=many, **options)
    call(subject.device(every[::-1]), params, lengths=many[::-1].copy(), **options)
    if not np.array_equal(subject.host(device), every):
        raise Failure("packed_encoder_layer wrote into x")
    got = subject.host(y, every.shape, "y")
    for b, part in enumerate(np.split(got, np.cumsum(many)[:-1])):
        want = wanted[b % len(lengths)]
        row_failure(part, Expected(f"sequence {b}", want.y, want.bound), record)


def lengths_of(recipe: ModelRecipe, seed: int = 0) -> Host:
    """[B] from 1 to S, in no order."""
    return np.asarray(recipe.rng(20 + seed).integers(1, recipe.S + 1, max(1, recipe.B)))


def _inputs(recipe: ModelRecipe, dtype: str, lengths: Host) -> tuple[Host, dict[str, Host], dict[str, Any]]:
    """x [N, H], the layer's parameters, and the options but for the lengths."""
    local = layer_parameters(recipe, dtype)
    size = (1.0, 1.0, 1e-3, 30.0)[recipe.seed % 4]
    x = rounded(size * recipe.spread * recipe.rng(6).standard_normal((int(lengths.sum()), recipe.A * recipe.D)), dtype)
    c = recipe.choices
    return x, local, {"heads": c.heads, "activation": c.activation, "eps": c.layer_norm_eps}


def packed_run(recipe: ModelRecipe, dtype: str, lengths: Host) -> Callable[[Any], dict[str, Host]]:
    """The layer's result by sequence; composed of ops where the backend has none of its own, like the reference."""
    x, local, options = _inputs(recipe, dtype, lengths)
    ends = np.cumsum(lengths)[:-1]

    def run(backend: Any) -> dict[str, Host]:
        p = on(backend, local)
        own = getattr(backend, "packed_encoder_layer", None)
        if own is None:
            parts = packed_layer(backend, Scope(p, ""), x, lengths, recipe.choices)
            return {f"sequence {b}": backend.to_numpy(part) for b, part in enumerate(parts)}
        y = own(backend.asarray(x), p, lengths=lengths, **options)
        if tuple(y.shape) != x.shape:
            raise Failure(f"y has shape {tuple(y.shape)}, expected {x.shape}")
        return {f"sequence {b}": part for b, part in enumerate(np.split(backend.to_numpy(y), ends))}

    return run


def _accurate(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    run = packed_run(recipe, subject.dtype, lengths_of(recipe))
    compare(subject, run, run(subject.backend), record)


def _calls(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    lengths = lengths_of(recipe)
    x, local, options = _inputs(recipe, subject.dtype, lengths)
    same = {"of int32": lengths.astype(np.int32)}
    check_calls(subject, "packed_encoder_layer", x, local, {**options, "lengths": lengths}, "lengths", same)


def _options(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    others = (
        replace(recipe, seed=recipe.seed + 4),
        replace(recipe, eps=0.3),
        *(replace(recipe, activation=name) for name in ACTIVATIONS if name != recipe.activation),
        replace(recipe, A=recipe.D, D=recipe.A),
    )
    for one in (recipe, *others, recipe):
        _accurate(subject, one, record)
    lengths = lengths_of(recipe)
    for other in (lengths[::-1].copy(), np.array([lengths.sum()]), np.ones(int(lengths.sum()), np.int64)):
        run = packed_run(recipe, subject.dtype, other)  # as many rows, cut otherwise
        compare(subject, run, run(subject.backend), record)


def _neighbours(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    lengths = lengths_of(recipe)
    x, local, options = _inputs(recipe, subject.dtype, lengths)
    chosen = int(recipe.rng(21).integers(len(lengths)))
    start = int(lengths[:chosen].sum())
    mine = np.zeros(len(x), bool)
    mine[start : start + int(lengths[chosen])] = True
    other = np.where(mine[:, None], x, rounded(recipe.rng(7).standard_normal(x.shape) * 5, subject.dtype))
    call = subject.op("packed_encoder_layer")
    params = on(subject.backend, local)
    a, b = (
        np.array(subject.host(call(subject.device(one), params, lengths=lengths, **options)))[mine]
        for one in (x, other)
    )
    if not same_bits(a, b):
        raise Failure(f"with other content in the other sequences, sequence {chosen} of {len(lengths)} changes")


def _each_weight(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    lengths = lengths_of(recipe)
    x, local, options = _inputs(recipe, subject.dtype, lengths)
    _, others, _ = _inputs(replace(recipe, seed=recipe.seed + 8), subject.dtype, lengths)
    call, device = subject.op("packed_encoder_layer"), subject.device(x)
    each_weight(
        subject, local, others,
        lambda p: {"y": np.array(subject.host(call(device, p, lengths=lengths, **options)))},
    )  # fmt: skip
