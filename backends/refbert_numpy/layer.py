"""A whole encoder layer for inference: the spec's composition (refbert.spec.encoder.encoder_layer) without its cost.

The same equations in the same order; what differs is where numbers are kept, and who computes them.

* Large intermediates live in buffers that are used again by the next layer: fresh ones cost a page fault for every
  4 KB, which for [N, F] takes as long as the arithmetic on it. Nothing that is returned lives in a buffer.
* Bias, residual and LayerNorm are one pass over blocks of rows that stay in the cache; so are bias and GELU.
* Attention goes by blocks of heads whose scores stay in the cache (refbert_numpy.attention).
* From `ENOUGH` rows on, each thread takes its share of the rows through the whole layer, with BLAS on one thread
  (refbert_numpy.threads). Threads wait for each other once, before attention, and not at all where no sequence is cut.

Q, K and V are three products on purpose. One product with the three weights side by side takes 3-5 % less time for that
product, under 1 % of a layer, and costs a copy of them (85 MB for bert-base) that a training step would make stale.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from refbert_numpy.attention import KeyMask, attend, scores_buffer_shape
from refbert_numpy.gelu import gelu_in_place
from refbert_numpy.packed import attend_packed, scores_size
from refbert_numpy.threads import Team, threads

Array = npt.NDArray[Any]

ROWS = 128  # rows of a block: 128 · 768 float32 numbers are 400 kB
ENOUGH = 256  # rows from which threads of Python's share a layer; below, BLAS's own threads do better


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
    terms = KeyMask(mask, (B, S), mask_value, x.dtype)
    size = _team_size(B * S)
    bounds = [B * S * t // size for t in range(size + 1)]
    scores = [work.get(f"scores of {t}", *scores_buffer_shape(heads, S)) for t in range(size)]

    def attention(t: int, q: Array, k: Array, v: Array, context: Array) -> None:
        attend(q, k, v, terms, context, scores[t], sequences=(B, S), heads=heads, rows=(bounds[t], bounds[t + 1]))

    rows = np.ascontiguousarray(x).reshape(B * S, H)
    cut = any(bound % max(1, S) for bound in bounds)
    return _layer(rows, p, work, bounds, attention, wait=cut, heads=heads, activation=activation, eps=eps).reshape(
        x.shape
    )


def packed_encoder_layer(
    x: Array, p: Mapping[str, Array], work: Workspace, *, lengths: Array, heads: int, activation: str, eps: float
) -> Array:
    """y [N, H], a new array: sequences end to end, each thread with whole ones."""
    N = len(x)
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(int)
    if ends[-1] != N:
        raise ValueError(f"the lengths add up to {ends[-1]}, but x has {N} rows")
    size = min(_team_size(N), max(1, len(lengths)))
    first = [int(np.abs(ends - N * t / size).argmin()) for t in range(size)] + [len(lengths)]  # of each thread
    parts = [np.asarray(lengths)[a:b] for a, b in itertools.pairwise(first)]
    scores = [work.get(f"scores of {t}", scores_size(part, heads)) for t, part in enumerate(parts)]
    bounds = [int(ends[i]) for i in first]

    def attention(t: int, q: Array, k: Array, v: Array, context: Array) -> None:
        at = slice(bounds[t], bounds[t + 1])
        attend_packed(q[at], k[at], v[at], context[at], parts[t], heads, scores[t])

    return _layer(
        np.ascontiguousarray(x), p, work, bounds, attention, wait=False, heads=heads, activation=activation, eps=eps
    )


def _team_size(rows: int) -> int:
    return threads() if rows >= ENOUGH else 1


def _layer(
    rows: Array,
    p: Mapping[str, Array],
    work: Workspace,
    bounds: Sequence[int],
    attention: Callable[[int, Array, Array, Array, Array], None],
    *,
    wait: bool,
    heads: int,
    activation: str,
    eps: float,
) -> Array:
    """y [N, H]; thread t takes rows bounds[t] to bounds[t + 1], and ``attention`` fills in their context."""
    N, H = rows.shape
    q, k, v = work.get("qkv", 3, N, H)
    context, attended = work.get("context", N, H), work.get("attended", N, H)
    up = work.get("up", N, len(p["intermediate.dense.bias"]))
    y = np.empty((N, H), rows.dtype)
    team = Team(len(bounds) - 1)

    def part(t: int) -> None:
        at = slice(bounds[t], bounds[t + 1])
        for out, name in ((q, "query"), (k, "key"), (v, "value")):
            np.matmul(rows[at], p[f"attention.self.{name}.weight"].T, out=out[at])
            out[at] += p[f"attention.self.{name}.bias"]
        q[at] *= 1 / math.sqrt(H // heads)
        if wait:
            team.sync()
        attention(t, q, k, v, context)
        np.matmul(context[at], p["attention.output.dense.weight"].T, out=attended[at])
        _residual_layer_norm(attended[at], p, "attention.output", rows[at], eps)
        np.matmul(attended[at], p["intermediate.dense.weight"].T, out=up[at])
        _activate_in_place(up[at], p["intermediate.dense.bias"], activation)
        np.matmul(up[at], p["output.dense.weight"].T, out=y[at])
        _residual_layer_norm(y[at], p, "output", attended[at], eps)

    team.run(part)
    return y


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
