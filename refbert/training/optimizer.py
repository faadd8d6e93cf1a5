"""One optimizer step over all parameters: clip, then update each tensor with its state.

Source   Google's optimization.py: gradients are clipped to a global norm of 1.0; every weight decays except those whose
         name matches LayerNorm, layer_norm or bias (so embeddings do decay). The arithmetic is in refbert.ops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refbert.errors import InputError, Unsupported

_NEEDS_STEP = ("adamw", "lamb")


def decays(name: str) -> bool:
    """Whether weight decay applies to the parameter of that name."""
    return not ("LayerNorm" in name or "layer_norm" in name or "bias" in name)


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
        norm = self.apply(backend, out, dict(gradients), lr=lr)
        return out, norm

    def apply(self, backend: Any, parameters: dict[str, Any], gradients: dict[str, Any], *, lr: float) -> float | None:
        """`step` that saves memory: ``parameters`` gets the new arrays, ``gradients`` is emptied; returns the norm.

        Each parameter's old value, gradient and moments are let go as soon as its new ones exist, so an update needs
        memory for one parameter more, not for the whole model twice.
        """
        self._check(backend, parameters, gradients)
        clipped, norm = self.clip(backend, gradients)
        gradients.clear()
        self.update(backend, parameters, clipped, lr=lr)
        return norm

    def clip(self, backend: Any, gradients: dict[str, Any]) -> tuple[dict[str, Any], float | None]:
        """(gradients to update by, their norm before clipping); the same ones and None where clipping is off."""
        if self.max_norm is None:
            return dict(gradients), None
        clipped, norm = backend.clip_by_global_norm(gradients, max_norm=self.max_norm, epsilon=self.clip_epsilon)
        return clipped, float(norm)

    def update(self, backend: Any, parameters: dict[str, Any], gradients: dict[str, Any], *, lr: float) -> None:
        """`apply` without the clipping."""
        self._check(backend, parameters, gradients)
        update = getattr(backend, self.rule)
        self.updates += 1
        options: dict[str, Any] = {"lr": lr, "beta1": self.beta1, "beta2": self.beta2, "eps": self.eps}
        if self.rule in _NEEDS_STEP:
            options["step"] = self.updates
        for name in list(gradients):
            gradient = gradients.pop(name)
            if name not in self.m:
                zeros = np.zeros(tuple(gradient.shape))
                self.m[name], self.v[name] = backend.asarray(zeros), backend.asarray(zeros.copy())
            parameters[name], self.m[name], self.v[name] = update(
                parameters[name],
                gradient,
                self.m[name],
                self.v[name],
                weight_decay=self.weight_decay if decays(name) else 0.0,
                **options,
            )

    def _check(self, backend: Any, parameters: Mapping[str, Any], gradients: Mapping[str, Any]) -> None:
        if not hasattr(backend, self.rule):
            raise Unsupported(f'backend "{backend.name}" does not offer the optimizer "{self.rule}"')
        strangers = sorted(set(gradients) - set(parameters))
        if strangers:
            raise InputError(f"gradients of unknown parameters: {', '.join(strangers)}")
