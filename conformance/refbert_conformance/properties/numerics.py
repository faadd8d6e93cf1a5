"""Levels "forward" and "backward": every op and every gradient within its derived bound of the reference."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from refbert_conformance.cases.corpus import corpus
from refbert_conformance.cases.operations import OpCase, Recipe, recipes
from refbert_conformance.engine.measure import Record
from refbert_conformance.engine.property import Property, about
from refbert_conformance.engine.subject import Subject, backward, forward
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_conformance.tolerances.bounds import ARRAYS, Expected, expected


def properties() -> list[Property]:
    """Accuracy of every op and of every pullback."""
    return [
        about(level, op)("accuracy", f"{what} is within its rounding bound of refbert.ops.", partial(_accuracy, level),
                         recipes(op), corpus(op))
        for op in ARRAYS
        for level, what in (("forward", "The result"), ("backward", "Every cotangent"))
    ]  # fmt: skip


def due(level: str, case: OpCase, arithmetic: Arithmetic) -> list[Expected]:
    """What a level judges, as it should be: "forward" the result, "backward" the cotangents."""
    back = level == "backward"
    want = expected(case.op, case.arrays, case.options, arithmetic, case.dy if back else None)
    return want[1:] if back else want


def judged(level: str, subject: Subject, case: OpCase) -> Sequence[Any]:
    """What a level judges, as the backend has it."""
    if level == "forward":
        return (forward(subject, case.op, subject.devices(case.arrays), case.options)[0],)
    assert case.dy is not None
    *arrays, dy = subject.devices((*case.arrays, case.dy))
    return backward(forward(subject, case.op, arrays, case.options)[1], dy, len(arrays))


def _accuracy(level: str, subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    case = example.build(subject.dtype)
    subject.judge(record, judged(level, subject, case), due(level, case, subject.arithmetic))
