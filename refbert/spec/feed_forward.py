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

from refbert.backend import A, Backend, BlockPullback, KeepMasks
from refbert.spec.choices import Choices
from refbert.spec.layers import activate, add_and_norm, dense


def feed_forward(
    ops: Backend[A], p: Mapping[str, A], x: A, c: Choices, *, site: str = "", draws: KeepMasks | None = None
) -> tuple[A, BlockPullback[A]]:
    """y [B, S, H], and a pullback to (dx, gradients by name below the layer)."""
    z, z_back = dense(ops, p, "intermediate.dense", x)
    g, activation_back = activate(ops, z, c.activation)
    o, o_back = dense(ops, p, "output.dense", g)
    y, norm_back = add_and_norm(ops, p, x, o, c, site=f"{site}.output", draws=draws)

    def pullback(dy: A) -> tuple[A, dict[str, A]]:
        dx, do, norm = norm_back(dy)
        dg, output = o_back(do)
        (dz,) = activation_back(dg)
        dx_up, intermediate = z_back(dz)
        dx, _ = ops.add(dx, dx_up)
        return dx, intermediate | output | norm

    return y, pullback
