"""The cases of a kit: the calls that the suite's own properties make, each once.

They are recorded from a backend that cannot fail: refbert.ops in float64, rounded to the dtype. Only properties can be
recorded whose calls follow from their inputs alone, and which numbers decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from refbert.backend import OPTIONAL, Host, host_dtype
from refbert.errors import RefbertError
from refbert_conformance.cases.inputs import rounded
from refbert_conformance.engine import runner
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.subject import Subject
from refbert_conformance.kit.asking import LAYER, OPS, Asking, Call, digest, outputs_of

_MORE = set(OPTIONAL).difference(OPS)


def left_out(property: Property) -> str:
    """Why a kit has nothing of the property, or ""."""
    name = property.name.removeprefix("fused: ")
    if property.level == "contract" or name in ("first call", "calls", "each weight"):
        return "conduct (memory, repetition, threads, layouts, errors) is not seen in a record"
    if name == "real sizes":
        return "inputs as large as in models would make a kit of hundreds of megabytes, or more"
    if _MORE.intersection(property.needs):
        return f"a kit asks for ops and {LAYER} alone"
    if property.level not in ("forward", "backward") and LAYER not in property.needs:
        return "its calls are each on what came of the one before"
    return ""


@dataclass
class Case:
    """One call to be computed, with its pullback's cotangent if there is one. outputs: those that are looked at, each
    with the ids of the properties that do."""

    call: Call
    dy: Host | None
    outputs: dict[str, dict[str, None]] = field(default_factory=dict)

    def reference(self) -> dict[str, Host]:
        """Every output of it."""
        y, back = self.call.reference
        return dict(zip(outputs_of(self.call.op), (y, *(() if self.dy is None else back(self.dy))), strict=False))


class Recorder:
    """What a recording backend asks, and gets: the reference, rounded."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.property = ""
        self._cases: dict[str, dict[str, Case]] = {}  # digest of the call -> digest of the cotangent, or "" -> case

    def give(self, call: Call, dy: Host | None, name: str) -> Host:
        """The output, noted."""
        known = self._cases.setdefault(call.digest, {})
        case = known.setdefault("" if dy is None else digest(dy), Case(call, dy))
        case.outputs.setdefault(name, {})[self.property] = None
        return rounded(case.reference()[name], self.dtype).astype(host_dtype(self.dtype))

    def cases(self) -> Iterator[Case]:
        """In the order in which they came. A result that is looked at belongs to the first case that has its call."""
        for known in self._cases.values():
            forward, rest = known.get(""), [case for key, case in known.items() if key]
            if forward is None:
                yield from rest
            elif not rest:
                yield forward
            else:
                rest[0].outputs = forward.outputs | rest[0].outputs
                yield from rest


@dataclass(frozen=True)
class Recorded:
    """The cases, and by property the examples that they are of. The examples go into the kit: what Hypothesis draws
    depends on its version, and on which modules are loaded."""

    cases: Sequence[Case]
    examples: Mapping[str, Sequence[Any]]


def record(
    properties: Sequence[Property], *, dtype: str, arithmetic: Mapping[str, Any], effort: str, seed: int
) -> Recorded:
    """What the properties ask that are not `left_out`."""
    recorder = Recorder(dtype)
    examples: dict[str, Sequence[Any]] = {}
    subject = Subject("refbert.ops", lambda: Asking("refbert.ops", dtype, arithmetic, recorder.give))
    for property in properties:
        if left_out(property):
            continue
        recorder.property = property.id
        tried: list[Any] = []
        result = runner.run(property, subject, effort=effort, seed_number=seed, trying=tried.append, shrinking=0)
        if result.outcome == "failed":
            raise RefbertError(f"{property.id}: the rounded reference fails, so no kit is written ({result.message})")
        examples[property.id] = tried
    return Recorded(list(recorder.cases()), examples)
