"""A whole encoder layer for inference: the spec's composition (refbert.spec.encoder.encoder_layer) without its cost.

The same equations in the same order; what differs is where numbers are kept, and who computes them.

* Large intermediates live in buffers that are used again by the next layer: fresh ones cost a page fault for every
  4 KB, which for [N, F] takes as long as the arithmetic on it. Nothing that is returned lives in a buffer.
* Bias, residual and LayerNorm are one pass over blocks of rows that stay in the cache; so are bias and GELU.
* Attention goes by blocks of scores that stay in the cache (refbert_numpy.attention).
* Python's threads share a layer, with BLAS on one thread (refbert_numpy.threads): from `FEW` rows on each takes some of
  the heads and of the feed-forward's features, and they wait for each other three times; from `MANY` rows on, a
  partition of the rows through the whole layer, and they wait once, before attention, or not at all where no sequence
  is cut.

Q, K and V are three products on purpose. One product with the three weights side by side takes 3-5 % less time for that
product, under 1 % of a layer, and costs a copy of them (85 MB for bert-base) that a training step would make stale.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from refbert_numpy import attention
from refbert_numpy.activations import activate_rows
from refbert_numpy.attention import Block, KeyMask, attend, head_size, plan
from refbert_numpy.memory import Array, Workspace
from refbert_numpy.partition import partition, whole_sequences
from refbert_numpy.rows import layer_norm
from refbert_numpy.threads import Team, threads

# Who shares a layer, by its rows; behind, ms a forward of bert-base, 1 × 32, 1 × 128, 1 × 512 and 8 × 128 on two cores.
FEW = 64  # below, BLAS's own threads share each product, and nobody the rest: 64, 181, -, 1342
MANY = 640  # below, Python's threads share the heads and features: 67, 173, 685, 1213; from here on, the rows:
#             77, 187, 697, 1175


@dataclass(frozen=True)
class Form:
    """What is the same for every layer of a model and a batch: the sequences' lengths, whose sum is N, among it."""

    lengths: tuple[int, ...]
    mask: KeyMask | None
    heads: int
    activation: str
    eps: float


def encoder_layer(rows: Array, p: Mapping[str, Array], work: Workspace, form: Form) -> Array:
    """y [N, H], a new array, of sequences end to end."""
    if sum(form.lengths) != len(rows):
        raise ValueError(f"the lengths add up to {sum(form.lengths)}, but x has {len(rows)} rows")
    return (_by_heads if len(rows) < MANY else _by_rows)(np.ascontiguousarray(rows), p, work, form)


@lru_cache(maxsize=16)  # every layer asks anew: 0.05 ms for 32 sequences
def _row_partitions(
    lengths: tuple[int, ...], heads: int, size: int, most: int
) -> tuple[list[slice], list[tuple[Block, ...]], bool]:
    """The rows of each of ``size`` threads, their blocks of scores, and whether a sequence is cut."""
    starts = tuple(itertools.accumulate(lengths, initial=0))
    whole = whole_sequences(starts, size)
    rows = [slice(starts[b.start], starts[b.stop]) for b in whole] if whole else partition(starts[-1], size)
    queries = [tuple(min(max(start, own.start), own.stop) for start in starts) for own in rows]
    return rows, [plan(starts, own, heads, range(len(lengths)), most) for own in queries], whole is None


