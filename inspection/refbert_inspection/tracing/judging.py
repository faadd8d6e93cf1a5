"""Is an op right by itself? Each is held to refbert.ops on the very inputs that it was given, within its derived bound.

So an early error does not blame the ops after it, and the first op beyond its bound is where things go wrong. Bounds
are the conformance suite's (`refbert_conformance.tolerances`): worst cases of the arithmetic that the backend declares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refbert_conformance.engine.measure import Failure, Record
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_conformance.tolerances.bounds import Expected, expected, expecting
from refbert_inspection.tracing.passes import probabilities_of
from refbert_inspection.tracing.recording import Call


@dataclass(frozen=True)
class Judgement:
    """One op, one way: its worst error in bounds (ρ; above 1 it is wrong), and what is wrong, or "".

    direction: "forward" or "backward". order: when it ran.
    """

    name: str
    op: str
    direction: str
    order: int
    rho: float
    message: str = ""


def judged(
    calls: Iterable[Call], arithmetic: Arithmetic, told: Callable[[int], object] = lambda _: None
) -> list[Judgement]:
    """Every op of a pass that has kept its inputs, in the order in which they ran, pullbacks among them.

    ``told`` hears how many have been judged.
    """
    calls = list(calls)
    makers = {call.name: call.op for call in calls if not call.sums}
    found: list[Judgement] = []
    for k, call in enumerate(calls):
        told(k)
        found += _of(call, arithmetic, makers)
    return sorted(found, key=lambda one: one.order)


def _of(call: Call, arithmetic: Arithmetic, makers: Mapping[str, str]) -> Iterator[Judgement]:
    inputs = [np.asarray(x, np.float64) for x in call.arrays]
    want, want_back = expecting(call.op, inputs, call.options, arithmetic)
    ways = [("backward" if call.sums else "forward", call.order, call.stale, call.wrote, [call.y], [want])]
    if call.cotangents:
        cotangents = want_back(np.asarray(call.gradient, np.float64))
        ways += [("backward", call.back_order, call.stale_back, call.wrote_back, [*call.cotangents], cotangents)]
    if call.probabilities is not None:  # as the backend's own op for them computes them
        asked = {name: call.options[name] for name in ("mask", "heads", "mask_value")}
        rho, message = _worst(
            [call.probabilities], expected("attention_probabilities", inputs[:2], asked, arithmetic), arithmetic
        )
        yield Judgement(probabilities_of(call.name), "attention_probabilities", "forward", call.order, rho, message)
    for direction, order, stale, wrote, got, wanted in ways:
        for name in stale:
            if name in makers:  # its fault: it gave away memory that is used again
                message = "its result was changed after it was made: memory that is used again, or shared"
                yield Judgement(name, makers[name], direction, order, float("inf"), message)
        rho, message = (float("inf"), wrote) if wrote else _worst(got, wanted, arithmetic)
        yield Judgement(call.name, call.op, direction, order, rho, message)


def _worst(got: Sequence[Any], wanted: Sequence[Expected], arithmetic: Arithmetic) -> tuple[float, str]:
    record = Record(arithmetic)
    worst, message = 0.0, ""
    for one, want in zip(got, wanted, strict=True):
        try:
            record.compare(one, want)
        except Failure as failure:
            rho = failure.worst.rho if failure.worst is not None else float("inf")
            if rho > worst:
                worst, message = rho, str(failure)
    return max(worst, record.rho or 0.0), message
