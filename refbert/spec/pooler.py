"""The pooler: one vector per sequence, from [CLS].

Source   Google's modeling.py (BertModel, "pooler"): a dense layer with tanh on the first position. Devlin et al. 2019
         §3 speaks only of "the final hidden vector of the special [CLS] token".
Shapes   hidden [B, S, H]  ->  pooled [B, H]

    pooled = tanh(hidden[:, 0] W + b)

    Backward: only the first position of each sequence was read, so every other gets 0.

        dz = dpooled (1 − pooled²)            z = hidden[:, 0] W + b
        dhidden[:, 0] = dz Wᵀ                 dW = hidden[:, 0]ᵀ dz,   db = Σ_b dz_b
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from refbert.backend import A, Backend, BlockPullback
from refbert.spec.layers import dense


def pooler(ops: Backend[A], p: Mapping[str, A], hidden: Any) -> tuple[A, BlockPullback[A]]:
    """pooled [B, H], and a pullback to (dhidden, gradients by name below ``bert.pooler.``)."""
    B, S, _ = hidden.shape
    first, first_back = ops.gather(hidden, np.arange(B) * S)  # [B, H]
    z, z_back = dense(ops, p, "dense", first)
    pooled, tanh_back = ops.tanh(z)

    def pullback(dpooled: A) -> tuple[A, dict[str, A]]:
        (dz,) = tanh_back(dpooled)
        dfirst, gradients = z_back(dz)
        (dhidden,) = first_back(dfirst)
        return dhidden, gradients

    return pooled, pullback
