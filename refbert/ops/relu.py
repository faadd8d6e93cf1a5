"""ReLU, the activation of the original Transformer.

Source   Vaswani et al. 2017 §3.3 eq. 2, FFN(x) = max(0, x W₁ + b₁) W₂ + b₂. BERT uses GELU; Google's configuration
         allows "relu".
Shapes   x [...]  ->  y [...]

Equation
    y = max(0, x)

Gradient
    dy/dx = 1 for x > 0 and 0 for x < 0. At x = 0, where there is no derivative, refbert (like TensorFlow and
    PyTorch) takes 0.
"""

from __future__ import annotations

import numpy as np

from refbert.ops.types import Array, Pullback


def relu(x: Array) -> tuple[Array, Pullback]:
    """y = max(0, x)."""
    y = np.maximum(x, 0)

    def pullback(dy: Array) -> tuple[Array]:
        return (dy * (x > 0),)

    return y, pullback
