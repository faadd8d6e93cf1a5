"""Mixed precision: forward and backward in a narrow dtype, weights and everything that is added up in a wide one.

    w, m, v float32;    w̃ = bfloat16(w);    g = float32(∂loss/∂w̃);    (w, m, v) <- update(w, g, m, v)

Source   Micikevicius et al. 2018, "Mixed precision training", §3.1: an update of less than half a unit in the last
         place of w̃ (bfloat16: 1/256 of it) would be lost there; the float32 master copy adds such updates up.
Not here §3.2, scaling the loss, which float16 needs: gradients below 2⁻²⁴ vanish there. bfloat16 has float32's range.
"""

from __future__ import annotations

from typing import Any

from refbert.backend import UNIT_ROUNDOFF, registry
from refbert.errors import InputError
from refbert.model import Model


class MixedPrecision:
    """The narrow copy of a model; ``of`` brings it up to date, ``widen`` brings its gradients back.

    Raises `InputError` for a dtype that is not narrower than the model's own or is float16, and `Unsupported` or
    `BackendUnavailable` for one that the model's backend does not have.
    """

    def __init__(self, model: Model, dtype: str) -> None:
        wide = model.backend
        if dtype == "float16":
            raise InputError("mixed precision in float16 needs a scaled loss, which refbert does not do: use bfloat16")
        backend = registry.create(wide.name, dtype=dtype, device=wide.device)
        if not UNIT_ROUNDOFF[backend.dtype] > UNIT_ROUNDOFF[wide.dtype]:
            raise InputError(f"mixed precision: {dtype} is not narrower than the weights' {wide.dtype}")
        self._wide, self._narrow = wide, backend
        self._model = Model(model.config, model.state_dict(), backend=backend, profile=model.profile, heads=model.heads)

    def of(self, model: Model) -> Model:
        """Return the model with its weights rounded to the narrow dtype. It shares nothing with the last call's."""
        self._model.parameters = {}  # the last call's go first
        self._model.parameters = {name: _cast(self._wide, self._narrow, w) for name, w in model.parameters.items()}
        self._model.gradient_checkpointing = model.gradient_checkpointing
        return self._model

    def widen(self, gradients: dict[str, Any]) -> dict[str, Any]:
        """Return the same numbers in the wide dtype; ``gradients`` is emptied on the way."""
        return {name: _cast(self._narrow, self._wide, gradients.pop(name)) for name in list(gradients)}


def _cast(source: Any, target: Any, x: Any) -> Any:
    """An array of one instance of a backend as another's: with its ``cast`` where it has one, else through the host."""
    own = getattr(target, "cast", None)
    return target.asarray(source.to_numpy(x)) if own is None else own(x)
