"""Is an op right by itself? Each is held to refbert.ops on the very inputs that it was given, within its derived bound.

So an early error does not blame the ops after it, and the first op beyond its bound is where things go wrong. Bounds
are the conformance suite's (`refbert_conformance.tolerances`): worst cases of the arithmetic that the backend declares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert_conformance.engine.measure import Failure, Record
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_conformance.tolerances.bounds import Expected, expected
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
    makers = {call.name: call for call in calls if not call.sums}
    found: list[Judgement] = []
    for k, call in enumerate(calls):
        told(k)
        found += _of(call, arithmetic, makers)
    return sorted(found, key=lambda one: one.order)


def _of(call: Call, arithmetic: Arithmetic, makers: dict[str, Call]) -> Iterator[Judgement]:
    way = "backward" if call.sums else "forward"
    yield from _reused(call.stale, call.order, way, makers)
    if call.probabilities is not None:
        yield _probabilities(call, arithmetic)
    wrote = f"wrote into its input {call.written[0]}" if call.written else ""
    rho, message = _against_reference(call, arithmetic, backward=False)
    yield Judgement(call.name, call.op, way, call.order, float("inf") if wrote else rho, wrote or message)
    if not call.cotangents or call.gradient is None:
        return
    yield from _reused(call.stale_back, call.back_order, "backward", makers)
    wrote = "its pullback wrote into the cotangent that it was given" if call.written_back else ""
    rho, message = _against_reference(call, arithmetic, backward=True)
    yield Judgement(call.name, call.op, "backward", call.back_order, float("inf") if wrote else rho, wrote or message)


def _reused(names: tuple[str, ...], order: int, way: str, makers: dict[str, Call]) -> Iterator[Judgement]:
    """A result that was changed after it was made is its maker's fault: it gave away memory that is used again."""
    for name in names:
        if name in makers:
            message = "its result was changed after it was made: memory that is used again, or shared"
            yield Judgement(name, makers[name].op, way, order, float("inf"), message)


def _probabilities(call: Call, arithmetic: Arithmetic) -> Judgement:
    """What attention keeps to itself, as the backend's own op for it computes it."""
    asked = {name: call.options[name] for name in ("mask", "heads", "mask_value")}
    wanted = expected("attention_probabilities", _wide(call.arrays[:2]), asked, arithmetic)
    rho, message = _worst([call.probabilities], wanted, arithmetic)
    return Judgement(probabilities_of(call.name), "attention_probabilities", "forward", call.order, rho, message)


def _against_reference(call: Call, arithmetic: Arithmetic, *, backward: bool) -> tuple[float, str]:
    dy = _wide([call.gradient])[0] if backward else None
    wanted = expected(call.op, _wide(call.arrays), call.options, arithmetic, dy)
    return _worst(call.cotangents, wanted[1:], arithmetic) if backward else _worst([call.y], wanted[:1], arithmetic)


def _wide(arrays: Sequence[Any]) -> list[Host]:
    """In float64, in which the reference is computed."""
    return [np.asarray(x, np.float64) for x in arrays]


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
