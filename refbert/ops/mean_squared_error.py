"""Squared error, for sequence regression (STS-B).

Source   Hugging Face's BertForSequenceClassification with num_labels = 1; Devlin et al. 2019 §4.1 fine-tunes STS-B
         without saying how.
Shapes   x [...], targets [...] the same shape (host numbers)  ->  loss, a scalar (shape [])

Equation
    loss = 1/M Σ_n (x_n − t_n)²            M is the caller's denominator; M = 0 makes the loss 0

Gradient
    dx_n = d · 2 (x_n − t_n)/M             for a cotangent d of the scalar loss
"""

from __future__ import annotations

from refbert.ops.types import Array, Pullback


def mean_squared_error(x: Array, targets: Array, *, denominator: float) -> tuple[Array, Pullback]:
    """loss = Σ (x − targets)² / denominator. Raises ValueError for different shapes."""
    if x.shape != targets.shape:
        raise ValueError(f"mean_squared_error needs equal shapes, got {x.shape} and {targets.shape}")
    per_row = 1 / denominator if denominator else 0.0
    difference = x - targets.astype(x.dtype)
    loss = (difference * difference).sum() * per_row

    def pullback(dloss: Array) -> tuple[Array]:
        return (difference * (2 * dloss * per_row),)

    return loss, pullback
