"""Fused blocks: what a backend computes in one go, against the spec's own composition of the reference's ops.

Nothing can be seen inside of them, so each is judged as a whole: the layer that inference uses (`encoder_layer`), layer
by layer on the backend's own hidden states, and the model that training uses (`objective`), gradient by gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert.spec.encoder import encoder_layer
from refbert.spec.scope import Scope
from refbert_conformance.engine.measure import Failure, row_described, row_worst
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_conformance.tolerances.bounds import Expected
from refbert_conformance.tolerances.noise import tolerances
from refbert_inspection.tracing.judging import Judgement
from refbert_inspection.tracing.names import hidden_state_names
from refbert_inspection.tracing.passes import Pass
from refbert_inspection.tracing.setting import Setting


def fused_layers(run: Pass, setting: Setting, arithmetic: Arithmetic) -> list[Judgement]:
    """Every layer of a backend that has `encoder_layer`; none for one that has not."""
    backend: Any = run.backend
    if not callable(getattr(backend, "encoder_layer", None)):
        return []
    made, found = run.tensors(), []
    c, mask = setting.choices, setting.batch.attention_mask
    for i, before in enumerate(hidden_state_names(c.layers)[:-1]):
        name = f"bert.encoder.layer.{i}"
        x = np.asarray(made[before], np.float64)
        weights = {n.removeprefix(name + "."): w for n, w in setting.parameters.items() if n.startswith(name + ".")}
        on = {n: backend.asarray(w) for n, w in weights.items()}
        y = backend.encoder_layer(backend.asarray(x), Scope(on, ""), mask=mask, **c.layer_options())

        def composed(b: Any, x: Host = x, weights: Mapping[str, Host] = weights) -> dict[str, Host]:
            out, _ = encoder_layer(b, {n: b.asarray(w) for n, w in weights.items()}, b.asarray(x), mask, c)
            return {"y": b.to_numpy(out)}

        (want,) = tolerances(composed, arithmetic)
        rho, message = _worst(backend.to_numpy(y), want)
        found.append(Judgement(name, "encoder_layer", "forward", i, rho, message))
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
    found = []
    names = [call.name for call in run.forward if call.op == "cross_entropy"]
    for name, term in zip(names, terms.values(), strict=False):
        rho, message = _worst(backend.to_numpy(term), wanted[name])
        found.append(Judgement(name, "objective", "forward", 0, rho, message))
    if "loss" in wanted:
        rho, message = _worst(backend.to_numpy(loss), wanted["loss"])
        found.append(Judgement("loss", "objective", "forward", 0, rho, message))
    for name in run.gradients:
        want = wanted[f"gradient of {name}"]
        if name not in gradients:
            found.append(Judgement(name, "objective", "backward", 1, float("inf"), f"no gradient of {name}"))
            continue
        rho, message = _worst(backend.to_numpy(gradients[name]), want)
        found.append(Judgement(name, "objective", "backward", 1, rho, message))
    return found


def _worst(got: Host, want: Expected) -> tuple[float, str]:
    try:
        worst = row_worst(got, want)
    except Failure as failure:  # another shape
        return float("inf"), str(failure)
    if worst is None:
        return 0.0, ""
    return worst.rho, row_described(worst) if worst.rho > 1 else ""
