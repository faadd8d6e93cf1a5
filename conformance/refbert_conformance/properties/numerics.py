"""Levels "forward" and "backward": every op and every gradient within its derived bound of the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert_conformance.cases.corpus import corpus
from refbert_conformance.cases.inputs import rounded
from refbert_conformance.cases.operations import OpCase, Recipe, recipes
from refbert_conformance.cases.updates import (
    ClipCase,
    UpdateCase,
    clip_cases,
    clip_corpus,
    large_clips,
    large_updates,
    update_cases,
    update_corpus,
)
from refbert_conformance.engine.measure import Failure, Record
from refbert_conformance.engine.property import Property, about, first_call
from refbert_conformance.engine.subject import Subject, backward, forward
from refbert_conformance.tolerances.bounds import ARRAYS, UPDATES, clipped, expected, updated


def properties() -> list[Property]:
    """Accuracy of every op, of every pullback, and of the optimizer updates."""
    found = []
    for op in ARRAYS:
        for level, what, check in (("forward", "The result", _forward), ("backward", "Every cotangent", _backward)):
            said = f"{what} is within its rounding bound of refbert.ops."
            found.append(about(level, op)("accuracy", said, check, recipes(op), corpus(op)))
    for rule in UPDATES:
        found.append(
            Property(
                "training", rule, "accuracy", "New parameters and moments are within their rounding bounds.",
                check=_update, draw=_update_draw(rule),
                corpus=_update_corpus(rule), larger=_large_updates(rule), needs=("asarray", "to_numpy", rule),
            )
        )  # fmt: skip
        found.append(
            Property(
                "training", rule, "first call", "The very first update of a new instance is as right as any.",
                check=first_call(_update), corpus=_one_update(rule),
                needs=("asarray", "to_numpy", rule),
            )
        )  # fmt: skip
    found.append(
        Property(
            "training", "clip_by_global_norm", "accuracy", "One scale for all gradients, from the norm of all of them.",
            check=_clip, draw=lambda s: clip_cases(s.dtype), corpus=lambda s: clip_corpus(s.dtype),
            larger=lambda s: large_clips(s.dtype),
            needs=("asarray", "to_numpy", "clip_by_global_norm"),
        )
    )  # fmt: skip
    return found


def _update_draw(rule: str) -> Callable[[Subject], Any]:
    return lambda subject: update_cases(rule, subject.dtype)


def _update_corpus(rule: str) -> Callable[[Subject], tuple[UpdateCase, ...]]:
    return lambda subject: update_corpus(rule, subject.dtype)


def _one_update(rule: str) -> Callable[[Subject], tuple[UpdateCase, ...]]:
    return lambda subject: update_corpus(rule, subject.dtype)[1:2]


def _large_updates(rule: str) -> Callable[[Subject], tuple[UpdateCase, ...]]:
    return lambda subject: large_updates(rule, subject.dtype)


def built(subject: Subject, example: Recipe | OpCase) -> OpCase:
    """The case itself, exact in the subject's dtype."""
    return example.build(subject.dtype) if isinstance(example, Recipe) else example


def _forward(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    case = built(subject, example)
    y, _ = forward(subject, case.op, [subject.device(a) for a in case.arrays], case.options)
    (want,) = expected(case.op, case.arrays, case.options, subject.arithmetic)
    record.compare(subject.host(y, want.y.shape, "y"), want)


def _backward(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    case = built(subject, example)
    assert case.dy is not None
    _, pullback = forward(subject, case.op, [subject.device(a) for a in case.arrays], case.options)
    cotangents = backward(pullback, subject.device(case.dy), len(case.arrays))
    want = expected(case.op, case.arrays, case.options, subject.arithmetic, case.dy)[1:]
    for got, one in zip(cotangents, want, strict=True):
        record.compare(subject.host(got, one.y.shape, one.name), one)


def _update(subject: Subject, case: UpdateCase, record: Record) -> None:
    results = subject.op(case.op)(*(subject.device(a) for a in case.arrays), **case.options)
    if not isinstance(results, tuple | list) or len(results) != 3:
        raise Failure(f"{case.op} must return (p, m, v)")
    for got, one in zip(results, updated(case.op, case.arrays, case.options, subject.arithmetic), strict=True):
        record.compare(subject.host(got, one.y.shape, one.name), one)


def _clip(subject: Subject, case: ClipCase, record: Record) -> None:
    gradients = {name: subject.device(g) for name, g in case.gradients.items()}
    result = subject.op("clip_by_global_norm")(gradients, **case.options)
    if not isinstance(result, tuple) or len(result) != 2:
        raise Failure("clip_by_global_norm must return (gradients, norm)")
    got, norm = result
    *want, want_norm = clipped(case.gradients, case.options, subject.arithmetic)
    if set(got) != set(case.gradients):
        raise Failure(f"gradients came back under other names: {sorted(got)}")
    for one in want:
        record.compare(subject.host(got[one.name], one.y.shape, one.name), one)
    wide: Host = np.asarray(float(norm), np.float64 if subject.dtype == "float64" else np.float32)
    record.compare(wide, want_norm)


__all__ = ["built", "properties", "rounded"]
