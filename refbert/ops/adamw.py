"""AdamW: Adam with decoupled weight decay and bias correction.

Source   Kingma & Ba 2015 Algorithm 1; Loshchilov & Hutter 2019 Algorithm 2 with η_t = 1 and the decay scaled by the
         learning rate, as PyTorch's AdamW does.
Shapes   p, g, m, v one tensor's shape [...]; step t counts from 1  ->  new p, m, v [...]

Equation
    m ← β₁ m + (1 − β₁) g                m̂ = m/(1 − β₁ᵗ)
    v ← β₂ v + (1 − β₂) g²               v̂ = v/(1 − β₂ᵗ)
    p ← p − lr ( m̂/(√v̂ + ε) + λ p )

    The corrections undo the bias towards the zero start: if g had the same mean at every step, E[m] = (1 − β₁ᵗ) E[g].
    1 − βᵗ is computed in double precision whatever the dtype of p: for β₂ = 0.999 it cancels.
"""

from __future__ import annotations

import numpy as np

from refbert.ops.types import Array


def adamw(
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
    m_hat = m / (1 - beta1**step)
    v_hat = v / (1 - beta2**step)
    update = m_hat / (np.sqrt(v_hat) + eps) + weight_decay * p
    return p - lr * update, m, v
