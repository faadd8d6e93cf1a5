"""Clipping by the global norm: one scale for all gradients.

Source   Pascanu et al. 2013 Algorithm 1; Google's optimization.py (tf.clip_by_global_norm, 1.0). The BERT paper does
         not mention it.
Shapes   gradients: name -> [...]  ->  the same names and shapes, and the norm before clipping (a float)

Equation
    n = √( Σ over all tensors and entries g² )
    g ← g c/max(n, c)                    TensorFlow: epsilon = 0
    g ← g min(1, c/(n + 1e-6))           PyTorch's clip_grad_norm_: epsilon = 1e-6

    All gradients keep their direction, together; nothing changes when n ≤ c. A norm that is not finite is returned
    as it is and every gradient becomes NaN, as in TensorFlow: the caller must look at it before the update.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from refbert.ops.types import Array


def clip_by_global_norm(
    gradients: Mapping[str, Array], *, max_norm: float, epsilon: float = 0.0
) -> tuple[dict[str, Array], float]:
    """(clipped gradients, norm before clipping)."""
    norm = global_norm(gradients)
    scale = clip_scale(norm, max_norm=max_norm, epsilon=epsilon)
    return {name: g * scale for name, g in gradients.items()}, norm


def global_norm(gradients: Mapping[str, Array]) -> float:
    """n."""
    return math.sqrt(sum(float((g * g).sum()) for g in gradients.values()))


def clip_scale(norm: float, *, max_norm: float, epsilon: float = 0.0) -> float:
    """What every gradient is multiplied by: c/(n + ε) where that is less than 1, NaN where n is not finite."""
    if not math.isfinite(norm):
        return math.nan
    return max_norm / (norm + epsilon) if norm + epsilon > max_norm else 1.0
