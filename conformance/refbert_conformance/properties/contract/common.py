"""What the contract's files share: examples of an op, one call of it, equality bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.wire.remote import get_each, put_each
from refbert_conformance.cases.operations import OpCase
from refbert_conformance.engine.measure import Failure, alike, same_bits
from refbert_conformance.engine.subject import Subject, backward_if_any, forward
from refbert_conformance.tolerances.bounds import OUTPUTS

RING = 40


def run(subject: Subject, case: OpCase, backend: Any = None) -> tuple[Host, list[Host]]:
    """y and the cotangents on the host, copied."""
    backend = subject.backend if backend is None else backend
    *arrays, dy = put_each(backend, (*case.arrays, np.asarray(case.dy)))
    y, pullback = forward(subject, case.op, arrays, case.options, backend)
    return copied(backend, y, backward_if_any(subject, pullback, dy, len(arrays)))


def copied(backend: Any, y: Any, cotangents: Sequence[Any]) -> tuple[Host, list[Host]]:
    """y and the cotangents on the host, copied."""
    first, *others = (np.array(x) for x in get_each(backend, (y, *cotangents)))
    return first, others


def cotangents(subject: Subject, pullback: Callable[..., Any], case: OpCase) -> list[Host]:
    """Of the case's dy, on the host, copied."""
    found = backward_if_any(subject, pullback, subject.device(np.array(case.dy)), len(case.arrays))
    return [np.array(one) for one in subject.hosts(found)]


def must_refuse(call: Callable[[], Any], what: str, due: str, *errors: type[Exception]) -> None:
    """Raise `Failure` unless the call raises one of the errors; the first is what is ``due``, as a message says it."""
    try:
        call()
    except errors:
        return
    except Exception as error:  # noqa: BLE001
        raise Failure(f"{what} raised {type(error).__name__}, {due} {errors[0].__name__}") from None
    raise Failure(f"{what} was accepted; {due} {errors[0].__name__}")


def same(case: OpCase, first: tuple[Host, list[Host]], again: tuple[Host, list[Host]], what: str) -> None:
    """Raise `Failure` unless y and the cotangents have the same shapes, dtypes and bits."""
    for name, a, b in zip(OUTPUTS[case.op], (first[0], *first[1]), (again[0], *again[1]), strict=False):
        if not same_bits(a, b):
            if a.shape != b.shape or a.dtype != b.dtype:
                raise Failure(f"{what}: {name} has another shape or dtype")
            at = tuple(map(int, np.argwhere(~alike(a, b))[0]))
            raise Failure(f"{what}: {name}{list(at)} is {b[at]}, was {a[at]}")
