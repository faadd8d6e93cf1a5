"""Layer normalisation over the hidden axis.

Source   Ba, Kiros, Hinton 2016 eq. 3-4; Vaswani et al. 2017 §3.1. BERT: Google's modeling.py layer_norm
         (ε = 1e-12, inside the square root; the papers give no value).
Shapes   x [..., H], gamma [H], beta [H]  ->  y [..., H]

Equation (per row; H entries)
    μ  = 1/H Σ_j x_j
    σ² = 1/H Σ_j (x_j − μ)²                 the biased variance
    r  = 1 / √(σ² + ε)
    x̂  = (x − μ) r
    y  = γ x̂ + β                            elementwise

Gradient
    γ and β act elementwise, and are shared by all N rows:

        dγ_j = Σ_n dy_nj x̂_nj       dβ_j = Σ_n dy_nj       q ≡ dx̂ = dy γ

    For x, every x_j moves its own x̂_j and, through μ and r, all the others. With d = x − μ:

        ∂d_i/∂x_j  = δ_ij − 1/H
        ∂σ²/∂x_j   = 2/H Σ_i d_i (δ_ij − 1/H) = 2 d_j/H            because Σ_i d_i = 0
        ∂r/∂x_j    = −½ (σ² + ε)^{−3/2} ∂σ²/∂x_j = −r³ d_j/H
        ∂x̂_i/∂x_j  = r (δ_ij − 1/H) + d_i (−r³ d_j/H) = r (δ_ij − 1/H − x̂_i x̂_j/H)

    Contract with q:

        dx_j = Σ_i q_i ∂x̂_i/∂x_j = r ( q_j − 1/H Σ_i q_i − x̂_j · 1/H Σ_i q_i x̂_i )

        dx = r (q − mean(q) − x̂ mean(q x̂))

    So dx is q with its components along 1 and x̂ removed: Σ_j dx_j = 0 always, and a cotangent with constant q
    gives dx = 0. (A test that uses all-ones cotangents and γ = 1 therefore cannot see a wrong backward.)

Where the papers are silent
    A constant row has σ² = 0: x̂ = 0 and y = β, and r = ε^{−1/2} (10⁶ for 1e-12) multiplies the gradient. It also
    multiplies the rounding of μ where equal entries c do not add up exactly: x̂ is then about u|c|·10⁶, not 0.
"""

from __future__ import annotations

import numpy as np

from refbert.ops.types import Array, Pullback


def layer_norm(x: Array, gamma: Array, beta: Array, *, eps: float) -> tuple[Array, Pullback]:
    """y = gamma (x − mean) / √(variance + eps) + beta, over the last axis."""
    mu = x.mean(axis=-1, keepdims=True)  # [..., 1]
    d = x - mu  # [..., H]
    variance = (d * d).mean(axis=-1, keepdims=True)  # [..., 1]
    r = 1 / np.sqrt(variance + eps)  # [..., 1]
    xhat = d * r  # [..., H]
    y = gamma * xhat + beta  # [..., H]

    def pullback(dy: Array) -> tuple[Array, Array, Array]:
        q = dy * gamma  # [..., H]
        mean_q = q.mean(axis=-1, keepdims=True)  # [..., 1]
        mean_qx = (q * xhat).mean(axis=-1, keepdims=True)  # [..., 1]
        dx = r * (q - mean_q - xhat * mean_qx)  # [..., H]
        rows = tuple(range(dy.ndim - 1))
        return dx, (dy * xhat).sum(axis=rows), dy.sum(axis=rows)

    return y, pullback
