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
        update = getattr(backend, self.rule, None)
        if update is None:
            raise Unsupported(f'backend "{backend.name}" does not offer the optimizer "{self.rule}"')
        strangers = sorted(set(gradients) - set(parameters))
        if strangers:
            raise InputError(f"gradients of unknown parameters: {', '.join(strangers)}")
        norm = None
        if self.max_norm is not None:
            gradients, norm = backend.clip_by_global_norm(gradients, max_norm=self.max_norm, epsilon=self.clip_epsilon)
        self.updates += 1
        options: dict[str, Any] = {"lr": lr, "beta1": self.beta1, "beta2": self.beta2, "eps": self.eps}
        if self.rule in _NEEDS_STEP:
            options["step"] = self.updates
        out = dict(parameters)
        for name, gradient in gradients.items():
            if name not in self.m:
                zeros = np.zeros(tuple(gradient.shape))
                self.m[name], self.v[name] = backend.asarray(zeros), backend.asarray(zeros.copy())
            out[name], self.m[name], self.v[name] = update(
                parameters[name],
                gradient,
                self.m[name],
                self.v[name],
                weight_decay=self.weight_decay if decays(name) else 0.0,
                **options,
            )
        return out, norm
