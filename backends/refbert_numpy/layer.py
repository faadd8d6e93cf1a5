"""A whole encoder layer for inference: the spec's composition (refbert.spec.encoder.encoder_layer) without its cost.

The same equations in the same order; what differs is where numbers are kept.

* Large intermediates live in buffers that are used again by the next layer: fresh ones cost a page fault for every
  4 KB, which for [N, F] takes as long as the arithmetic on it. Nothing that is returned lives in a buffer.
* Bias, residual and LayerNorm are one pass over blocks of rows that stay in the cache; so are bias and GELU.
* Attention goes by blocks of heads whose scores stay in the cache (refbert_numpy.attention).

Q, K and V are three products on purpose. One product with the three weights side by side takes 3-5 % less time for that
product, under 1 % of a layer, and costs a copy of them (85 MB for bert-base) that a training step would make stale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from refbert_numpy.attention import KeyMask, attend, scores_buffer_shape, split
from refbert_numpy.gelu import gelu_in_place

Array = npt.NDArray[Any]

ROWS = 128  # rows of a block: 128 · 768 float32 numbers are 400 kB


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
    q *= 1 / math.sqrt(H // heads)
    context = work.get("context", N, H)
    Q, K, V, C = (split(part.reshape(B, S, H), heads) for part in (q, k, v, context))
    buffer = work.get("scores", *scores_buffer_shape(heads, S))
    attend(Q, K, V, KeyMask(mask, (B, S), mask_value, x.dtype), C, buffer)

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
    if activation == "gelu_tanh" or (activation == "gelu_erf" and x.dtype == np.float32):
        gelu_in_place(x, activation.removeprefix("gelu_"), bias)
        return
    for start in range(0, len(x), ROWS):
        block = x[start : start + ROWS]
        block += bias
        if activation == "relu":
            np.maximum(block, 0, out=block)
        elif activation == "tanh":
            np.tanh(block, out=block)
        elif activation == "gelu_erf":
            from scipy.special import erfc  # float64 only: here, because importing it takes longer than many runs

            block *= 0.5 * erfc(block * -math.sqrt(0.5))
        elif activation != "linear":
            raise ValueError(f'unknown activation "{activation}"')
