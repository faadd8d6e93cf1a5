"""Is an op right by itself? Each is held to refbert.ops on the very inputs that it was given, within its derived bound.

So an early error does not blame the ops after it, and the first op beyond its bound is where things go wrong. Bounds
are the conformance suite's (`refbert_conformance.tolerances`): worst cases of the arithmetic that the backend declares.

Nothing can be seen inside of a fused block, so each is judged as a whole, against the spec's own composition of the
reference's ops: the layer that inference uses (`encoder_layer`), layer by layer on the backend's own hidden states, and
the model that training uses (`objective`), gradient by gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.spec.scope import Scope
from refbert_conformance.engine.divergence import composed_layer
from refbert_conformance.engine.measure import Failure, Record, row_described, row_worst
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_conformance.tolerances.bounds import Expected, expected, expecting
from refbert_conformance.tolerances.noise import tolerances
from refbert_inspection.tracing.names import hidden_state_names
from refbert_inspection.tracing.passes import GRADIENT, Pass, probabilities_of
from refbert_inspection.tracing.recording import Call
from refbert_inspection.tracing.setting import Setting


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


def fused_layers(run: Pass, setting: Setting, arithmetic: Arithmetic) -> list[Judgement]:
    """Every layer of a backend that has `encoder_layer`; none for one that has not."""
    backend: Any = run.backend
    if not callable(getattr(backend, "encoder_layer", None)):
        return []
    made, found = run.tensors(), []
    options = {"mask": setting.batch.attention_mask, **setting.choices.layer_options()}
    for i, before in enumerate(hidden_state_names(setting.choices.layers)[:-1]):
        name = f"bert.encoder.layer.{i}"
        x = np.asarray(made[before], np.float64)
        weights = {n: np.asarray(w, np.float64) for n, w in Scope(setting.parameters, f"{name}.").items()}
        on = {n: backend.asarray(w) for n, w in weights.items()}
        y = backend.encoder_layer(backend.asarray(x), Scope(on, ""), **options)
        composed = partial(composed_layer, x=x, params=weights, options=options)
        (want,) = tolerances(lambda b, composed=composed: {"y": composed(b)}, arithmetic)  # type: ignore[misc]
        found.append(_judged(name, "encoder_layer", "forward", i, backend.to_numpy(y), want))
    return found


def own_objective(run: Pass, setting: Setting, wanted: Mapping[str, Expected]) -> list[Judgement]:
    """The gradients of a backend that has `objective`, in the order of the backward; none for one that has not.

    ``wanted``: what the composed pass is expected to give, by name.
    """
    backend: Any = run.backend
    if not callable(getattr(backend, "objective", None)) or not setting.backward or setting.labels is None:
        return []
    on = {name: backend.asarray(x) for name, x in setting.parameters.items()}
    loss, terms, pullback = backend.objective(on, setting.batch, setting.labels, setting.heads, setting.choices)
    gradients = pullback(backend.asarray(np.ones(())))
    names = [call.name for call in run.forward if call.op == "cross_entropy"]
    losses = dict(zip(names, terms.values(), strict=False)) | ({"loss": loss} if "loss" in wanted else {})
    found = [_judged(n, "objective", "forward", 0, backend.to_numpy(x), wanted[n]) for n, x in losses.items()]
    for n in run.gradients:
        if n in gradients:
            got, want = backend.to_numpy(gradients[n]), wanted[GRADIENT + n]
            found.append(_judged(n, "objective", "backward", 1, got, want))
        else:
            found.append(Judgement(n, "objective", "backward", 1, float("inf"), f"no gradient of {n}"))
    return found


def _judged(name: str, op: str, direction: str, order: int, got: Host, want: Expected) -> Judgement:
    try:
        worst = row_worst(got, want)
    except Failure as failure:  # another shape
        return Judgement(name, op, direction, order, float("inf"), str(failure))
    if worst is None:
        return Judgement(name, op, direction, order, 0.0)
    return Judgement(name, op, direction, order, worst.rho, row_described(worst) if worst.rho > 1 else "")
