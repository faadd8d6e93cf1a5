"""Dropout with an explicit keep mask.

Source   Srivastava et al. 2014 §4; Vaswani et al. 2017 §5.4; Devlin et al. 2019 A.2 (rate 0.1 on all layers).
         This is the "inverted" form that TensorFlow and PyTorch use: the scaling happens in training, so that
         inference needs none.
Shapes   x [...], keep [...] of 0/1 (or False/True)  ->  y [...]

Equation
    y = x keep / (1 − rate)            keep_n ~ Bernoulli(1 − rate), so that E[y] = x

    The mask is an *input*: the op draws nothing. A training run is then the same function on every backend, and the
    backward uses, by construction, the mask of the forward. refbert.randomness draws the masks.

Gradient
    The map is diagonal: dx = dy keep / (1 − rate). The mask has no gradient.
"""

from __future__ import annotations

from refbert.ops.types import Array, Mask, Pullback


def dropout(x: Array, *, keep: Mask, rate: float) -> tuple[Array, Pullback]:
    """y = x keep / (1 − rate). Raises ValueError for a rate outside [0, 1) or a mask of another shape."""
    if not 0 <= rate < 1:
        raise ValueError(f"dropout rate must be in [0, 1), got {rate}")
    if keep.shape != x.shape:
        raise ValueError(f"the keep mask must have the shape of x, {x.shape}, got {keep.shape}")
    kept = keep.astype(bool)
    y = x * kept / (1 - rate)

    def pullback(dy: Array) -> tuple[Array]:
        return (dy * kept / (1 - rate),)

    return y, pullback
