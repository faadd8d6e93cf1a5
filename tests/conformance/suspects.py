"""Backends that are wrong by less than rounding may be, each in one way (found as suspects:Name)."""

from __future__ import annotations

import math
import os

import numpy as np
from machines import split, to_bits

from refbert import ops
from refbert.backend.reference import ReferenceBackend
from refbert.ops.attention import _masked, merge_heads, split_heads
from refbert_conformance.cases.inputs import rounded


def cut(x, bits=0):
    """To float32 towards 0, and so many bits fewer."""
    near = np.asarray(x, np.float32)
    near = np.where(abs(near) > abs(x), np.nextafter(near, np.float32(0)), near)
    return (near.view(np.uint32) & np.uint32(0xFFFFFFFF << bits & 0xFFFFFFFF)).view(np.float32)


def raised(x):
    """To float32 towards ∞."""
    near = np.asarray(x, np.float32)
    return np.where(near < x, np.nextafter(near, np.float32(np.inf)), near)


def in_turn(terms, stored):
    """The sum over the first axis, from term to term."""
    found = np.zeros(np.shape(terms)[1:], np.float32)
    for term in terms:
        found = stored(found.astype(np.float64) + term)
    return found


def product(x, z, stored):
    return in_turn((np.outer(x[:, k].astype(np.float64), z[k]) for k in range(len(z))), stored) if len(z) else x @ z


def three(x, z):
    a, b, c, d = (half.astype(np.float32) for one in (x, z) for half in split(one))
    return a @ c + (a @ d + b @ c)


class Float32(ReferenceBackend):
    """Right, and told here how products are made and results kept."""

    dtypes = ("float32",)
    matmul, kept = staticmethod(np.matmul), staticmethod(lambda y: y)

    def linear(self, x, w, b):
        ops.linear(x, w, b)  # raises what it raises
        rows = x.reshape(-1, x.shape[-1])
        y = self.kept(self.matmul(rows, np.ascontiguousarray(w.T)) + b).reshape(*x.shape[:-1], len(w))

        def pullback(dy):
            d = dy.reshape(-1, len(w))
            dw = self.matmul(np.ascontiguousarray(d.T), rows)
            return self.kept(self.matmul(d, w)).reshape(x.shape), self.kept(dw), d.sum(axis=0)

        return y, pullback


class InTurn(Float32):
    """Right: from term to term, rounded to nearest each time."""

    matmul = staticmethod(lambda x, z: product(x, z, np.float32))


class Cuts(Float32):
    """The accumulator cuts."""

    matmul = staticmethod(lambda x, z: product(x, z, cut))


class CutsDeclared(Cuts):
    arithmetic = {"accumulation": "float32-truncated"}  # noqa: RUF012


class Raises(Float32):
    """Results are rounded up."""

    matmul = staticmethod(lambda x, z: raised(x.astype(np.float64) @ z.astype(np.float64)))


class DropsABit(Float32):
    """The last bit of results is 0."""

    kept = staticmethod(lambda y: cut(y, 1))


class DropsABitOfWeights(Float32):
    matmul = staticmethod(lambda x, z: x @ cut(z, 1))


class RoundsABitOff(Float32):
    """The same, to nearest."""

    kept = staticmethod(lambda y: to_bits(np.asarray(y, np.float64), 23).astype(np.float32))


class ThreeProducts(Float32):
    """Three of bfloat16 in the place of one, where the sums are long."""

    matmul = staticmethod(lambda x, z: three(x, z) if len(z) >= 128 else x @ z)


class Scale(ReferenceBackend):
    """1/√D is off by a millionth."""

    dtypes, off = ("float32",), np.float32(1 - 1e-6)

    def attention(self, q, k, v, **options):
        return ops.attention(q * self.off, k, v, **options)


