"""Hyperbolic tangent: the pooler's activation.

Source   Google's modeling.py (BertModel, "pooler"); the paper does not mention it.
Shapes   x [...]  ->  y [...]

Equation
    y = tanh x = (eˣ − e^{−x}) / (eˣ + e^{−x})

Gradient
    d tanh x/dx = 1 − tanh² x, so dx = dy (1 − y²) = dy (1 − y)(1 + y). The factored form loses no digits where
    |y| is close to 1.
"""

from __future__ import annotations

import numpy as np

from refbert.ops.types import Array, Pullback


def tanh(x: Array) -> tuple[Array, Pullback]:
    """y = tanh x."""
    y = np.tanh(x)

    def pullback(dy: Array) -> tuple[Array]:
        return (dy * (1 - y) * (1 + y),)

    return y, pullback
