"""Threads and instances: a call gives the bits that it gives alone, wherever it runs and whatever runs beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.wire.pauses import threaded
from refbert_conformance.cases.corpus import corpus
from refbert_conformance.cases.model_cases import ModelRecipe, layer, on
from refbert_conformance.cases.operations import OpCase, another
from refbert_conformance.engine.measure import Failure, Record, Unsupported, same_bits
from refbert_conformance.engine.property import Property, about
from refbert_conformance.engine.subject import Subject, backward_if_any, forward
from refbert_conformance.properties import layers
from refbert_conformance.tolerances.bounds import ARRAYS, OUTPUTS

_ROUNDS = 4  # while another thread is at work
_PAUSES = {"op": 80, "block": 16}  # in all rounds together
_JUDGED = 50  # of the other thread's results
# Large enough for work to overlap, and for NumPy to let other threads in.
_SIZES = {"B": 2, "S": 20, "H": 48, "I": 48, "O": 48, "V": 48, "C": 48, "A": 4, "D": 12}
_LAYER = ModelRecipe(1, "masked_lm", 1, B=3, S=10, A=4, D=8, F=64)
_STEP = ModelRecipe(0, "pretraining", 1, B=3, S=6, A=2, D=4, F=16, V=30, rate=0.1)

# The first half of a call, on a backend: its results so far go into the second half, which gives them all by name.
Begin = Callable[[Any], Callable[[], dict[str, Host]]]


def properties() -> list[Property]:
    """Of every op, and of the blocks that are a backend's own."""
    found = []
    for op in (*ARRAYS, *_BLOCKS):
        of = about("contract", op, cost=2.0)
        found += [
            of("threads", "In any thread, and in two at once, it gives the bits that it gives alone.",
               partial(_threads, op)),
            of("instances", "A second instance is another: it changes nothing of the first one's.",
               partial(_instances, op)),
        ]  # fmt: skip
    return found


def _threads(op: str, subject: Subject, example: Any, record: Record) -> None:
    one, other = _calls(op, subject)
    backend = subject.backend
    want, want_other = one(backend)(), other(backend)()
    pauses = _PAUSES["block" if op in _BLOCKS else "op"]
    with threaded(backend) as pausing:
        _same(op, want, _elsewhere(lambda: one(backend)()), "in another thread than the one that made the backend")
        _same(op, want, _elsewhere(one(backend)), "begun here, with its pullback called in another thread")
        _same(op, want, _elsewhere(lambda: one(backend))(), "begun in another thread, with its pullback called here")
        found_by_both = _beside(pausing, pauses, lambda: one(backend)(), lambda: other(backend)())
    for right, found in zip((want, want_other), found_by_both, strict=True):
        for each in found:
            _same(op, right, each, "while another thread calls it too")


def _instances(op: str, subject: Subject, example: Any, record: Record) -> None:
    one, other = _calls(op, subject)
    want = one(subject.backend)()
    begun = one(subject.backend)
    second = subject.make()
    _same(op, want, one(second)(), "by a second instance")
    other(second)()
    _same(op, want, begun(), "begun before a second instance was made and used")
    _same(op, want, one(subject.backend)(), "beside a second instance")
    del second
    _same(op, want, one(subject.backend)(), "after a second instance is gone")


def _same(op: str, want: dict[str, Host], found: dict[str, Host], when: str) -> None:
    for name, x in want.items():
        if not same_bits(found[name], x):
            raise Failure(f"{when}, {op} gives another {name}")


def _calls(op: str, subject: Subject) -> tuple[Begin, Begin]:
    """Two calls of the same shapes with nothing else in common."""
    if op in subject.arithmetic.nondeterministic:
        raise Unsupported(f"the backend declares {op} nondeterministic")
    if op in _BLOCKS:
        make, recipe = _BLOCKS[op]
        return make(recipe, subject), make(replace(recipe, seed=recipe.seed + 4), subject)
    plain = corpus(op)[1]
    first = replace(plain, sizes={letter: _SIZES.get(letter, n) for letter, n in plain.sizes.items()})
    return _op(first.build(subject.dtype), subject), _op(another(first).build(subject.dtype), subject)


def _op(case: OpCase, subject: Subject) -> Begin:
    def begin(backend: Any) -> Callable[[], dict[str, Host]]:
        arrays = [backend.asarray(x) for x in case.arrays]
        y, pullback = forward(subject, case.op, arrays, case.options, backend)

        def finish() -> dict[str, Host]:
            cotangents = backward_if_any(subject, pullback, backend.asarray(case.dy), len(arrays))
            named = zip(OUTPUTS[case.op], (y, *cotangents), strict=False)
            return _copied({name: backend.to_numpy(x) for name, x in named})

        return finish

    return begin


def _layer(recipe: ModelRecipe, subject: Subject) -> Begin:
    run = layer(recipe, subject.dtype, fused=True)
    return lambda backend: lambda: _copied(run(backend))


def _packed(recipe: ModelRecipe, subject: Subject) -> Begin:
    run = layers.packed_run(recipe, subject.dtype, layers.lengths_of(_LAYER))
    return lambda backend: lambda: _copied(run(backend))


def _objective(recipe: ModelRecipe, subject: Subject) -> Begin:
    parameters, batch, labels = recipe.parameters(subject.dtype), recipe.batch(), recipe.labels()

    def begin(backend: Any) -> Callable[[], dict[str, Host]]:
        p = on(backend, parameters)
        loss, terms, pullback = backend.objective(p, batch, labels, recipe.heads, recipe.choices, draws=recipe.draws)

        def finish() -> dict[str, Host]:
            gradients = pullback(backend.asarray(np.ones(())))
            return _copied({name: backend.to_numpy(x) for name, x in {"loss": loss, **terms, **gradients}.items()})

        return finish

    return begin


_BLOCKS: dict[str, tuple[Callable[[ModelRecipe, Subject], Begin], ModelRecipe]] = {
    "encoder_layer": (_layer, _LAYER),
    "packed_encoder_layer": (_packed, _LAYER),
    "objective": (_objective, _STEP),
}


def _copied(arrays: dict[str, Host]) -> dict[str, Host]:
    return {name: np.array(x) for name, x in arrays.items()}


def _elsewhere(work: Callable[[], Any]) -> Any:
    """What the work gives in a thread of its own."""
    (found,) = _run([work])
    return found


def _beside(
    pausing: Any, pauses: int, work: Callable[[], Any], other: Callable[[], Any]
) -> tuple[list[Any], list[Any]]:  # fmt: skip
    """What the work gives in each round, and what the other gives meanwhile, over and over, in a thread of its own."""
    over = threading.Event()

    def rounds() -> list[Any]:
        try:
            found = []
            for number in range(-1, _ROUNDS):  # in the first its lines are counted
                pausing.begin(pauses, _ROUNDS, number)
                found.append(work())
            return found
        finally:
            over.set()

    def meanwhile() -> list[Any]:
        found = []
        while not over.is_set():
            found.append(other())
            pausing.got_on()
        return found[:: max(1, len(found) // _JUDGED)]

    first, second = _run([rounds, meanwhile])
    return first, second


def _run(works: list[Callable[[], Any]]) -> list[Any]:
    """Each in a thread of its own; raises the first error."""
    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(work) for work in works]]
