"""One optimizer step over all parameters: clip, then update each tensor with its state.

Source   Google's optimization.py: gradients are clipped to a global norm of 1.0; every weight decays except those whose
         name matches LayerNorm, layer_norm or bias (so embeddings do decay). The arithmetic is in refbert.ops.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from refbert.backend import host_dtype
from refbert.errors import InputError, Unsupported
from refbert.updating import updating

A = TypeVar("A")

_NEEDS_STEP = ("adamw", "lamb")


def decays(name: str) -> bool:
    """Whether weight decay applies to the parameter of that name."""
    return not ("LayerNorm" in name or "layer_norm" in name or "bias" in name)


class InPlace(Protocol[A]):
    """Optional methods of a backend, both or neither: an update that needs no memory of its own."""

    def gradient_norm(self, gradients: Mapping[str, A]) -> float:
        """The norm that `refbert.ops.clip_by_global_norm` clips by, within rounding."""

    def update_in_place(self, rule: str, p: A, g: A, m: A, v: A, *, scale: float, **options: Any) -> tuple[A, A, A]:
        """What the optional op named ``rule`` makes of p, g·scale, m and v: new (p, m, v).

        It may write into g, m and v, and what it returns may lie in their memory; p it leaves as it is.
        """


@dataclass
class Clipped:
    """Gradients to update by: ``gradients`` times ``scale``. ``norm``: before clipping; None where that is off."""

    gradients: dict[str, Any]
    scale: float
    norm: float | None


def global_norm(backend: Any, gradients: Mapping[str, Any]) -> float:
    """The norm over all gradients: without a copy of them where the backend has `InPlace`'s method."""
    if hasattr(backend, "gradient_norm"):
        return float(backend.gradient_norm(gradients))
    return float(backend.clip_by_global_norm(gradients, max_norm=1.0)[1])


@dataclass
class Optimizer:
    """Adam's state and settings. ``rule`` is "bert_adam", "adamw" or "lamb"; see refbert.ops for the equations.

    Defaults are Devlin et al. 2019 A.2 and Google's code: β = (0.9, 0.999), ε = 1e-6, decay 0.01, clipping at 1.0
    (``max_norm=None`` switches it off). ``updates`` counts finished updates; ``m`` and ``v`` are the moments by name,
    in the backend's arrays.
    """

    rule: str = "bert_adam"
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    weight_decay: float = 0.01
    max_norm: float | None = 1.0
    clip_epsilon: float = 0.0
    updates: int = 0
    m: dict[str, Any] = field(default_factory=dict)
    v: dict[str, Any] = field(default_factory=dict)

    def step(
        self, backend: Any, parameters: dict[str, Any], gradients: Mapping[str, Any], *, lr: float
    ) -> tuple[dict[str, Any], float | None]:
        """(new parameters, gradient norm before clipping or None). Parameters without a gradient stay as they are.

        Arrays are the backend's. Raises `Unsupported` if the backend does not have the rule, and `InputError` if a
        gradient belongs to no parameter.
        """
        out = dict(parameters)
        if hasattr(backend, "update_in_place"):
            gradients = {name: backend.asarray(np.array(backend.to_numpy(g))) for name, g in gradients.items()}
        norm = self.apply(backend, out, dict(gradients), lr=lr)
        return out, norm

    def apply(self, backend: Any, parameters: dict[str, Any], gradients: dict[str, Any], *, lr: float) -> float | None:
        """`step` that saves memory: ``parameters`` gets the new arrays, ``gradients`` is emptied; returns the norm.

        Each parameter's old value, gradient and moments are let go as soon as its new ones exist, so an update needs
        memory for one parameter more, not for the whole model twice. A backend that updates in place (`InPlace`) needs
        none: it writes new moments over the old ones and new weights over the gradients.
        """
        self._check(backend, parameters, gradients)
        clipped = self.clip(backend, gradients)
        gradients.clear()
        self.update(backend, parameters, clipped, lr=lr)
        return clipped.norm

    def clip(self, backend: Any, gradients: Mapping[str, Any]) -> Clipped:
        """The gradients to update by. The given ones stay as they are; where the backend can, they are not copied."""
        if self.max_norm is None:
            return Clipped(dict(gradients), 1.0, None)
        if not hasattr(backend, "gradient_norm"):
            clipped, norm = backend.clip_by_global_norm(gradients, max_norm=self.max_norm, epsilon=self.clip_epsilon)
            return Clipped(clipped, 1.0, float(norm))
        norm = global_norm(backend, gradients)
        reached = norm + self.clip_epsilon
        scale = self.max_norm / reached if reached > self.max_norm else 1.0  # as refbert.ops.clip_by_global_norm
        return Clipped(dict(gradients), scale if math.isfinite(norm) else math.nan, norm)

    def update(self, backend: Any, parameters: dict[str, Any], clipped: Clipped, *, lr: float) -> None:
        """`apply` without the clipping; ``clipped.gradients`` is emptied."""
        gradients = clipped.gradients
        self._check(backend, parameters, gradients)
        rule = getattr(backend, self.rule)
        in_place = getattr(backend, "update_in_place", None)
        options: dict[str, Any] = {"lr": lr, "beta1": self.beta1, "beta2": self.beta2, "eps": self.eps}
        with updating(self, parameters):
            self.updates += 1
            if self.rule in _NEEDS_STEP:
                options["step"] = self.updates
            # The largest last, when the memory of all other gradients is free.
            for name in sorted(gradients, key=lambda name: math.prod(gradients[name].shape)):
                gradient = gradients.pop(name)
                if name not in self.m:
                    shape, dtype = tuple(gradient.shape), host_dtype(backend.dtype)
                    self.m[name], self.v[name] = (backend.asarray(np.zeros(shape, dtype)) for _ in range(2))
                state = parameters[name], gradient, self.m[name], self.v[name]
                options["weight_decay"] = self.weight_decay if decays(name) else 0.0
                new = rule(*state, **options) if in_place is None else in_place(
                    self.rule, *state, scale=clipped.scale, **options
                )  # fmt: skip
                parameters[name], self.m[name], self.v[name] = new

    def _check(self, backend: Any, parameters: Mapping[str, Any], gradients: Mapping[str, Any]) -> None:
        if not hasattr(backend, self.rule):
            raise Unsupported(f'backend "{backend.name}" does not offer the optimizer "{self.rule}"')
        strangers = sorted(set(gradients) - set(parameters))
        if strangers:
            raise InputError(f"gradients of unknown parameters: {', '.join(strangers)}")
