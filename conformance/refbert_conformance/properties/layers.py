"""Level "blocks": the layers of a backend's own, `encoder_layer` and `packed_encoder_layer`, against the spec's.

The one is tried on padded batches, the other on sequences end to end; what holds of their calls holds of both alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.spec.packed import packed_layer
from refbert.spec.scope import Scope
from refbert_conformance.cases.inputs import masks, rounded
from refbert_conformance.cases.model_cases import (
    ACTIVATIONS,
    ModelRecipe,
    Repeated,
    large_layers,
    layer,
    model_recipes,
    on,
)
from refbert_conformance.cases.model_corpus import CHANGING, FUSED, LARGE_LAYERS, LARGE_PACKED, LARGEST_LAYERS, PACKED
from refbert_conformance.engine.divergence import composed_layer
from refbert_conformance.engine.measure import Failure, Record, row_failure, same_bits
from refbert_conformance.engine.property import FIRST, Check, Property, first_call
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.blocks import SPEC, changing, compare, each_weight, must_stay
from refbert_conformance.tolerances.bounds import Expected
from refbert_conformance.tolerances.noise import FEW, tolerances

CONDUCT = "It repeats bit for bit, and changes no input or old result."
OPTIONS = "Each option counts in every call, whatever was asked before."


def properties() -> list[Property]:
    """Accuracy, conduct, options, weights, and what must not be seen: of the one, then of the other."""
    fused, packed = (
        partial(Property, "blocks", op, needs=(*SPEC, op)) for op in ("encoder_layer", "packed_encoder_layer")
    )
    drawn: dict[str, Any] = {"draw": model_recipes(layers=1, task="masked_lm", rate=0.0)}
    large: dict[str, Any] = {"draw": large_layers(task="masked_lm", rate=0.0), "cost": 15, "largest": LARGEST_LAYERS}
    return [
        fused("fused", "The backend's own layer is the spec's composition of the reference.", _fused_accurate,
              corpus=FUSED, cost=2, **drawn),
        fused("fused: first call", FIRST, first_call(_fused_accurate), corpus=FUSED[:1]),
        fused("fused: real sizes", "So it is at the sizes of models.", _fused_large,
              corpus=LARGE_LAYERS[:2], larger=LARGE_LAYERS[2:], **large),
        fused("fused: calls", CONDUCT, _fused_calls, corpus=FUSED[:3], cost=3, **drawn),
        fused("fused: options", OPTIONS, _fused_options, corpus=CHANGING, cost=20, **drawn),
        fused("fused: unseen keys", "Padding's content changes no bit of what is not padding.", _fused_padding,
              cost=3, **drawn),
        fused("fused: each weight", "Each weight counts where all others are the same arrays.", _each(_fused),
              cost=10, **drawn),
        packed("accuracy", "Each sequence is what the spec makes of it by itself.", _packed_accurate,
               corpus=PACKED, cost=2, **drawn),
        packed("first call", FIRST, first_call(_packed_accurate), corpus=PACKED[:1]),
        packed("real sizes", "So it is at the sizes of models, and for many sequences.", _packed_large,
               corpus=LARGE_PACKED[:1], larger=LARGE_PACKED[1:], **large),
        packed("calls", CONDUCT, _packed_calls, corpus=PACKED[:2], cost=3, **drawn),
        packed("options", OPTIONS, _packed_options, corpus=PACKED[:1], cost=20, **drawn),
        packed("neighbours", "What is in one sequence changes no bit of the others.", _neighbours, cost=3, **drawn),
        packed("each weight", "Each weight counts where the others are the same arrays.", _each(_packed),
               cost=10, **drawn),
    ]  # fmt: skip


@dataclass(frozen=True)
class Call:
    """Of a layer: its input, its parameters by local name, its options. ``rows``: the option that is a host array."""

    op: str
    x: Host
    weights: dict[str, Host]
    options: Mapping[str, Any]
    rows: str

    def tiled(self, example: Repeated) -> Call:
        """In copies."""
        rows = example.tiled(self.options[self.rows])
        return replace(self, x=example.tiled(self.x), options={**self.options, self.rows: rows})

    def on(self, subject: Subject, x: Any, params: Mapping[str, Any] | None = None, **others: Any) -> Any:
        """What the backend makes of its array x; others: options that differ."""
        params = on(subject.backend, self.weights) if params is None else params
        return subject.op(self.op)(x, params, **{**self.options, **others})

    def got(self, subject: Subject, x: Any, params: Mapping[str, Any] | None = None, **others: Any) -> Host:
        """The same on the host, copied."""
        return np.array(subject.host(self.on(subject, x, params, **others)))


def _parameters(recipe: ModelRecipe, dtype: str) -> dict[str, Host]:
    prefix = "bert.encoder.layer.0."
    found = recipe.parameters(dtype)
    return {name.removeprefix(prefix): x for name, x in found.items() if name.startswith(prefix)}


def _input(recipe: ModelRecipe, dtype: str, size: float, *rows: int) -> Host:
    return rounded(size * recipe.spread * recipe.rng(6).standard_normal((*rows, recipe.A * recipe.D)), dtype)


def _fused(recipe: ModelRecipe, dtype: str) -> Call:
    options = {"mask": recipe.batch().attention_mask, **recipe.choices.layer_options()}
    x = _input(recipe, dtype, 1.0, recipe.B, recipe.S)
    return Call("encoder_layer", x, _parameters(recipe, dtype), options, "mask")


def _packed(recipe: ModelRecipe, dtype: str, lengths: Host | None = None) -> Call:
    lengths = lengths_of(recipe) if lengths is None else lengths
    c = recipe.choices
    options = {"lengths": lengths, "heads": c.heads, "activation": c.activation, "eps": c.layer_norm_eps}
    x = _input(recipe, dtype, (1.0, 1.0, 1e-3, 30.0)[recipe.seed % 4], int(lengths.sum()))
    return Call("packed_encoder_layer", x, _parameters(recipe, dtype), options, "lengths")


def lengths_of(recipe: ModelRecipe) -> Host:
    """[B] from 1 to S, in no order."""
    return np.asarray(recipe.rng(20).integers(1, recipe.S + 1, max(1, recipe.B)))


# What holds of both


def _check_calls(subject: Subject, call: Call, same: Mapping[str, Host]) -> None:
    """Results that stay, inputs that stay, the same bits again, and an error that is the spec's.

    same: what else the host array may be given as, which must make no difference.
    """
    rows = call.options[call.rows]
    before, device = rows.copy(), subject.device(call.x.copy())
    params = on(subject.backend, {name: w.copy() for name, w in call.weights.items()})
    y = call.on(subject, device, params)
    kept = np.array(subject.host(y, call.x.shape, "y"))
    call.on(subject, subject.device(rounded(call.x + 1, subject.dtype)), params)
    must_stay(subject, [("y", y, kept)], "a later call changed an earlier result")
    given = [("x", device, call.x), *((name, params[name], w) for name, w in call.weights.items())]
    must_stay(subject, given, call.op + " wrote into {}")
    if not np.array_equal(rows, before):
        raise Failure(f"{call.op} wrote into the {call.rows}")
    try:
        call.on(subject, device, params, activation="unheard of")
    except ValueError:
        pass
    else:
        raise Failure("an unknown activation was accepted; the spec raises ValueError")
    if call.op in subject.arithmetic.nondeterministic:
        return
    for number in range(2, 6):
        if not same_bits(call.got(subject, device, params), kept):
            raise Failure(f"call {number} with the same arguments gives other bits")
    for what, other in same.items():
        if not same_bits(call.got(subject, device, params, **{call.rows: other}), kept):
            raise Failure(f"the {call.rows} {what} gives other bits")


def _each(make: Callable[[ModelRecipe, str], Call]) -> Check:
    def check(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
        call, other = (make(replace(recipe, seed=recipe.seed + more), subject.dtype) for more in (0, 8))
        device = subject.device(call.x)
        each_weight(subject, call.weights, other.weights, lambda p: {"y": call.got(subject, device, p)})

    return check


def _unseen(subject: Subject, call: Call, recipe: ModelRecipe, seen: Host, judged: Host, what: str) -> None:
    """Other numbers in rows that are not ``seen`` change no bit of those that are ``judged``."""
    noise = rounded(recipe.rng(7).standard_normal(call.x.shape) * 5, subject.dtype)
    params = on(subject.backend, call.weights)
    xs = (call.x, np.where(seen[..., None], call.x, noise))
    a, b = (call.got(subject, subject.device(x), params)[judged] for x in xs)
    if not same_bits(a, b):
        raise Failure(f"with other content in {what}")


def _in_copies(subject: Subject, call: Call) -> Host:
    """The result; in between, a call on everything in reverse."""
    params, device = on(subject.backend, call.weights), subject.device(call.x)
    y = call.on(subject, device, params)
    call.on(subject, subject.device(call.x[::-1]), params, **{call.rows: call.options[call.rows][::-1].copy()})
    if not np.array_equal(subject.host(device), call.x):
        raise Failure(f"{call.op} wrote into x")
    return subject.host(y, call.x.shape, "y")


# encoder_layer


def _fused_accurate(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    run = layer(recipe, subject.dtype, fused=True)
    compare(subject, run, run(subject.backend), record)


def _fused_large(subject: Subject, example: Repeated, record: Record) -> None:
    call = _fused(example.recipe, subject.dtype)
    (want,) = tolerances(
        lambda b: {"y": composed_layer(b, call.x, call.weights, call.options)}, subject.arithmetic, samples=FEW
    )
    got = _in_copies(subject, call.tiled(example))
    row_failure(got, Expected("y", example.tiled(want.y), example.tiled(want.bound)), record)


def _fused_calls(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    call = _fused(recipe, subject.dtype)
    mask = call.options["mask"]
    same = {f"of {np.dtype(kind)}": mask.astype(kind) for kind in (np.bool_, np.int32, np.float32)}
    same |= {f"that says yes by {what}": other for what, other in masks(mask).items()}
    same |= {"by columns": np.asfortranarray(mask), "of every other entry": np.repeat(mask, 2, axis=1)[:, ::2]}
    _check_calls(subject, call, same)
    nothing = call.on(subject, subject.device(call.x[:0]), mask=mask[:0])
    subject.host(nothing, (0, *call.x.shape[1:]), "y of an empty batch")


def _fused_options(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    for one in changing(recipe):
        _fused_accurate(subject, one, record)


def _fused_padding(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    call = _fused(recipe, subject.dtype)
    visible = call.options["mask"].astype(bool)
    judged = visible & visible.any(axis=-1, keepdims=True)
    _unseen(subject, call, recipe, visible, judged, "padding positions, the rest changes")


# packed_encoder_layer


def packed_run(recipe: ModelRecipe, dtype: str, lengths: Host) -> Callable[[Any], dict[str, Host]]:
    """The layer's result by sequence; composed of ops where the backend has none of its own, like the reference."""
    call = _packed(recipe, dtype, lengths)

    def run(backend: Any) -> dict[str, Host]:
        p = on(backend, call.weights)
        own = getattr(backend, "packed_encoder_layer", None)
        if own is None:
            parts = [backend.to_numpy(y) for y in packed_layer(backend, Scope(p, ""), call.x, lengths, recipe.choices)]
        else:
            y = own(backend.asarray(call.x), p, **call.options)
            if tuple(y.shape) != call.x.shape:
                raise Failure(f"y has shape {tuple(y.shape)}, expected {call.x.shape}")
            parts = np.split(backend.to_numpy(y), np.cumsum(lengths)[:-1])
        return {f"sequence {b}": part for b, part in enumerate(parts)}

    return run


