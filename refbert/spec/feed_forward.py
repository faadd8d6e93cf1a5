"""The feed-forward sublayer: up, activation, down, residual, LayerNorm; each position on its own.

Source   Vaswani et al. 2017 §3.3 eq. 2 and §3.1; F = 4H and GELU: Devlin et al. 2019 §3 footnote 3 and A.2.
Shapes   x [B, S, H]  ->  y [B, S, H], through [B, S, F]

    y = LN(x + dropout(act(x W₁ + b₁) W₂ + b₂))

    Backward: x is used twice, as the residual and as the input of W₁.

        z = x W₁ + b₁,   g = act(z)           o = g W₂ + b₂,   u = x + dropout(o)

        du = LN's pullback of dy              do = dropout's pullback of du
        dg = do W₂ᵀ                           dz = act′(z) dg
        dx = du + dz W₁ᵀ

        dW₁ = xᵀ dz,   db₁ = Σ_n dz_n         dW₂ = gᵀ do,   db₂ = Σ_n do_n
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from refbert.backend import Backend, BlockPullback
from refbert.randomness import Dropout
from refbert.spec.choices import Choices
from refbert.spec.parts import activate, dropout

A = TypeVar("A")


def feed_forward(
    ops: Backend[A], p: Mapping[str, A], x: A, c: Choices, *, site: str = "", draws: Dropout | None = None
) -> tuple[A, BlockPullback[A]]:
    """y [B, S, H], and a pullback to (dx, gradients by name below the layer)."""
    up, up_back = ops.linear(x, p["intermediate.dense.weight"], p["intermediate.dense.bias"])
    active, active_back = activate(ops, up, c.activation)
    down, down_back = ops.linear(active, p["output.dense.weight"], p["output.dense.bias"])
    dropped, dropout_back = dropout(ops, down, site=f"{site}.output", rate=c.hidden_dropout, draws=draws)
    added, add_back = ops.add(x, dropped)
    y, norm_back = ops.layer_norm(added, p["output.LayerNorm.weight"], p["output.LayerNorm.bias"], eps=c.layer_norm_eps)

    def pullback(dy: A) -> tuple[A, dict[str, A]]:
        dadded, dgamma, dbeta = norm_back(dy)
        dx, ddropped = add_back(dadded)
        (ddown,) = dropout_back(ddropped)
        dactive, dw2, db2 = down_back(ddown)
        (dup,) = active_back(dactive)
        dx_up, dw1, db1 = up_back(dup)
        dx, _ = ops.add(dx, dx_up)
        return dx, {
            "intermediate.dense.weight": dw1,
            "intermediate.dense.bias": db1,
            "output.dense.weight": dw2,
            "output.dense.bias": db2,
            "output.LayerNorm.weight": dgamma,
            "output.LayerNorm.bias": dbeta,
        }

    return y, pullback
