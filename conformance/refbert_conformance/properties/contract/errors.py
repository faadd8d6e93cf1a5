"""What must be refused: calls that make no sense, each with the error that refbert.ops raises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from refbert_conformance.cases.corpus import corpus
from refbert_conformance.engine.measure import Failure, Record
from refbert_conformance.engine.property import Property, about
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.contract.common import run, same
from refbert_conformance.tolerances.bounds import ARRAYS


def properties() -> list[Property]:
    """Every op for which a call is listed."""
    said = "What makes no sense raises what refbert.ops raises, and harms nothing."
    return [
        about("contract", op)("errors", said, _errors, corpus=tuple(bad for bad in BAD if bad.op == op))
        for op in sorted({bad.op for bad in BAD})
    ]


@dataclass(frozen=True)
class Bad:
    """A call that makes no sense; shapes of its arrays, its options, and what refbert.ops raises."""

    op: str
    shapes: tuple[tuple[int, ...], ...]
    options: Mapping[str, Any]
    error: type[Exception]
    why: str


def _attention_options(**more: Any) -> dict[str, Any]:
    return {"mask": np.ones((1, 2), np.int64), "heads": 1, "mask_value": -math.inf} | more


_LABELS = {"denominator": 2.0}
BAD: tuple[Bad, ...] = (
    Bad("embedding", ((4, 3),), {"ids": np.array([0, 4])}, IndexError, "an id of V"),
    Bad("embedding", ((4, 3),), {"ids": np.array([[-1], [2]])}, IndexError, "a negative id"),
    Bad("embedding", ((4, 3),), {"ids": np.array([2**31 + 1])}, IndexError, "an id that 32 bits would wrap"),
    Bad("gather", ((2, 2, 3),), {"positions": np.array([4])}, IndexError, "a position of B·S"),
    Bad("gather", ((2, 2, 3),), {"positions": np.array([1, -1])}, IndexError, "a negative position"),
    Bad("cross_entropy", ((2, 3),), _LABELS | {"labels": np.array([0, 3])}, IndexError, "a label of C"),
    Bad("cross_entropy", ((2, 3),), _LABELS | {"labels": np.array([0, -1])}, IndexError, "a label of −1"),
    Bad("cross_entropy", ((2, 3),), _LABELS | {"labels": np.array([-101, 1])}, IndexError, "a label of −101"),
    Bad("gelu", ((2, 3),), {"form": "fast"}, ValueError, "an unknown form"),
    Bad("add", ((2, 3), (3,)), {}, ValueError, "shapes that would broadcast"),
    Bad("add", ((2, 3), (2, 1)), {}, ValueError, "shapes that would broadcast"),
    Bad("dropout", ((2, 3),), {"keep": np.ones(3, bool), "rate": 0.1}, ValueError, "a mask of another shape"),
    Bad("dropout", ((2, 3),), {"keep": np.ones((2, 3), bool), "rate": 1.0}, ValueError, "rate 1"),
    Bad("dropout", ((2, 3),), {"keep": np.ones((2, 3), bool), "rate": -0.1}, ValueError, "a negative rate"),
    Bad(
        "attention",
        ((2, 2, 4),) * 3,
        {
            "mask": np.ones((2, 2)),
            "heads": 2,
            "mask_value": -math.inf,
            "keep": np.ones((2, 1, 2, 2), bool),
            "rate": 0.1,
        },
        ValueError,
        "a keep mask for one head of two",
    ),
    Bad(
        "mean_squared_error", ((2, 3),), {"targets": np.ones(3), "denominator": 1.0}, ValueError, "targets to broadcast"
    ),
    Bad("attention", ((1, 2, 3),) * 3, _attention_options(heads=2), ValueError, "3 features for 2 heads"),
    Bad("attention_probabilities", ((1, 2, 3),) * 2, _attention_options(heads=2), ValueError, "3 features for 2 heads"),
    Bad("reshape", ((2, 3),), {"shape": (4, 2)}, (Exception), "more entries than there are"),
    Bad("reshape", ((2, 3),), {"shape": (2, 2)}, (Exception), "fewer entries than there are"),
    Bad("embedding", ((4, 3),), {"ids": np.array([1.5])}, (Exception), "an id that is no integer"),
    Bad("transpose", ((2, 3),), {"axes": (0, 0)}, (Exception), "axes that are no permutation"),
    Bad("linear", ((2, 3), (4, 5), (4,)), {}, (Exception), "an inner dimension that does not fit"),
)


def _errors(subject: Subject, bad: Bad, record: Record) -> None:
    arrays = [subject.device(np.ones(shape)) for shape in bad.shapes]
    good = corpus(bad.op)[1].build(subject.dtype) if bad.op in ARRAYS else None
    before = run(subject, good) if good is not None else None
    try:
        subject.op(bad.op)(*arrays, **bad.options)
    except bad.error:
        pass
    except Exception as error:  # noqa: BLE001
        raise Failure(f"{bad.why} raised {type(error).__name__}, refbert.ops raises {bad.error.__name__}") from None
    else:
        raise Failure(f"{bad.why} was accepted; refbert.ops raises {bad.error.__name__}")
    for x, shape in zip(arrays, bad.shapes, strict=True):
        if not np.array_equal(subject.host(x), np.ones(shape)):
            raise Failure(f"{bad.why} was refused, but an argument has changed")
    if good is not None and before is not None and bad.op not in subject.arithmetic.nondeterministic:
        same(good, before, run(subject, good), f"after {bad.why} was refused")
