"""Multi-head scaled dot-product attention, without its projections.

Source   Vaswani et al. 2017 §3.2.1 eq. 1 and §3.2.2; dropout on the probabilities: Google's modeling.py
         (attention_layer: "This is actually dropping out entire tokens to attend to, which might seem a bit unusual,
         but is taken from the original Transformer paper").
Shapes   q, k, v [B, S, H], mask [B, S] (1 where a key is visible), keep [B, A, S, S] or None  ->  y [B, S, H]
         Head a owns the features a·D … (a+1)·D − 1.

Equation (per sequence and head)
    p = softmax(q kᵀ/√D + mask)          see attention_probabilities below
    p̃ = p keep / (1 − rate)              see refbert.ops.dropout; p̃ = p without it
    y_i = Σ_j p̃_ij v_j                   y = p̃ v, heads side by side: Concat(head_1, …, head_A)

    W^Q, W^K, W^V before and W^O after are linear maps of their own (refbert.spec.attention).

Gradient
    y = p̃ v is a matrix product per head:

        dp̃_ij = dy_i · v_j                dp̃ = dy vᵀ
        dv_j  = Σ_i p̃_ij dy_i             dv = p̃ᵀ dy

    Then dp = dropout's pullback of dp̃, and (dq, dk) = the probabilities' pullback of dp.

Checks that follow
    Rows of p sum to 1, so a constant added to every v adds that constant to y; adding the same vector to every k
    shifts each row of scores by a constant and changes nothing (hence the key bias has gradient 0).
"""

from __future__ import annotations

import math

import numpy as np

from refbert.ops.dropout import dropout
from refbert.ops.softmax import softmax
from refbert.ops.types import Array, Mask, Pullback


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Mask,
    heads: int,
    mask_value: float,
    keep: Mask | None = None,
    rate: float = 0.0,
) -> tuple[Array, Pullback]:
    """y = dropout(softmax(q kᵀ/√D + mask)) v per head, heads concatenated. Raises ValueError as its parts do."""
    p, probabilities_back = attention_probabilities(q, k, mask=mask, heads=heads, mask_value=mask_value)
    p_dropped, dropout_back = dropout(p, keep=keep, rate=rate) if keep is not None else (p, None)
    V = split_heads(v, heads)  # [B, A, S, D]
    y = merge_heads(p_dropped @ V)  # [B, S, H]

    def pullback(dy: Array) -> tuple[Array, Array, Array]:
        dY = split_heads(dy, heads)  # [B, A, S, D]
        dp: Array = dY @ V.swapaxes(-1, -2)  # [B, A, S, S]
        dV = p_dropped.swapaxes(-1, -2) @ dY  # [B, A, S, D]
        if dropout_back is not None:
            (dp,) = dropout_back(dp)
        dq, dk = probabilities_back(dp)
        return dq, dk, merge_heads(dV)

    return y, pullback


def attention_probabilities(q: Array, k: Array, *, mask: Mask, heads: int, mask_value: float) -> tuple[Array, Pullback]:
    """Which position looks at which, p = softmax(q kᵀ/√D + mask) per head. Raises ValueError unless heads divides H.

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
                     rest, which is 0 in every dtype here; a row with *no* visible key shifts as a whole and attends as
                     if it had no mask at all, up to the rounding of scores of size 10⁴ (1e-12 in float64, 1e-3 in
                     float32).
          −∞         (profile "hf")  masked keys get probability exactly 0. A row with no visible key attends uniformly:
                     p_ij = 1/S. Hugging Face adds the most negative finite number, against which every score is lost in
                     rounding; 1/S is what comes out.

    Gradient
        The mask term is a constant, so ds = softmax's pullback of dp (ds_ij = p_ij (dp_ij − Σ_l p_il dp_il), zero at
        masked keys because p is). Then s = q kᵀ/√D is two products:

            dq_i = 1/√D Σ_j ds_ij k_j           dk_j = 1/√D Σ_i ds_ij q_i

        In a row with no visible key under −∞, ds is softmax's pullback at p = 1/S: the scores still receive the
        gradient that Hugging Face's autograd gives them (the constant was added, the scores were not cut off).

    Where the papers are silent
        Sequence length 1: the one key gets p = 1, masked or not, and ds = 0. An empty batch gives an empty result.
    """
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
