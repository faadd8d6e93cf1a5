"""Linear map with bias: every projection in BERT.

Source   Vaswani et al. 2017 §3.2.2 (W^Q, W^K, W^V, W^O) and §3.3 eq. 2 (W₁, b₁, W₂, b₂);
         Devlin et al. 2019 §4.1 (classification layer W ∈ R^{K×H}).
Shapes   x [..., I], w [O, I], b [O]  ->  y [..., O]
         w is stored as checkpoints of PyTorch store it, one *row* per output; the papers write x W, so W = wᵀ.

Equation
    y_no = Σ_i x_ni w_oi + b_o              y = x wᵀ + b

Gradient
    L depends on y only, with cotangent dy_no = ∂L/∂y_no. By the chain rule, term by term:

        ∂y_no/∂x_ni = w_oi   =>   dx_ni = Σ_o dy_no w_oi        dx = dy w
        ∂y_no/∂w_oi = x_ni   =>   dw_oi = Σ_n dy_no x_ni        dw = dyᵀ x
        ∂y_no/∂b_o  = 1      =>   db_o  = Σ_n dy_no             db = Σ_n dy_n

    The sums over n run over all N rows, whatever leading axes they came from.
"""

from __future__ import annotations

from refbert.ops.types import Array, Pullback


def linear(x: Array, w: Array, b: Array) -> tuple[Array, Pullback]:
    """y = x wᵀ + b."""
    y = x @ w.T + b  # [..., O]

    def pullback(dy: Array) -> tuple[Array, Array, Array]:
        dx = dy @ w  # [..., I]
        rows = dy.reshape(-1, w.shape[0])  # [N, O]
        dw = rows.T @ x.reshape(-1, w.shape[1])  # [O, I]
        db = rows.sum(axis=0)  # [O]
        return dx, dw, db

    return y, pullback