class Sums(ReferenceBackend):
    """Sums that are cut elsewhere: in softmax, LayerNorm, attention's scores, an embedding's gradient."""

    dtypes = ("float32",)

    def attention(self, q, k, v, *, mask, heads, mask_value, keep=None, rate=0.0):
        options = {"mask": mask, "heads": heads, "mask_value": mask_value}
        _, back = ops.attention(q, k, v, **options, keep=keep, rate=rate)
        Q, K = (split_heads(x, heads).astype(np.float64) for x in (q, k))
        D = Q.shape[-1]
        terms = (Q[..., :, None, d] * K[..., None, :, d] for d in range(D))
        scores = in_turn(np.stack(list(terms)), cut) * np.float32(1 / math.sqrt(D))
        p, _ = ops.softmax(_masked(scores, mask.astype(bool), mask_value))
        p = p if keep is None else ops.dropout(p, keep=keep, rate=rate)[0]
        return merge_heads(p @ split_heads(v, heads)).astype(np.float32), back

    def softmax(self, x):
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        p = e / in_turn(np.moveaxis(e, -1, 0), cut)[..., None]
        return p, ops.softmax(x)[1]

    def layer_norm(self, x, gamma, beta, *, eps):
        d = x - x.mean(axis=-1, keepdims=True)
        variance = in_turn(np.moveaxis(d * d, -1, 0), cut)[..., None] / np.float32(x.shape[-1])
        return gamma * (d * (1 / np.sqrt(variance + np.float32(eps)))) + beta, ops.layer_norm(x, gamma, beta, eps=eps)[
            1
        ]

    def embedding(self, table, ids):
        def pullback(dy):
            found = np.zeros_like(table)
            for i, row in zip(np.ravel(ids), dy.reshape(-1, table.shape[1]), strict=True):
                found[i] = cut(found[i].astype(np.float64) + row)
            return (found,)

        return ops.embedding(table, ids)[0], pullback


class Factor(ReferenceBackend):
    """What LayerNorm and dropout multiply by is off."""

    dtypes = ("float32",)

    def layer_norm(self, x, gamma, beta, *, eps):
        _, back = ops.layer_norm(x, gamma, beta, eps=eps)
        y, _ = ops.layer_norm(x, gamma * np.float32(1 - 2e-6), beta, eps=eps)
        return (y if x.shape[-1] > 100 else ops.layer_norm(x, gamma, beta, eps=eps)[0]), back

    def dropout(self, x, *, keep, rate):
        ops.dropout(x, keep=keep, rate=rate)
        factor = np.float32(1 / (1 - rate) * (1 + 1.5e-7))
        return x * keep.astype(bool) * factor, lambda dy: (dy * keep.astype(bool) * factor,)


class Constant(ReferenceBackend):
    """GELU's 0.044715 is off in the sixth digit."""

    dtypes = ("float32",)

    def gelu(self, x, *, form):
        y, back = ops.gelu(x, form=form)
        if form == "tanh":
            with np.errstate(over="ignore"):
                u = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044716) * x * x * x)
            y = x * np.float32(0.5) * (1 + np.tanh(u))
        return y, back


class Bfloat16(ReferenceBackend):
    """Sums in float32, results rounded to bfloat16, of linear alone."""

    dtypes = ("bfloat16",)

    def __init__(self, dtype=None, device=None):
        self.dtype, self.device = "bfloat16", "cpu"

    def asarray(self, x, /):
        return rounded(x, "bfloat16").astype(np.float32)

    def to_numpy(self, x, /):
        return x

    kept = staticmethod(lambda y: rounded(y, "bfloat16").astype(np.float32))
    matmul, linear = staticmethod(np.matmul), Float32.linear


class Bfloat16Cuts(Bfloat16):
    kept = staticmethod(lambda y: cut(y, 16))


class Dies(Float32):
    """Where it is asked for many results at once; GELU raises there, and sums are NaN."""

    def add(self, x, z):
        y, back = ops.add(x, z)
        return (y * np.float32(np.nan) if x.size == 16384 else y), back

    def tanh(self, x):
        if x.size == 16384:
            os._exit(5)
        return ops.tanh(x)

    def gelu(self, x, *, form):
        if x.size == 16384:
            raise MemoryError("no room")
        return ops.gelu(x, form=form)