def _packed_accurate(subject: Subject, recipe: ModelRecipe, record: Record, lengths: Host | None = None) -> None:
    run = packed_run(recipe, subject.dtype, lengths_of(recipe) if lengths is None else lengths)
    compare(subject, run, run(subject.backend), record)


def _packed_large(subject: Subject, example: Repeated, record: Record) -> None:
    """The longest is as long as it may be; then come the copies, each sequence as it is by itself."""
    recipe = example.recipe
    lengths = np.append(recipe.S, lengths_of(recipe)[1:])
    wanted = tolerances(packed_run(recipe, subject.dtype, lengths), subject.arithmetic, samples=FEW)
    call = _packed(recipe, subject.dtype, lengths).tiled(example)
    got = _in_copies(subject, call)
    for b, part in enumerate(np.split(got, np.cumsum(call.options["lengths"])[:-1])):
        want = wanted[b % len(lengths)]
        row_failure(part, Expected(f"sequence {b}", want.y, want.bound), record)


def _packed_calls(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    call = _packed(recipe, subject.dtype)
    _check_calls(subject, call, {"of int32": call.options["lengths"].astype(np.int32)})


def _packed_options(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    others = (
        replace(recipe, seed=recipe.seed + 4),
        replace(recipe, eps=0.3),
        *(replace(recipe, activation=name) for name in ACTIVATIONS if name != recipe.activation),
        replace(recipe, A=recipe.D, D=recipe.A),
    )
    for one in (recipe, *others, recipe):
        _packed_accurate(subject, one, record)
    lengths = lengths_of(recipe)
    for other in (lengths[::-1].copy(), np.array([lengths.sum()]), np.ones(int(lengths.sum()), np.int64)):
        _packed_accurate(subject, recipe, record, other)  # as many rows, cut otherwise


def _neighbours(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    lengths = lengths_of(recipe)
    chosen = int(recipe.rng(21).integers(len(lengths)))
    mine = np.repeat(np.arange(len(lengths)), lengths) == chosen
    what = f"the other sequences, sequence {chosen} of {len(lengths)} changes"
    _unseen(subject, _packed(recipe, subject.dtype), recipe, mine, mine, what)
