"""Passes over rows: what stands between the products, over blocks that stay in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from refbert.backend.reference import ReferenceBackend
from refbert.spec.layers import activate
from refbert_numpy.blocks import blocks
from refbert_numpy.gelu import gelu_in_place

Array = npt.NDArray[Any]


class Columns:
    """Sums over rows, by name, each added up block by block: one per thread, then added up over threads in order."""

    def __init__(self) -> None:
        self._sums: dict[str, Array] = {}

    def add(self, name: str, rows: Array) -> None:
        """Add the sum over rows [n, H]: as a product with ones, in half the time of a sum."""
        for block in blocks(*rows.shape):
            part = rows[block]
            self.put(name, np.ones(len(part), rows.dtype) @ part)
        if not len(rows):
            self.put(name, np.zeros(rows.shape[1], rows.dtype))

    def put(self, name: str, vector: Array) -> None:
        """Add a vector [H] that is the caller's no more."""
        if name in self._sums:
            self._sums[name] += vector
        else:
            self._sums[name] = vector

    def names(self) -> list[str]:
        """What was added up."""
        return list(self._sums)

    @staticmethod
    def total(threads: Sequence[Columns], name: str) -> Array:
        """The sum over threads [H]."""
        first, *others = (one._sums[name] for one in threads)
        for other in others:
            first += other
        return first


def sums_by_id(ids: Array, rows: Array) -> tuple[Array, Array]:
    """(each different id [U], the sum of its rows [U, H]); there must be an id."""
    order = np.argsort(ids, kind="stable")
    found = ids[order]
    starts = np.flatnonzero(np.r_[True, found[1:] != found[:-1]])
    return found[starts], np.add.reduceat(rows[order], starts, axis=0)


def affine(xhat: Array, gamma: Array, beta: Array, out: Array) -> None:
    """out ← γ x̂ + β."""
    for block in blocks(*xhat.shape):
        np.multiply(xhat[block], gamma, out=out[block])
        out[block] += beta


def finish_rows(
    h: Array, bias: Array | None, keep: Array | None, rate: float, residual: Array | None, r: Array, eps: float
) -> None:
    """h ← x̂ of dropout(h + bias) + residual [n, H], and r ← 1/√(variance + eps) [n, 1]: LayerNorm without its gain."""
    for block in blocks(*h.shape):
        d = h[block]
        if bias is not None:
            d += bias
        if keep is not None:
            d *= keep[block]
            d /= 1 - rate
        if residual is not None:
            d += residual[block]
        r[block] = normalize_in_place(d, eps)


def normalize_in_place(d: Array, eps: float) -> Array:
    """d [n, H] ← (d − mean)/√(variance + eps) row by row; returns 1/√(variance + eps) [n, 1]."""
    H = d.shape[1]
    mean = np.vecdot(d, np.ones(H, d.dtype))[:, None]  # [n, 1]: a quarter of the time of a mean
    mean /= H
    d -= mean
    r: Array = np.vecdot(d, d)[:, None]  # [n, 1]
    r /= H
    r += eps
    np.sqrt(r, out=r)
    np.divide(1, r, out=r)
    d *= r
    return r


def norm_back(d: Array, xhat: Array, r: Array, gamma: Array, name: str, sums: Columns) -> None:
    """d [n, H] ← LayerNorm's cotangent of its input, from that of its output; dγ and dβ go into ``sums``."""
    H = d.shape[1]
    ones = np.ones(H, d.dtype)
    rows = blocks(*d.shape)
    scratch = np.empty_like(d[rows[0]]) if rows else d
    sums.add(f"{name}.bias", d)
    if not rows:
        sums.put(f"{name}.weight", np.zeros(H, d.dtype))
    for block in rows:
        q, x = d[block], xhat[block]
        tmp = scratch[: len(q)]
        np.multiply(q, x, out=tmp)
        sums.put(f"{name}.weight", np.ones(len(q), q.dtype) @ tmp)
        q *= gamma
        mean_q, mean_qx = (q @ ones)[:, None], np.vecdot(q, x)[:, None]
        mean_q /= H
        mean_qx /= H
        np.multiply(x, mean_qx, out=tmp)
        q -= mean_q
        q -= tmp
        q *= r[block]


def activate_rows(x: Array, bias: Array, slope: Array, activation: str) -> None:
    """x ← act(x + bias), slope ← act′(x + bias), both [n, F]."""
    if activation == "gelu_tanh" or (activation == "gelu_erf" and x.dtype == np.float32):
        gelu_in_place(x, activation.removeprefix("gelu_"), bias, slope)
        return
    reference = ReferenceBackend(x.dtype.name)
    for block in blocks(*x.shape):
        part = x[block]
        part += bias
        y, back = activate(reference, part.copy(), activation)
        part[:] = y
        (slope[block],) = back(np.ones_like(part))
