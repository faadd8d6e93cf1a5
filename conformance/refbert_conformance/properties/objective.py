"""Level "models": the backend's own objective, which is a whole model, its loss and its gradients.

It is held to the spec on the reference, in every call and for every argument, with the tolerances of `blocks`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from refbert.backend import Host
from refbert.text.batching import Batch
from refbert_conformance.cases.model_cases import OFF, ModelRecipe, Repeated, large_layers, model_recipes, on, training
from refbert_conformance.cases.model_corpus import CHANGING, MODELS
from refbert_conformance.engine.measure import Failure, Record, same_bits
from refbert_conformance.engine.property import FIRST, Property, first_call
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.blocks import (
    REPEATABLE,
    SPEC,
    With,
    changing,
    compare,
    each_weight,
    must_stay,
    possible,
    repeat,
)
from refbert_conformance.properties.contract.common import must_refuse
from refbert_conformance.tolerances.noise import FEW


def properties() -> list[Property]:
    """Its numbers, its calls, its arguments."""
    of = partial(Property, "models", "objective", needs=(*SPEC, "objective"))
    drawn = partial(of, draw=model_recipes())
    return [
        drawn("accuracy", "The backend's own model and its gradients are the reference's.", _objective,
              corpus=(*MODELS, *_EDGES), larger=_OWN, cost=2.5),
        of("first call", FIRST, first_call(_objective), corpus=MODELS[:1]),
        of("real sizes", "So they are at the sizes of models.", _large, cost=30,
           draw=large_layers(rate=0.0, mask_value=-math.inf, V=st.integers(3, 600)),
           corpus=_LARGE[:1], larger=_LARGE[1:], largest=_LARGEST),
        drawn("repeatable", REPEATABLE, partial(repeat, own=True), cost=2.5),
        drawn("options", "Each option counts in every call, whatever was asked before.", _own_options,
              corpus=CHANGING[:1], larger=CHANGING[1:], cost=60),
        drawn("calls", "A call changes no weight, batch or label, and no earlier gradient.", _own_calls, cost=2.5),
        drawn("each argument", "Each weight, id and label counts where all others are the same.", _own_each,
              corpus=MODELS[1:2], larger=MODELS[2:4], cost=60),
    ]  # fmt: skip


_GELUS = ("gelu_erf", "gelu_tanh")
# No sequence at all, of tasks that need none to know their classes; words to be predicted where the mask hides them and
# nowhere else; layers that run again for the backward, where a loss reads all rows and where it reads some.
_EDGES = (
    *(ModelRecipe(0, task, 1, B=0) for task in ("pretraining", "answers", "tags", "classes", "numbers")),
    *(ModelRecipe(seed, "masked_lm", 2, B=2, S=3, mask="one") for seed in (2, 25)),
    *(ModelRecipe(seed, task, 3, B=3, rate=rate, checkpointing=True)
      for seed, (task, rate) in enumerate((task, rate) for task in ("masked_lm", "tags") for rate in (0.0, 0.3))),
    *(ModelRecipe(4, task, 2, checkpointing=True) for task in ("pretraining", "answers")),
)  # fmt: skip
# What a whole model of the backend's own is tried on besides. Each rate on its own, an evaluation, later steps, heads
# in the other order or without labels; no label at all; several questions; answers before and beyond the window.
_OWN = (
    *(ModelRecipe(2, "classes", 1, rate=0.4, off=off) for off in OFF),
    ModelRecipe(3, "pretraining", 1, rate=0.4, off="attention", step=1),
    ModelRecipe(3, "tags", 1, rate=0.4, off="hidden", step=12),
    *(ModelRecipe(4, task, 1, B=3) for task in ("reversed", "words only", "order only")),
    ModelRecipe(7, "masked_lm", 1),
    *(ModelRecipe(5, task, 1, B=3, rate=0.3, part=True) for task in ("pretraining", "answers", "classes")),
    *(ModelRecipe(seed, "choices", 1, B=6) for seed in (0, 1, 2)),
    *(ModelRecipe(seed, "answers", 1, B=8, mask_value=value) for seed in (0, 1) for value in (-math.inf, -10000.0)),
    *(ModelRecipe(seed, task, 1, B=8) for seed in (0, 1) for task in ("order only", "classes", "tags")),
    # Weights of a size at which one GELU for the other shows.
    *(ModelRecipe(20, "pretraining", 1, S=7, D=16, F=40, activation=name, scale=0.2) for name in _GELUS),
    # Names of layers with two digits, and a site of dropout for each.
    ModelRecipe(10, "pretraining", 13, B=1, S=2, A=1, D=3, F=2, V=3, rate=0.3),
    # More tokens, predictions, words and features than one block.
    ModelRecipe(12, "masked_lm", 1, B=2, S=70, A=1, D=64, F=72, V=150, mask="all", scale=0.1),
)  # fmt: skip


# With dropout, a batch as it is; without, a small one in copies, whose mean losses and gradients are the same.
_LARGE = (
    ModelRecipe(0, "pretraining", 1, B=2, S=71, D=64, F=96, V=150, rate=0.1, scale=0.1),
    ModelRecipe(1, "pretraining", 1, B=3, S=131, D=64, F=300, V=515, rate=0.1, scale=0.05, mask="holes"),
    ModelRecipe(4, "masked_lm", 1, B=1, S=260, A=1, D=64, F=130, V=70, rate=0.3, scale=0.1),
    ModelRecipe(5, "answers", 1, B=2, S=200, A=2, D=32, F=100, V=50, rate=0.1, scale=0.1),
    Repeated(ModelRecipe(8, "pretraining", 1, B=1, S=17, A=12, D=64, F=3072, V=300, scale=0.04), 39),
    Repeated(ModelRecipe(9, "masked_lm", 1, B=1, S=12, A=2, D=32, F=64, V=30_522, scale=0.1), 3),
    Repeated(ModelRecipe(12, "tags", 1, B=3, S=43, A=4, D=32, F=256, V=300, scale=0.1), 9),
    Repeated(ModelRecipe(14, "classes", 2, B=2, S=9, A=2, D=16, F=64, V=300, scale=0.2), 70),
)
_LARGEST = (
    ModelRecipe(0, "pretraining", 1, B=2, S=131, A=12, D=64, F=3072, V=1000, rate=0.1, scale=0.04),
    ModelRecipe(1, "pretraining", 2, B=3, S=259, A=4, D=64, F=1024, V=2000, rate=0.1, scale=0.05),
    ModelRecipe(4, "masked_lm", 1, B=2, S=512, A=2, D=64, F=256, V=515, rate=0.1, scale=0.05),
    Repeated(ModelRecipe(5, "pretraining", 1, B=1, S=33, A=16, D=64, F=4096, V=300, scale=0.03), 5),
    Repeated(ModelRecipe(8, "pretraining", 1, B=2, S=64, A=4, D=64, F=1024, V=30_522, scale=0.05), 4),
)


def _large(subject: Subject, example: ModelRecipe | Repeated, record: Record) -> None:
    """In copies, sums have so many times more terms for means of the same size: √copies times as much rounding."""
    recipe = possible(example.recipe if isinstance(example, Repeated) else example)
    due, big, copies = training(recipe, subject.dtype), training(recipe, subject.dtype, own=True), 1
    if isinstance(example, Repeated):
        copies, batch = example.copies, recipe.batch()
        every = Batch(*(example.tiled(x) for x in (batch.input_ids, batch.token_type_ids, batch.attention_mask)))
        labels = {name: example.tiled(x) for name, x in recipe.labels().items()}
        tiled = With(recipe, batch=lambda: every, labels=lambda: labels)
        big = training(tiled, subject.dtype, own=True)  # type: ignore[arg-type]
    compare(subject, due, big(subject.backend), record, samples=FEW, times=math.sqrt(copies))


def _objective(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    recipe = possible(recipe)
    compare(
        subject, training(recipe, subject.dtype), training(recipe, subject.dtype, own=True)(subject.backend), record
    )


def _own_options(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    dropping = replace(recipe, rate=0.3)
    others = (dropping, replace(dropping, step=1), replace(dropping, seed=recipe.seed + 4), replace(recipe, rate=0.1))
    parts = (replace(dropping, part=True), replace(recipe, part=True))
    again = (replace(recipe, checkpointing=True), replace(dropping, checkpointing=True))
    for one in (*changing(recipe), *others, *parts, *again, replace(dropping, off="draws")):
        _objective(subject, one, record)


def _own_calls(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    recipe = possible(recipe)
    call = subject.op("objective")

    def step(recipe: ModelRecipe) -> tuple[Any, ...]:
        weights, batch, labels = recipe.parameters(subject.dtype), recipe.batch(), recipe.labels()
        p = on(subject.backend, {name: w.copy() for name, w in weights.items()})
        loss, _, pullback = call(p, batch, labels, recipe.heads, recipe.choices, draws=recipe.draws)
        results = {"loss": loss, **pullback(subject.device(np.ones(())))}
        return p, weights, batch, labels, results, pullback

    p, weights, batch, labels, results, pullback = step(recipe)
    must_stay(subject, ((name, p[name], w) for name, w in weights.items()), "objective wrote into {}")
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
    subject.again(*hosts.values())
    for name, was in kept.items():
        if not same_bits(np.array(subject.host(results[name])), was) or not same_bits(np.array(hosts[name]), was):
            raise Failure(f"a later step changed the earlier {name}")
    if not subject.arithmetic.nondeterministic:
        again = pullback(subject.device(np.ones(()))).items()
        said = "called again, after another step, the pullback gives another {}"
        must_stay(subject, ((name, x, kept[name]) for name, x in again), said)
        arguments = (recipe.heads, recipe.choices)
        narrow = {name: x.astype(np.int32) if x.dtype.kind == "i" else x for name, x in labels.items()}
        spread = {name: np.repeat(x, 2, axis=0)[::2] for name, x in labels.items()}
        for kind, other in (("32 bits", narrow), ("another layout", spread)):
            loss, _, _ = call(p, batch, other, *arguments, draws=recipe.draws)
            if not same_bits(np.array(subject.host(loss)), kept["loss"]):
                raise Failure(f"labels of {kind} give another loss")
    for what, error, ids, found in _refused(recipe):
        one = partial(call, p, ids, found, recipe.heads, recipe.choices, draws=recipe.draws)
        must_refuse(one, what, "the spec raises", error)


def _refused(recipe: ModelRecipe) -> Iterator[tuple[str, type[Exception], Batch, Mapping[str, Host]]]:
    """What the spec, or an op that it calls, raises an error for: what it is, the error, the batch, the labels."""
    batch, labels = recipe.batch(), recipe.labels()
    yield "no labelled head", ValueError, batch, {}
    limits = {"input_ids": recipe.V, "token_type_ids": recipe.config.type_vocab_size}
    for name, limit in limits.items():
        ids = getattr(batch, name).copy()
        ids[-1, -1] = limit
        yield f"{limit} among {name}", IndexError, replace(batch, **{name: ids}), labels
    if "masked_lm" in recipe.heads and "labels" in labels:
        yield "a label of V", IndexError, batch, labels | {"labels": np.full_like(labels["labels"], recipe.V)}


def _own_each(subject: Subject, recipe: ModelRecipe, record: Record) -> None:
    """Packed weights, compiled graphs and copies on a device are kept by some key: what is not in it must not count."""
    recipe = possible(recipe)
    other = replace(recipe, seed=recipe.seed + 8)  # alike but for the numbers
    batch, labels = recipe.batch(), recipe.labels()
    call = subject.op("objective")

    def step(p: dict[str, Any]) -> dict[str, Host]:
        loss, _, pullback = call(p, batch, labels, recipe.heads, recipe.choices, draws=recipe.draws)
        results = {"loss": loss, **pullback(subject.device(np.ones(())))}
        return dict(zip(results, map(np.array, subject.hosts(results.values())), strict=True))

    each_weight(subject, recipe.parameters(subject.dtype), other.parameters(subject.dtype), step)
    for one in _inputs_changed(recipe, other):
        run = training(one, subject.dtype, own=True)  # type: ignore[arg-type]
        compare(subject, training(one, subject.dtype), run(subject.backend), record)  # type: ignore[arg-type]


def _inputs_changed(recipe: ModelRecipe, other: ModelRecipe) -> list[With]:
    """The recipe as it is, and with one of its ids, types, mask, labels and draws after the other from elsewhere."""
    a, b, labels = recipe.batch(), other.batch(), recipe.labels()
    batches = [
        Batch(b.input_ids, a.token_type_ids, a.attention_mask),
        Batch(a.input_ids, b.token_type_ids, a.attention_mask),
        Batch(a.input_ids, a.token_type_ids, b.attention_mask),
    ]
    found = [With(recipe), *(With(recipe, batch=lambda one=one: one) for one in batches)]
    for name, array in other.labels().items():
        found.append(With(recipe, labels=lambda found=labels | {name: array}: found))
    if recipe.draws is not None:
        found.append(With(recipe, draws=other.draws))
    return found
