"""Gather of positions: some rows of a batch of vectors, flattened.

Source   Devlin et al. 2019 §3.1 ("we only predict the masked words") and Google's run_pretraining.py
         (gather_indexes): the masked-LM head projects only the labelled positions onto the vocabulary.
         The pooler's "take [CLS]" (§3) is the gather of each sequence's first position.
Shapes   x [..., H], seen as M rows of H; positions [P] of whole numbers in [0, M)  ->  y [P, H]
         (position s of sequence b in x [B, S, H] is row b·S + s)

Equation
    y_p = x[positions_p]

Gradient
    As for the embedding lookup (y = O x with a one-hot O):

        dx_m = Σ_{p : positions_p = m} dy_p       and zero for rows that were not gathered.
"""

from __future__ import annotations

import numpy as np

from refbert.ops.types import Array, Ids, Pullback


def gather(x: Array, positions: Ids) -> tuple[Array, Pullback]:
    """y = rows of x at positions. Raises IndexError for a position outside [0, M)."""
    rows = x.reshape(-1, x.shape[-1])  # [M, H]
    if positions.size and not (int(positions.min()) >= 0 and int(positions.max()) < rows.shape[0]):
        raise IndexError(f"positions must be in [0, {rows.shape[0]}), "
                         f"got {int(positions.min())} to {int(positions.max())}")  # fmt: skip
    y = rows[positions]  # [P, H]

    def pullback(dy: Array) -> tuple[Array]:
        drows = np.zeros_like(rows)  # [M, H]
        np.add.at(drows, positions, dy)
        return (drows.reshape(x.shape),)

    return y, pullback