def _by_rows(rows: Array, p: Mapping[str, Array], work: Workspace, form: Form) -> Array:
    """y [N, H]; a thread takes some of the rows, with all heads: whole sequences where that is fair."""
    N, H = rows.shape
    partitions, blocks, wait = _row_partitions(form.lengths, form.heads, threads(), attention.BLOCK)
    q, k, v = work.get("qkv", 3, N, H)
    context, attended = work.get("context", N, H), work.get("attended", N, H)
    up = work.get("up", N, len(p["intermediate.dense.bias"]))
    y = np.empty((N, H), rows.dtype)
    team = Team(len(partitions))

    def run(t: int) -> None:
        own = partitions[t]
        for out, name in ((q, "query"), (k, "key"), (v, "value")):
            np.matmul(rows[own], p[f"attention.self.{name}.weight"].T, out=out[own])
            out[own] += p[f"attention.self.{name}.bias"]
        q[own] *= 1 / math.sqrt(H // form.heads)
        if wait:
            team.sync()
        attend(q, k, v, context, blocks[t], form.heads, form.mask)
        np.matmul(context[own], p["attention.output.dense.weight"].T, out=attended[own])
        _residual_layer_norm(attended[own], p, "attention.output", rows[own], form.eps)
        np.matmul(attended[own], p["intermediate.dense.weight"].T, out=up[own])
        activate_rows(up[own], p["intermediate.dense.bias"], form.activation)
        np.matmul(up[own], p["output.dense.weight"].T, out=y[own])
        _residual_layer_norm(y[own], p, "output", attended[own], form.eps)

    team.run(run)
    return y


def _by_heads(rows: Array, p: Mapping[str, Array], work: Workspace, form: Form) -> Array:
    """y [N, H]; a thread takes all rows, with some of the heads and of the feed-forward's features.

    What follows either of them multiplies sums: each thread has the product with its own terms, and they are added up
    (the split of Shoeybi et al. 2019 §3).
    """
    N, H = rows.shape
    D = head_size(H, form.heads)
    F = len(p["intermediate.dense.bias"])
    size = min(threads(), form.heads) if N >= FEW else 1
    heads, features, owned = partition(form.heads, size), partition(F, size), partition(N, size)
    starts = tuple(itertools.accumulate(form.lengths, initial=0))
    attended, y = work.get("attended", N, H), np.empty((N, H), rows.dtype)
    terms = work.get("terms", size, N, H)
    team = Team(size)

    def add_up(t: int, out: Array) -> Array:
        own = owned[t]
        np.add(terms[0, own], terms[1, own], out=out[own]) if size > 1 else np.copyto(out[own], terms[0, own])
        for other in terms[2:]:
            out[own] += other[own]
        return out[own]

    def run(t: int) -> None:
        at = slice(D * heads[t].start, D * heads[t].stop)
        count, own = heads[t].stop - heads[t].start, owned[t]
        q, k, v, context = work.get(f"qkv of {t}", 4, N, D * count)
        for out, name in ((q, "query"), (k, "key"), (v, "value")):
            np.matmul(rows, p[f"attention.self.{name}.weight"][at].T, out=out)
            out += p[f"attention.self.{name}.bias"][at]
        q *= 1 / math.sqrt(D)
        blocks = plan(starts, starts, count, range(len(form.lengths)), attention.BLOCK)
        attend(q, k, v, context, blocks, count, form.mask)
        np.matmul(context, p["attention.output.dense.weight"][:, at].T, out=terms[t])
        team.sync()
        _residual_layer_norm(add_up(t, attended), p, "attention.output", rows[own], form.eps)
        team.sync()
        at = features[t]
        up = work.get(f"up of {t}", N, at.stop - at.start)
        np.matmul(attended, p["intermediate.dense.weight"][at].T, out=up)
        activate_rows(up, p["intermediate.dense.bias"][at], form.activation)
        np.matmul(up, p["output.dense.weight"][:, at].T, out=terms[t])
        team.sync()
        _residual_layer_norm(add_up(t, y), p, "output", attended[own], form.eps)

    team.run(run)
    return y


def _residual_layer_norm(y: Array, p: Mapping[str, Array], name: str, residual: Array, eps: float) -> None:
    """y ← LN(y + bias + residual)."""
    gamma, beta = p[f"{name}.LayerNorm.weight"], p[f"{name}.LayerNorm.bias"]
    layer_norm(y, gamma, beta, eps, y, bias=p[f"{name}.dense.bias"], residual=residual)
