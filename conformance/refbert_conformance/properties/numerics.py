"""Levels "forward" and "backward": every op and every gradient within its derived bound of the reference."""

from __future__ import annotations

from refbert_conformance.cases.corpus import corpus
from refbert_conformance.cases.operations import OpCase, Recipe, recipes
from refbert_conformance.engine.measure import Record
from refbert_conformance.engine.property import Property, about
from refbert_conformance.engine.subject import Subject, backward, forward
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_conformance.tolerances.bounds import ARRAYS, Expected, expected


def properties() -> list[Property]:
    """Accuracy of every op and of every pullback."""
    found = []
    for op in ARRAYS:
        for level, what, check in (("forward", "The result", _forward), ("backward", "Every cotangent", _backward)):
            said = f"{what} is within its rounding bound of refbert.ops."
            found.append(about(level, op)("accuracy", said, check, recipes(op), corpus(op)))
    return found


def due(level: str, case: OpCase, arithmetic: Arithmetic) -> list[Expected]:
    """What a level judges, as it should be: "forward" the result, "backward" the cotangents."""
    back = level == "backward"
    want = expected(case.op, case.arrays, case.options, arithmetic, case.dy if back else None)
    return want[1:] if back else want


def _forward(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    case = example.build(subject.dtype)
    y, _ = forward(subject, case.op, [subject.device(a) for a in case.arrays], case.options)
    (want,) = due("forward", case, subject.arithmetic)
    record.compare(subject.host(y, want.y.shape, "y"), want)


def _backward(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    case = example.build(subject.dtype)
    assert case.dy is not None
    _, pullback = forward(subject, case.op, [subject.device(a) for a in case.arrays], case.options)
    cotangents = backward(pullback, subject.device(case.dy), len(case.arrays))
    for got, one in zip(cotangents, due("backward", case, subject.arithmetic), strict=True):
        record.compare(subject.host(got, one.y.shape, one.name), one)
