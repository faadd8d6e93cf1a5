"""A whole encoder layer for inference: the spec's composition (refbert.spec.encoder.encoder_layer) without its cost.

The same equations in the same order; what differs is where numbers are kept, and who computes them.

* Large intermediates live in buffers that are used again by the next layer: fresh ones cost a page fault for every
  4 KB, which for [N, F] takes as long as the arithmetic on it. Nothing that is returned lives in a buffer.
* Bias, residual and LayerNorm are one pass over blocks of rows that stay in the cache; so are bias and GELU.
* Attention goes by blocks of heads whose scores stay in the cache (refbert_numpy.attention).
* Python's threads share a layer, with BLAS on one thread (refbert_numpy.threads): from `FEW` rows on each takes some of
  the heads and of the feed-forward's features, and they wait for each other three times; from `MANY` rows on, a share
  of the rows through the whole layer, and they wait once, before attention, or not at all where no sequence is cut.

Q, K and V are three products on purpose. One product with the three weights side by side takes 3-5 % less time for that
product, under 1 % of a layer, and costs a copy of them (85 MB for bert-base) that a training step would make stale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from refbert_numpy.attention import BLOCK, KeyMask, attend, head_size, scores_buffer_shape
from refbert_numpy.blocks import blocks
from refbert_numpy.gelu import gelu_in_place
from refbert_numpy.memory import aligned
from refbert_numpy.packed import attend_packed, plan, scores_size
from refbert_numpy.rows import normalize_in_place
from refbert_numpy.threads import Team, shares, threads, whole_sequences

Array = npt.NDArray[Any]

# Who shares a layer, by its rows; behind, ms a forward of bert-base, 1 × 32, 1 × 128, 1 × 512 and 8 × 128 on two cores.
FEW = 64  # below, BLAS's own threads share each product, and nobody the rest: 64, 181, -, 1342
MANY = 640  # below, Python's threads share the heads and features: 67, 173, 685, 1213; from here on, the rows:
#             77, 187, 697, 1175


class Workspace:
    """Buffers by name, each as large as it ever had to be; for one call at a time."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._flat: dict[str, Array] = {}

    def get(self, name: str, *shape: int) -> Array:
        """An uninitialised array of that shape; asking for the same name again gives the same memory."""
        size = math.prod(shape)
        if name not in self._flat or self._flat[name].size < size:
            self._flat[name] = aligned(size, self._dtype)
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
    terms = KeyMask(mask, (B, S), mask_value, x.dtype)

    def attention(t: int, q: Array, k: Array, v: Array, context: Array, heads: int, at: slice) -> None:
        scores = work.get(f"scores of {t}", *scores_buffer_shape(heads, S))
        attend(q, k, v, terms, context, scores, sequences=(B, S), heads=heads, rows=(at.start, at.stop))

    rows = np.ascontiguousarray(x).reshape(N, H)
    form = Form(heads, activation, eps)
    if N < MANY:
        return _by_heads(rows, p, work, attention, form).reshape(x.shape)
    return _by_rows(rows, p, work, (S,) * B, attention, form).reshape(x.shape)


def packed_encoder_layer(
    x: Array, p: Mapping[str, Array], work: Workspace, *, lengths: Array, heads: int, activation: str, eps: float
) -> Array:
    """y [N, H], a new array: sequences end to end."""
    N = len(x)
    each = tuple(int(n) for n in lengths)
    if sum(each) != N:
        raise ValueError(f"the lengths add up to {sum(each)}, but x has {N} rows")

    def attention(t: int, q: Array, k: Array, v: Array, context: Array, heads: int, at: slice) -> None:
        chunks = plan(each, heads, at.start, at.stop, BLOCK)
        attend_packed(q, k, v, context, chunks, heads, work.get(f"scores of {t}", scores_size(chunks)))

    rows = np.ascontiguousarray(x)
    form = Form(heads, activation, eps)
    if N < MANY:
        return _by_heads(rows, p, work, attention, form)
    return _by_rows(rows, p, work, each, attention, form)


@dataclass(frozen=True)
class Form:
    """What is the same for every layer."""

    heads: int
    activation: str
    eps: float


Attend = Callable[[int, Array, Array, Array, Array, int, slice], None]


@lru_cache(maxsize=16)  # every layer asks anew: 0.05 ms for 32 sequences
def _row_parts(lengths: tuple[int, ...], size: int) -> tuple[list[slice], bool]:
    """The rows of each of ``size`` threads, and whether a sequence is cut."""
    starts = np.cumsum((0, *lengths))
    whole = whole_sequences(starts, size)
    if whole is None:
        return shares(int(starts[-1]), size), True
    return [slice(int(starts[b.start]), int(starts[b.stop])) for b in whole], False


