"""One optimizer step over all parameters: clip, then update each tensor with its state.

Source   Google's optimization.py: gradients are clipped to a global norm of 1.0; every weight decays except those whose
         name matches LayerNorm, layer_norm or bias (so embeddings do decay). The arithmetic is in refbert.ops.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refbert.backend import host_dtype, require_updates
from refbert.errors import InputError, Unsupported
from refbert.ops.clip_by_global_norm import clip_scale
from refbert.updating import updating


def decays(name: str) -> bool:
    """Whether weight decay applies to the parameter of that name."""
    return not ("LayerNorm" in name or "layer_norm" in name or "bias" in name)


@dataclass
class Clipped:
    """Gradients to update by: ``gradients`` times ``scale``. ``norm``: before clipping; None where that is off."""

    gradients: dict[str, Any]
    scale: float
    norm: float | None


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
        # Copies, since an update may write into the gradients.
        copies = {name: backend.asarray(np.array(backend.to_numpy(g))) for name, g in gradients.items()}
        norm = self.apply(backend, out, copies, lr=lr)
        return out, norm

    def apply(self, backend: Any, parameters: dict[str, Any], gradients: dict[str, Any], *, lr: float) -> float | None:
        """`step` that saves memory: ``parameters`` gets the new arrays, ``gradients`` is emptied; returns the norm.

        Each parameter's old value, gradient and moments are let go as soon as its new ones exist, so an update needs
        memory for one parameter more, not for the whole model twice; and none where the backend writes new moments over
        the old ones and new weights over the gradients.
        """
        _check(parameters, gradients)
        clipped = self.clip(backend, gradients)
        gradients.clear()
        self.update(backend, parameters, clipped, lr=lr)
        return clipped.norm

    def clip(self, backend: Any, gradients: Mapping[str, Any]) -> Clipped:
        """The gradients to update by: the given arrays, and what refbert.ops.clip_by_global_norm multiplies them by."""
        if self.max_norm is None:
            return Clipped(dict(gradients), 1.0, None)
        require_updates(backend)
        norm = float(backend.global_norm(gradients))
        return Clipped(dict(gradients), clip_scale(norm, max_norm=self.max_norm, epsilon=self.clip_epsilon), norm)

    def update(self, backend: Any, parameters: dict[str, Any], clipped: Clipped, *, lr: float) -> None:
        """`apply` without the clipping; ``clipped.gradients`` is emptied.

        Raises `Unsupported` if the backend does not have the rule.
        """
        gradients = clipped.gradients
        _check(parameters, gradients)
        require_updates(backend)
        options: dict[str, Any] = {"lr": lr, "beta1": self.beta1, "beta2": self.beta2, "eps": self.eps}
        with updating(self, parameters):
            step = self.updates + 1
            # The largest last, when the memory of all other gradients is free.
            for name in sorted(gradients, key=lambda name: math.prod(gradients[name].shape)):
                gradient = gradients.pop(name)
                m, v = self.m.get(name), self.v.get(name)
                if m is None or v is None:
                    shape, dtype = tuple(gradient.shape), host_dtype(backend.dtype)
                    m, v = (backend.asarray(np.zeros(shape, dtype)) for _ in range(2))
                decay = self.weight_decay if decays(name) else 0.0
                try:
                    parameters[name], self.m[name], self.v[name] = backend.update(
                        self.rule, parameters[name], gradient, m, v,
                        scale=clipped.scale, weight_decay=decay, step=step, **options,
                    )  # fmt: skip
                except NotImplementedError as error:
                    raise Unsupported(f'backend "{backend.name}" does not offer the optimizer "{self.rule}"') from error
            self.updates = step


def _check(parameters: Mapping[str, Any], gradients: Mapping[str, Any]) -> None:
    unknown = sorted(set(gradients) - set(parameters))
    if unknown:
        raise InputError(f"gradients of unknown parameters: {', '.join(unknown)}")
