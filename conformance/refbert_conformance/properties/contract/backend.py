"""The backend as a whole: its attributes, its operations, their signatures."""

from __future__ import annotations

import inspect
from typing import Any

from refbert.backend import OPTIONAL_PROTOCOLS, Backend, methods, missing_ops
from refbert_conformance.engine.measure import Failure, Record
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.subject import Subject
from refbert_conformance.tolerances.arithmetic import FORMATS


def properties() -> list[Property]:
    """What can be seen without computing anything."""
    return [
        Property("contract", "backend", "attributes", "Name, library, device and dtypes.", check=_attributes),
        Property("contract", "backend", "required operations", "Every required op is there.", check=_required),
        Property("contract", "backend", "signatures", "Every op takes the contract's arguments.", check=_signatures),
    ]


def _attributes(subject: Subject, example: Any, record: Record) -> None:
    backend = subject.backend
    for name in ("name", "library", "dtype", "device"):
        value = getattr(backend, name, None)
        if not isinstance(value, str) or not value:
            raise Failure(f"the attribute {name} must be a non-empty string, it is {value!r}")
    dtypes = getattr(backend, "dtypes", None)
    if not isinstance(dtypes, tuple) or backend.dtype not in dtypes:
        raise Failure(f"dtypes must be a tuple that holds the dtype {backend.dtype}, it is {dtypes!r}")
    gradients = getattr(backend, "gradients", True)
    if not isinstance(gradients, bool):
        raise Failure(f"gradients must be True or False, it is {gradients!r}")
    unknown = [d for d in dtypes if d not in FORMATS]
    if unknown:
        raise Failure(f"dtypes names {', '.join(unknown)}; known: float64, float32, float16, bfloat16")


def _required(subject: Subject, example: Any, record: Record) -> None:
    lacks = missing_ops(subject.backend)
    if lacks:
        raise Failure(f"the backend lacks {', '.join(lacks)}")


def _signatures(subject: Subject, example: Any, record: Record) -> None:
    for protocol in (Backend, *OPTIONAL_PROTOCOLS):
        for name in methods(protocol):
            if not subject.has(name):
                continue
            theirs = list(inspect.signature(getattr(protocol, name)).parameters.values())[1:]
            try:
                ours = inspect.signature(getattr(subject.backend, name))
            except (TypeError, ValueError):
                continue  # compiled, with no signature to look at: the calls will tell
            by_position = [p for p in theirs if p.kind is not p.KEYWORD_ONLY]
            by_name = {p.name: None for p in theirs if p.kind is p.KEYWORD_ONLY}
            try:
                ours.bind(*[None] * len(by_position), **by_name)
                ours.bind(
                    *[None] * sum(p.default is p.empty for p in by_position),
                    **{p.name: None for p in theirs if p.kind is p.KEYWORD_ONLY and p.default is p.empty},
                )
            except TypeError as error:
                raise Failure(f"{name}{ours} cannot be called as the contract does: {error}") from None
