"""What must be refused: calls that make no sense, each with the error that refbert.ops raises."""

from __future__ import annotations

from functools import partial

import numpy as np

from refbert_conformance.cases.corpus import corpus
from refbert_conformance.cases.refused import REFUSED, Refused
from refbert_conformance.engine.measure import Failure, Record
from refbert_conformance.engine.property import Property, about
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.contract.common import must_refuse, run, same
from refbert_conformance.tolerances.bounds import ARRAYS


def properties() -> list[Property]:
    """Every op for which a call is listed."""
    said = "What makes no sense raises what refbert.ops raises, and harms nothing."
    return [
        about("contract", op)("errors", said, _errors, corpus=tuple(bad for bad in REFUSED if bad.op == op))
        for op in sorted({bad.op for bad in REFUSED})
    ]


def _errors(subject: Subject, bad: Refused, record: Record) -> None:
    arrays = [subject.device(np.ones(shape)) for shape in bad.shapes]
    good = corpus(bad.op)[1].build(subject.dtype) if bad.op in ARRAYS else None
    before = run(subject, good) if good is not None else None
    call = partial(subject.op(bad.op), *arrays, **bad.options)
    must_refuse(call, bad.why, "refbert.ops raises", bad.error)
    for x, shape in zip(arrays, bad.shapes, strict=True):
        if not np.array_equal(subject.host(x), np.ones(shape)):
            raise Failure(f"{bad.why} was refused, but an argument has changed")
    if good is not None and before is not None and bad.op not in subject.arithmetic.nondeterministic:
        same(good, before, run(subject, good), f"after {bad.why} was refused")
