"""Fused blocks: what a backend computes in one go, against the spec's own composition of the reference's ops.

Nothing can be seen inside of them, so each is judged as a whole: the layer that inference uses (`encoder_layer`), layer
by layer on the backend's own hidden states, and the model that training uses (`objective`), gradient by gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.spec.scope import Scope
from refbert_conformance.engine.divergence import composed_layer
from refbert_conformance.engine.measure import Failure, row_described, row_worst
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_conformance.tolerances.bounds import Expected
from refbert_conformance.tolerances.noise import tolerances
from refbert_inspection.tracing.judging import Judgement
from refbert_inspection.tracing.names import hidden_state_names
from refbert_inspection.tracing.passes import GRADIENT, Pass
from refbert_inspection.tracing.setting import Setting


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
