"""Softmax over the last axis.

Source   Vaswani et al. 2017 §3.2.1 eq. 1; Devlin et al. 2019 §4.1-4.2.
Shapes   x [..., C]  ->  p [..., C]

Equation
    p_j = e^{x_j} / Σ_k e^{x_k}  =  e^{x_j − m} / Σ_k e^{x_k − m},     m = max_k x_k

    The second form is the same number for any m; with the maximum no exponential overflows and the sum is at least 1.
    An entry of −∞ gets probability exactly 0 (as long as one entry of the row is finite).

Gradient
    With s = Σ_k e^{x_k}:   ∂p_i/∂x_j = e^{x_i} δ_ij/s − e^{x_i} e^{x_j}/s² = p_i (δ_ij − p_j).   Contract with dp:

        dx_j = Σ_i dp_i p_i (δ_ij − p_j) = p_j (dp_j − t),        t = Σ_i p_i dp_i

    Σ_j dx_j = t − t = 0: softmax does not change when all entries of a row move together, and a constant dp gives
    dx = 0.
"""

from __future__ import annotations

import numpy as np

from refbert.ops.types import Array, Pullback


def softmax(x: Array) -> tuple[Array, Pullback]:
    """p = e^x / Σ e^x over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))  # [..., C]
    p = e / e.sum(axis=-1, keepdims=True)  # [..., C]

    def pullback(dp: Array) -> tuple[Array]:
        t = (p * dp).sum(axis=-1, keepdims=True)  # [..., 1]
        return (p * (dp - t),)

    return p, pullback
