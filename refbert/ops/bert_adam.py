"""BERT's Adam: Google's optimizer, without bias correction and with decoupled weight decay.

Source   Google's optimization.py, AdamWeightDecayOptimizer. Devlin et al. 2019 A.2 calls it "Adam with … L2 weight
         decay of 0.01", which it is not: the decay does not pass through the moments, and Kingma & Ba 2015's
         division by 1 − βᵗ is missing.
Shapes   p, g, m, v one tensor's shape [...]  ->  new p, m, v [...]

Equation (g the gradient, already clipped)
    m ← β₁ m + (1 − β₁) g
    v ← β₂ v + (1 − β₂) g²
    p ← p − lr ( m/(√v + ε) + λ p )           ε = 1e-6, outside the root

    Without the correction the first steps are larger than Adam's by √(1 − β₂ᵗ)⁻¹ (1 − β₁ᵗ): 3.16 at t = 1, at most
    6.57 (t = 12), 1.26 at t = 1000. Warmup hides it.

Who decays: all but LayerNorm and biases (refbert.training.optimizer.decays).
"""

from __future__ import annotations

import numpy as np

from refbert.ops.types import Array


def bert_adam(
    p: Array, g: Array, m: Array, v: Array, *, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float
) -> tuple[Array, Array, Array]:
    """One update; returns new (p, m, v) and changes nothing."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    update = m / (np.sqrt(v) + eps) + weight_decay * p
    return p - lr * update, m, v
