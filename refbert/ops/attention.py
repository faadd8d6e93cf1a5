"""Multi-head scaled dot-product attention, without its projections.

Source   Vaswani et al. 2017 §3.2.1 eq. 1 and §3.2.2; dropout on the probabilities: Google's modeling.py
         (attention_layer: "This is actually dropping out entire tokens to attend to, which might seem a bit unusual,
         but is taken from the original Transformer paper").
Shapes   q, k, v [B, S, H], mask [B, S] (1 where a key is visible), keep [B, A, S, S] or None  ->  y [B, S, H]
         Head a owns the features a·D … (a+1)·D − 1.

Equation (per sequence and head)
    p = softmax(q kᵀ/√D + mask)          see refbert.ops.attention_probabilities
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

from refbert.ops.attention_probabilities import attention_probabilities, merge_heads, split_heads
from refbert.ops.dropout import dropout
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