def _by_rows(
    rows: Array, p: Mapping[str, Array], work: Workspace, lengths: tuple[int, ...], attention: Attend, form: Form
) -> Array:
    """y [N, H]; a thread takes some of the rows, with all heads: whole sequences where that is fair."""
    N, H = rows.shape
    parts, wait = _row_parts(lengths, threads())
    q, k, v = work.get("qkv", 3, N, H)
    context, attended = work.get("context", N, H), work.get("attended", N, H)
    up = work.get("up", N, len(p["intermediate.dense.bias"]))
    y = np.empty((N, H), rows.dtype)
    team = Team(len(parts))

    def part(t: int) -> None:
        at = parts[t]
        for out, name in ((q, "query"), (k, "key"), (v, "value")):
            np.matmul(rows[at], p[f"attention.self.{name}.weight"].T, out=out[at])
            out[at] += p[f"attention.self.{name}.bias"]
        q[at] *= 1 / math.sqrt(H // form.heads)
        if wait:
            team.sync()
        attention(t, q, k, v, context, form.heads, at)
        np.matmul(context[at], p["attention.output.dense.weight"].T, out=attended[at])
        _residual_layer_norm(attended[at], p, "attention.output", rows[at], form.eps)
        np.matmul(attended[at], p["intermediate.dense.weight"].T, out=up[at])
        _activate_in_place(up[at], p["intermediate.dense.bias"], form.activation)
        np.matmul(up[at], p["output.dense.weight"].T, out=y[at])
        _residual_layer_norm(y[at], p, "output", attended[at], form.eps)

    team.run(part)
    return y


def _by_heads(rows: Array, p: Mapping[str, Array], work: Workspace, attention: Attend, form: Form) -> Array:
    """y [N, H]; a thread takes all rows, with some of the heads and of the feed-forward's features.

    What follows either of them multiplies sums: each thread has the product with its own terms, and they are added up
    (the split of Shoeybi et al. 2019 §3).
    """
    N, H = rows.shape
    D = head_size(H, form.heads)
    F = len(p["intermediate.dense.bias"])
    size = min(threads(), form.heads) if N >= FEW else 1
    heads, features, owned = shares(form.heads, size), shares(F, size), shares(N, size)
    attended, y = work.get("attended", N, H), np.empty((N, H), rows.dtype)
    terms = work.get("terms", size, N, H)
    team = Team(size)

    def add_up(t: int, out: Array) -> Array:
        own = owned[t]
        np.add(terms[0, own], terms[1, own], out=out[own]) if size > 1 else np.copyto(out[own], terms[0, own])
        for other in terms[2:]:
            out[own] += other[own]
        return out[own]

    def part(t: int) -> None:
        at = slice(D * heads[t].start, D * heads[t].stop)
        own = owned[t]
        q, k, v, context = work.get(f"qkv of {t}", 4, N, at.stop - at.start)
        for out, name in ((q, "query"), (k, "key"), (v, "value")):
            np.matmul(rows, p[f"attention.self.{name}.weight"][at].T, out=out)
            out += p[f"attention.self.{name}.bias"][at]
        q *= 1 / math.sqrt(D)
        attention(t, q, k, v, context, heads[t].stop - heads[t].start, slice(0, N))
        np.matmul(context, p["attention.output.dense.weight"][:, at].T, out=terms[t])
        team.sync()
        _residual_layer_norm(add_up(t, attended), p, "attention.output", rows[own], form.eps)
        team.sync()
        at = features[t]
        up = work.get(f"up of {t}", N, at.stop - at.start)
        np.matmul(attended, p["intermediate.dense.weight"][at].T, out=up)
        _activate_in_place(up, p["intermediate.dense.bias"][at], form.activation)
        np.matmul(up, p["output.dense.weight"][:, at].T, out=terms[t])
        team.sync()
        _residual_layer_norm(add_up(t, y), p, "output", attended[own], form.eps)

    team.run(part)
    return y


def _residual_layer_norm(y: Array, p: Mapping[str, Array], name: str, residual: Array, eps: float) -> None:
    """y ← LN(y + bias + residual), in place; the variance from the centred rows, as in the reference."""
    bias = p[f"{name}.dense.bias"]
    gamma, beta = p[f"{name}.LayerNorm.weight"], p[f"{name}.LayerNorm.bias"]
    for at in blocks(*y.shape):
        block = y[at]
        block += bias
        block += residual[at]
        normalize_in_place(block, eps)
        block *= gamma
        block += beta


def _activate_in_place(x: Array, bias: Array, activation: str) -> None:
    if activation == "gelu_tanh" or (activation == "gelu_erf" and x.dtype == np.float32):
        gelu_in_place(x, activation.removeprefix("gelu_"), bias)
        return
    for at in blocks(*x.shape):
        block = x[at]
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
