"""Embedding lookup: a table of V rows, one row taken per id.

Source   Vaswani et al. 2017 §3.4; Devlin et al. 2019 §3 ("Input/Output Representations", Figure 2): token, segment
         and position embeddings are three such tables. Unlike Vaswani, BERT does not scale by √H.
Shapes   table [V, H], ids [...] of whole numbers in [0, V)  ->  y [..., H]

Equation
    y_n = E[ids_n]

    The same thing as a matrix product: with the one-hot matrix O (O_nv = 1 if ids_n = v, else 0), y = O E.

Gradient
    From y = O E:   dE = Oᵀ dy,   so row v collects the cotangent of every place where v was looked up:

        dE_v = Σ_{n : ids_n = v} dy_n

    Rows that were never looked up get exactly zero, and a repeated id gets the *sum* (not the last value).
    The ids are whole numbers and have no gradient.
"""

from __future__ import annotations

import numpy as np

from refbert.ops.types import Array, Ids, Pullback


def embedding(table: Array, ids: Ids) -> tuple[Array, Pullback]:
    """y = table[ids]. Raises IndexError for an id outside [0, V) (a negative id would silently wrap around)."""
    if ids.size and not (int(ids.min()) >= 0 and int(ids.max()) < table.shape[0]):
        raise IndexError(f"ids must be in [0, {table.shape[0]}), got {int(ids.min())} to {int(ids.max())}")
    y = table[ids]  # [..., H]

    def pullback(dy: Array) -> tuple[Array]:
        dtable = np.zeros_like(table)  # [V, H]
        np.add.at(dtable, ids, dy)  # unbuffered: repeated ids accumulate
        return (dtable,)

    return y, pullback
