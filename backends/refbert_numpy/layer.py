"""A whole encoder layer for inference: the spec's composition (refbert.spec.encoder.encoder_layer) without its cost.

The same equations in the same order; what differs is where numbers are kept.

* Large intermediates live in buffers that are used again by the next layer: fresh ones cost a page fault for every
  4 KB, which for [N, F] takes as long as the arithmetic on it. Nothing that is returned lives in a buffer.
* Bias, residual and LayerNorm are one pass over blocks of rows that stay in the cache; so are bias and GELU.
* Attention goes sequence by sequence, so that the scores [A, S, S] stay in the cache; 1/√D is multiplied into q, and
  the division by softmax's sums is done on the context, which is S/D times smaller than the probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from refbert_numpy.gelu import gelu_in_place

Array = npt.NDArray[Any]

ROWS = 128  # rows of a LayerNorm block: 128 · 768 float32 numbers are 400 kB


class Workspace:
    """Buffers by name, each as large as it ever had to be. One per backend: not for use from several threads."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._flat: dict[str, Array] = {}

    def get(self, name: str, *shape: int) -> Array:
        """An uninitialised array of that shape; asking for the same name again gives the same memory."""
        size = math.prod(shape)
        if name not in self._flat or self._flat[name].size < size:
            self._flat[name] = np.empty(size, self._dtype)
        return self._flat[name][:size].reshape(shape)


def encoder_layer(
    x: Array,
    p: Mapping[str, Array],
    work: Workspace,
    *,
    mask: Array,
    heads: int,
    mask_value: float,
    activation: str,
    eps: float,
) -> Array:
    """y [B, S, H], a new array."""
    B, S, H = x.shape
    N = B * S
    rows = np.ascontiguousarray(x).reshape(N, H)

    q, k, v = work.get("qkv", 3, N, H)
    for out, name in ((q, "query"), (k, "key"), (v, "value")):
        np.matmul(rows, p[f"attention.self.{name}.weight"].T, out=out)
        out += p[f"attention.self.{name}.bias"]
    context = work.get("context", N, H)
    _attention(q, k, v, context, work, np.asarray(mask).astype(bool), heads, mask_value)

    attended = work.get("attended", N, H)
    np.matmul(context, p["attention.output.dense.weight"].T, out=attended)
    _residual_layer_norm(attended, p, "attention.output", rows, eps)

    up = work.get("up", N, len(p["intermediate.dense.bias"]))
    np.matmul(attended, p["intermediate.dense.weight"].T, out=up)
    _activate_in_place(up, p["intermediate.dense.bias"], activation)

    y = np.empty((N, H), x.dtype)
    np.matmul(up, p["output.dense.weight"].T, out=y)
    _residual_layer_norm(y, p, "output", attended, eps)
    return y.reshape(B, S, H)


def _attention(
    q: Array, k: Array, v: Array, context: Array, work: Workspace, visible: Array, heads: int, mask_value: float
) -> None:
    """context ← softmax(q kᵀ/√D + mask) v; q is scaled in place."""
    B, S = visible.shape
    D = q.shape[1] // heads
    q *= 1 / math.sqrt(D)
    scores = work.get("scores", heads, S, S)
    bias = np.where(visible, 0, mask_value).astype(q.dtype)  # [B, S]
    bias[~visible.any(axis=1)] = mask_value if math.isfinite(mask_value) else 0
    for b in range(B):
        rows = slice(b * S, (b + 1) * S)
        Q, K, V = (x[rows].reshape(S, heads, D).swapaxes(0, 1) for x in (q, k, v))  # [A, S, D]
        if math.isfinite(mask_value) or visible[b].any():
            np.matmul(Q, K.swapaxes(1, 2), out=scores)
            if not visible[b].all():
                scores += bias[b]
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
        else:
            scores.fill(1)  # no visible key under −∞: uniform
        C = scores @ V  # [A, S, D]
        C /= scores.sum(axis=-1, keepdims=True)
        context[rows].reshape(S, heads, D)[...] = C.swapaxes(0, 1)


def _residual_layer_norm(y: Array, p: Mapping[str, Array], name: str, residual: Array, eps: float) -> None:
    """y ← LN(y + bias + residual), in place; the variance from the centred rows, as in the truth."""
    bias = p[f"{name}.dense.bias"]
    gamma, beta = p[f"{name}.LayerNorm.weight"], p[f"{name}.LayerNorm.bias"]
    for start in range(0, len(y), ROWS):
        block = y[start : start + ROWS]
        block += bias
        block += residual[start : start + ROWS]
        normalize_in_place(block, eps)
        block *= gamma
        block += beta


def normalize_in_place(d: Array, eps: float) -> Array:
    """d ← (d − mean)/√(variance + eps) row by row; returns 1/√(variance + eps) [n, 1]."""
    H = d.shape[1]
    d -= d.mean(axis=1, keepdims=True)
    r: Array = np.vecdot(d, d)[:, None]  # [n, 1]
    r /= H
    r += eps
    np.sqrt(r, out=r)
    np.divide(1, r, out=r)
    d *= r
    return r


def _activate_in_place(x: Array, bias: Array, activation: str) -> None:
    if activation == "gelu_erf" and x.dtype == np.float32:
        gelu_in_place(x, bias)
        return
    for start in range(0, len(x), ROWS):
        block = x[start : start + ROWS]
        block += bias
        if activation == "relu":
            np.maximum(block, 0, out=block)
        elif activation == "tanh":
            np.tanh(block, out=block)
        elif activation == "gelu_tanh":
            gelu_tanh_in_place(block)
        elif activation == "gelu_erf":
            from scipy.special import erfc

            block *= 0.5 * erfc(block * -math.sqrt(0.5))
        elif activation != "linear":
            raise ValueError(f'unknown activation "{activation}"')


def gelu_tanh_in_place(x: Array) -> None:
    """x ← ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))."""
    t = x * x
    t *= 0.044715
    t += 1
    t *= x
    t *= math.sqrt(2 / math.pi)
    np.tanh(t, out=t)
    t += 1
    t *= 0.5
    x *= t
