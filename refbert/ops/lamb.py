"""LAMB: AdamW whose step is scaled, tensor by tensor, to the size of the weights.

Source   You et al. 2020 Algorithm 2, with φ the identity (their appendix: φ(z) = z works) and trust ratio 1 where a
         norm is zero, as in the authors' code.
Shapes   p, g, m, v one tensor's shape [...]; step t counts from 1  ->  new p, m, v [...]

Equation
    m ← β₁ m + (1 − β₁) g                m̂ = m/(1 − β₁ᵗ)
    v ← β₂ v + (1 − β₂) g²               v̂ = v/(1 − β₂ᵗ)
    u = m̂/(√v̂ + ε) + λ p
    p ← p − lr ‖p‖/‖u‖ u                 Euclidean norms over the whole tensor; ratio 1 if ‖p‖ = 0 or ‖u‖ = 0

    The step's length is lr ‖p‖ whatever the gradient's scale, which is what lets batches of 32k keep their rate.
"""

from __future__ import annotations

import numpy as np

from refbert.ops.types import Array


def lamb(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
) -> tuple[Array, Array, Array]:
    """One update; returns new (p, m, v) and changes nothing. Raises ValueError for a step below 1."""
    if step < 1:
        raise ValueError(f"step counts from 1, got {step}")
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    u = (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + eps) + weight_decay * p
    p_norm, u_norm = np.sqrt((p * p).sum()), np.sqrt((u * u).sum())
    ratio = p_norm / u_norm if p_norm > 0 and u_norm > 0 else 1.0
    return p - lr * ratio * u, m, v
