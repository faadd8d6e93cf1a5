"""Attention probabilities: which position looks at which, per head.

Source   Vaswani et al. 2017 §3.2.1 eq. 1 (the softmax factor) and §3.2.2 (heads). Masking: Google's modeling.py
         (attention_layer) and Hugging Face's eager attention; the papers mask only in the decoder.
Shapes   q [B, S, H], k [B, S, H], mask [B, S] (1 where a key is visible)  ->  p [B, A, S, S], H = A·D
         Head a owns the features a·D … (a+1)·D − 1: [B, S, A·D] -> [B, A, S, D].

Equation (per sequence and head; i a query, j a key)
    s_ij = q_i · k_j / √D
    p_i  = softmax_j(s_ij + mask term)

    Why √D: for independent entries of mean 0 and variance 1, Var(q_i · k_j) = D (Vaswani footnote 4); the division
    brings the scores back to variance 1, away from where softmax saturates.

    The mask is on *keys*, for all queries alike. Two semantics, chosen by `mask_value`:
      −10000.0   (profile "google")  added to the scores of masked keys. Their weight is e^{−10000} relative to the
                 rest, which is 0 in every dtype here; a row with *no* visible key shifts as a whole and attends as if
                 it had no mask at all, up to the rounding of scores of size 10⁴ (1e-12 in float64, 1e-3 in float32).
      −∞         (profile "hf")  masked keys get probability exactly 0. A row with no visible key attends uniformly:
                 p_ij = 1/S. Hugging Face adds the most negative finite number, against which every score is lost in
                 rounding; 1/S is what comes out.

Gradient
    The mask term is a constant, so ds = softmax's pullback of dp (ds_ij = p_ij (dp_ij − Σ_l p_il dp_il), zero at
    masked keys because p is). Then s = q kᵀ/√D is two products:

        dq_i = 1/√D Σ_j ds_ij k_j           dk_j = 1/√D Σ_i ds_ij q_i

    In a row with no visible key under −∞, ds is softmax's pullback at p = 1/S: the scores still receive the gradient
    that Hugging Face's autograd gives them (the constant was added, the scores were not cut off).

Where the papers are silent
    Sequence length 1: the one key gets p = 1, masked or not, and ds = 0. An empty batch gives an empty result.
"""

from __future__ import annotations

import math

import numpy as np

from refbert.ops.softmax import softmax
from refbert.ops.types import Array, Mask, Pullback


def attention_probabilities(q: Array, k: Array, *, mask: Mask, heads: int, mask_value: float) -> tuple[Array, Pullback]:
    """p = softmax(q kᵀ/√D + mask) per head. Raises ValueError if H is not a multiple of heads."""
    Q, K = split_heads(q, heads), split_heads(k, heads)  # [B, A, S, D]
    scale = 1 / math.sqrt(Q.shape[-1])
    scores = Q @ K.swapaxes(-1, -2) * scale  # [B, A, S, S]
    p, softmax_back = softmax(_masked(scores, mask.astype(bool), mask_value))

    def pullback(dp: Array) -> tuple[Array, Array]:
        (ds,) = softmax_back(dp)  # [B, A, S, S]
        dQ = ds @ K * scale  # [B, A, S, D]
        dK = ds.swapaxes(-1, -2) @ Q * scale  # [B, A, S, D]
        return merge_heads(dQ), merge_heads(dK)

    return p, pullback


def split_heads(x: Array, heads: int) -> Array:
    """[B, S, A·D] -> [B, A, S, D]. Raises ValueError if the features are not a multiple of heads."""
    B, S, H = x.shape
    if H % heads:
        raise ValueError(f"{H} features do not divide into {heads} heads")
    return x.reshape(B, S, heads, H // heads).swapaxes(1, 2)


def merge_heads(x: Array) -> Array:
    """[B, A, S, D] -> [B, S, A·D], the Concat of Vaswani et al. §3.2.2."""
    B, A, S, D = x.shape
    return x.swapaxes(1, 2).reshape(B, S, A * D)


def _masked(scores: Array, visible: Mask, mask_value: float) -> Array:
    visible = visible[:, None, None, :]  # [B, 1, 1, S]: the same keys for every head and query
    if mask_value != -math.inf:
        return np.where(visible, scores, scores + mask_value)
    some = visible.any(axis=-1, keepdims=True)  # [B, 1, 1, 1]
    return np.where(some, np.where(visible, scores, -math.inf), np.zeros_like(scores))
