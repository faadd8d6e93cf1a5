"""The self-attention sublayer: projections, attention, output projection, residual, LayerNorm.

Source   Vaswani et al. 2017 §3.1 (LN(x + Sublayer(x))) and §3.2.2 (MultiHead = Concat(head_1 … head_A) W^O);
         Google's modeling.py transformer_model. Dropout: on the probabilities, and on the sublayer's output before
         the residual (Vaswani §5.4).
Shapes   x [B, S, H], mask [B, S]  ->  y [B, S, H]

    q = x W_Q + b_Q        k = x W_K + b_K        v = x W_V + b_V
    a = Attention(q, k, v)                        heads side by side
    y = LN(x + dropout(a W_O + b_O))

    Backward: x is used four times, as the residual and as the input of the three projections, so dx is the sum of
    four cotangents. With u = x + dropout(o), o = a W_O + b_O:

        du = LN's pullback of dy              do = dropout's pullback of du
        da = do W_Oᵀ                          dq, dk, dv = Attention's pullback of da
        dx = du + dq W_Qᵀ + dk W_Kᵀ + dv W_Vᵀ

        dW_Q = xᵀ dq,   db_Q = Σ_n dq_n       and so for K and V; dW_O = aᵀ do, db_O = Σ_n do_n

    db_K = 0: the same vector added to every key moves all scores of a query together, which softmax does not see.
"""

from __future__ import annotations

from collections.abc import Mapping

from refbert.backend import A, Backend, BlockPullback, Host, KeepMasks
from refbert.spec.choices import Choices
from refbert.spec.layers import add_and_norm, dense


def self_attention(
    ops: Backend[A], p: Mapping[str, A], x: A, mask: Host, c: Choices, *, site: str = "", draws: KeepMasks | None = None
) -> tuple[A, BlockPullback[A]]:
    """y [B, S, H], and a pullback to (dx, gradients by name below ``attention.``)."""
    q, q_back = dense(ops, p, "self.query", x)
    k, k_back = dense(ops, p, "self.key", x)
    v, v_back = dense(ops, p, "self.value", x)
    keep = None
    if draws is not None and c.attention_dropout > 0:
        B, S = mask.shape
        keep = draws.keep(f"{site}.attention.self", (B, c.heads, S, S), c.attention_dropout)
    a, attention_back = ops.attention(
        q, k, v, mask=mask, heads=c.heads, mask_value=c.mask_value, keep=keep, rate=c.attention_dropout
    )
    o, o_back = dense(ops, p, "output.dense", a)
    y, norm_back = add_and_norm(ops, p, x, o, c, site=f"{site}.attention.output", draws=draws)

    def pullback(dy: A) -> tuple[A, dict[str, A]]:
        dx, do, norm = norm_back(dy)
        da, output = o_back(do)
        dq, dk, dv = attention_back(da)
        dx_q, query = q_back(dq)
        dx_k, key = k_back(dk)
        dx_v, value = v_back(dv)
        for other in (dx_q, dx_k, dx_v):
            dx, _ = ops.add(dx, other)
        return dx, query | key | value | output | norm

    return y, pullback


def attention_map(ops: Backend[A], p: Mapping[str, A], x: A, mask: Host, c: Choices) -> A:
    """The layer's attention probabilities [B, A, S, S], for looking at: computed again, without dropout."""
    q, _ = dense(ops, p, "self.query", x)
    k, _ = dense(ops, p, "self.key", x)
    probabilities, _ = ops.attention_probabilities(q, k, mask=mask, heads=c.heads, mask_value=c.mask_value)
    return probabilities
