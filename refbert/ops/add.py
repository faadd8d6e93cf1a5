"""Addition: the residual connection, and the sum of the three embeddings.

Source   Vaswani et al. 2017 §3.1, "LayerNorm(x + Sublayer(x))", after He et al. 2016; Devlin et al. 2019 Figure 2.
Shapes   x, z the same shape [...]  ->  y [...]

Equation
    y = x + z

Gradient
    ∂y/∂x = ∂y/∂z = 1, so both inputs receive the cotangent unchanged: dx = dz = dy. This is why gradients reach
    the lowest layer undiminished by the sublayers above it.
"""

from __future__ import annotations

from refbert.ops.types import Array, Pullback


def add(x: Array, z: Array) -> tuple[Array, Pullback]:
    """y = x + z. Raises ValueError for different shapes: broadcasting would need a sum in the backward."""
    if x.shape != z.shape:
        raise ValueError(f"add needs equal shapes, got {x.shape} and {z.shape}")
    y = x + z

    def pullback(dy: Array) -> tuple[Array, Array]:
        return dy.copy(), dy.copy()  # copies: no cotangent may alias another

    return y, pullback
