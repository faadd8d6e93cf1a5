"""For every op: what PyTorch computes, what the definition says at 100 digits, and how far rounding may carry it.

A case is one call. ``torch`` is PyTorch's own kernel; ``exact`` the definition in mpmath, for the complex step;
``bound`` maps the arrays and the cotangent to (y, cotangents) in `oracles.Rounded`, through the textbook formula.
``torch_bound`` is the same for a formula of PyTorch's that loses more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mpmath
import numpy as np
import oracles as o
import torch
import torch.nn.functional as F
from oracles import Rounded, constant, exp, log, mp_erfc, mp_exp, mp_log, mp_sqrt, mp_tanh, rounded, sqrt

from refbert import ops


@dataclass
class Case:
    op: Callable[..., Any]
    arrays: tuple[np.ndarray, ...]
    torch: Callable[..., Any]
    bound: Callable[..., Any]
    exact: Callable[..., Any]
    host: tuple[np.ndarray, ...] = ()  # ids, masks and labels, which an op must not change either
    torch_bound: Callable[..., Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, *arrays):
        return self.op(*(arrays or self.arrays), **self.options)


# How the numbers lie: what is exact on one of these is wrong on another.
REGIMES = ("normal", "offset", "constant rows", "integers", "mixed scales", "tiny")


def fill(rng, regime, shape):
    z = rng.standard_normal(shape)
    match regime:
        case "offset":
            return 100 + z
        case "constant rows":
            return np.broadcast_to(z[..., :1], shape).copy()
        case "integers":
            return np.round(3 * z)
        case "mixed scales":
            return z * 10 ** rng.uniform(-3, 2, shape)
        case "tiny":
            return 1e-160 * z
    return z


# -- the cases: (rng, regime, sizes) -> Case; sizes are a batch that may be 0, and three that may not -----------------


def add(rng, regime, sizes):
    x, z = fill(rng, regime, sizes[:3]), fill(rng, "normal", sizes[:3])
    return Case(ops.add, (x, z), torch.add, lambda x, z, dy: (rounded(x) + z, (rounded(dy), rounded(dy))), np.add)


def reshape(rng, regime, sizes):
    x, shape = fill(rng, regime, sizes), (sizes[0] * sizes[2], sizes[3], sizes[1])
    return Case(
        lambda x: ops.reshape(x, shape),
        (x,),
        lambda x: x.reshape(shape),
        lambda x, dy: (rounded(x).reshape(shape), (rounded(dy).reshape(x.shape),)),
        lambda x: x.reshape(shape),
    )


def transpose(rng, regime, sizes):
    x, axes = fill(rng, regime, sizes), (1, 2, 3, 0)  # a permutation that is not its own inverse
    return Case(
        lambda x: ops.transpose(x, axes),
        (x,),
        lambda x: x.permute(axes),
        lambda x, dy: (rounded(x).transpose(axes), (rounded(dy).transpose((3, 0, 1, 2)),)),
        lambda x: x.transpose(axes),
    )


def _lookup(table, ids, dy):
    one_hot = np.eye(len(table))[ids.reshape(-1)]  # [N, V]
    return rounded(one_hot.T) @ dy.reshape(-1, table.shape[1])


def embedding(rng, regime, sizes):
    a, b, c, d = sizes
    table = fill(rng, regime, (c + 2, d))
    ids = rng.integers(0, c, (a, b))  # some repeated, and the last two rows never
    return Case(
        lambda table: ops.embedding(table, ids),
        (table,),
        lambda table: F.embedding(torch.from_numpy(ids), table),
        lambda table, dy: (rounded(table[ids]), (_lookup(table, ids, dy),)),
        lambda table: table[ids],
        host=(ids,),
    )


def gather(rng, regime, sizes):
    a, b, c, d = sizes
    x = fill(rng, regime, (a, b, d))
    positions = rng.integers(0, a * b, c) if a else np.zeros(0, int)
    return Case(
        lambda x: ops.gather(x, positions),
        (x,),
        lambda x: x.reshape(-1, d).index_select(0, torch.from_numpy(positions)),
        lambda x, dy: (
            rounded(x.reshape(-1, d)[positions]),
            (_lookup(x.reshape(-1, d), positions, dy).reshape(x.shape),),
        ),
        lambda x: x.reshape(-1, d)[positions],
        host=(positions,),
    )


def linear(rng, regime, sizes):
    a, b, c, d = sizes
    x, w, bias = fill(rng, regime, (a, b, c)), fill(rng, "normal", (d, c)), fill(rng, "normal", (d,))

    def bound(x, w, b, dy):
        rows = rounded(dy.reshape(-1, len(w)))
        dw = rows.mT @ x.reshape(-1, w.shape[1])
        return rounded(x) @ w.T + b, (rounded(dy) @ w, dw, rows.sum(axis=0))

    return Case(ops.linear, (x, w, bias), F.linear, bound, lambda x, w, b: x @ w.T + b)


EPS = 1e-12


def layer_norm(rng, regime, sizes):
    a, b, c, d = sizes
    H = c + d
    arrays = (fill(rng, regime, (a, b, H)), fill(rng, "normal", (H,)), fill(rng, "normal", (H,)))
    return Case(
        ops.layer_norm,
        arrays,
        lambda x, gamma, beta: F.layer_norm(x, (H,), gamma, beta, EPS),
        layer_norm_bound,
        layer_norm_exact,
        torch_bound=layer_norm_torch_bound,
        options={"eps": EPS},
    )


def layer_norm_exact(x, gamma, beta):
    H = x.shape[-1]
    mu = x.sum(axis=-1, keepdims=True) / H
    variance = ((x - mu) * (x - mu)).sum(axis=-1, keepdims=True) / H
    return (x - mu) / mp_sqrt(variance + mpmath.mpf(EPS)) * gamma + beta


def layer_norm_bound(x, gamma, beta, dy):
    x, rows = rounded(x), tuple(range(dy.ndim - 1))
    d = x - x.mean()
    r = 1 / sqrt((d * d).mean() + EPS)
    xhat = d * r
    q = rounded(dy) * gamma
    dx = r * (q - q.mean() - xhat * (q * xhat).mean())
    return xhat * gamma + beta, (dx, (xhat * dy).sum(axis=rows), rounded(dy).sum(axis=rows))


def layer_norm_torch_bound(x, gamma, beta, dy):
    """PyTorch's CPU kernel: mean and variance updated entry by entry, y = x·r − μ·r, and dx in powers of x itself."""
    x, dy, rows, H = rounded(x), rounded(dy), tuple(range(dy.ndim - 1)), x.shape[-1]
    mu = x.mean()
    # An updated mean takes a division more per entry: twice the roundings, relative to the largest entry.
    mu = Rounded(mu.value, mu.error + 2 * H * o.U * np.abs(x.value).max(axis=-1, keepdims=True))
    d = x - mu
    r = 1 / sqrt((d * d).mean() + EPS)
    xhat = x * r - mu * r
    q = dy * gamma
    b = (q.sum(keepdims=True) * mu - (q * x).sum(keepdims=True)) * (r * r * r) / H
    dx = r * q + b * x - (b * mu + q.sum(keepdims=True) * r / H)
    return xhat * gamma + beta, (dx, (xhat * dy).sum(axis=rows), dy.sum(axis=rows))


def gelu_erf(rng, regime, sizes):
    x = 3 * fill(rng, regime, sizes[1:])
    return Case(
        ops.gelu,
        (x,),
        F.gelu,
        gelu_erf_bound,
        gelu_erf_exact,
        options={"form": "erf"},
        torch_bound=gelu_erf_torch_bound,
    )


def gelu_erf_exact(x):
    return x * mp_erfc(-x / mpmath.sqrt(2)) / 2


def _normal_density(x):
    return exp(rounded(-0.5) * x * x) / constant(math.sqrt(2 * math.pi), 2)


def gelu_erf_bound(x, dy):
    x = rounded(x)
    Phi = o.erfc(-x / constant(math.sqrt(2), 1)) * 0.5
    return x * Phi, (rounded(dy) * (Phi + x * _normal_density(x)),)


def gelu_erf_torch_bound(x, dy):
    """½(1 + erf): cancels where x is far below 0."""
    x = rounded(x)
    Phi = (1 + o.erf(x * constant(math.sqrt(0.5), 1))) * 0.5
    return x * Phi, (rounded(dy) * (Phi + x * _normal_density(x)),)


def gelu_tanh(rng, regime, sizes):
    x = 3 * fill(rng, regime, sizes[1:])
    return Case(
        ops.gelu,
        (x,),
        lambda x: F.gelu(x, approximate="tanh"),
        gelu_tanh_bound,
        gelu_tanh_exact,
        options={"form": "tanh"},
        torch_bound=gelu_tanh_torch_bound,
    )


def gelu_tanh_exact(x):
    u = mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x * x * x)
    return x / (1 + mp_exp(-2 * u))


def _tanh_argument(x):
    c, a = constant(math.sqrt(2 / math.pi), 2), constant(0.044715, 1)
    return c * (x + a * x * x * x), c * (1 + 3 * a * x * x)


def gelu_tanh_bound(x, dy):
    x = rounded(x)
    u, u_prime = _tanh_argument(x)
    T, complement = exp(-o.softplus(-2.0 * u)), exp(-o.softplus(2.0 * u))
    return x * T, (rounded(dy) * (T + 2.0 * x * T * complement * u_prime),)


def gelu_tanh_torch_bound(x, dy):
    """½(1 + tanh) and 1 − tanh², which cancel in the tails."""
    x = rounded(x)
    u, u_prime = _tanh_argument(x)
    t = o.tanh(u)
    return 0.5 * x * (1 + t), (rounded(dy) * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * u_prime),)


def relu(rng, regime, sizes):
    x = fill(rng, regime, sizes[1:])
    return Case(
        ops.relu,
        (x,),
        F.relu,
        lambda x, dy: (rounded(np.where(x > 0, x, 0)), (rounded(np.where(x > 0, dy, 0)),)),
        lambda x: np.where([mpmath.re(z) > 0 for z in x.flat], x.ravel(), mpmath.mpf(0)).reshape(x.shape),
    )


def tanh(rng, regime, sizes):
    x = fill(rng, regime, sizes[1:])
    return Case(ops.tanh, (x,), torch.tanh, tanh_bound, mp_tanh)


def tanh_bound(x, dy):
    y = o.tanh(rounded(x))
    return y, (rounded(dy) * (1 - y) * (1 + y),)


def softmax(rng, regime, sizes):
    x = fill(rng, regime, sizes[:3])
    return Case(ops.softmax, (x,), lambda x: torch.softmax(x, -1), softmax_bound, softmax_exact)


def softmax_exact(x):
    e = mp_exp(x)
    return e / e.sum(axis=-1, keepdims=True)


def _probabilities(x):
    e = exp(x - x.max())
    return e / e.sum(keepdims=True)


def _probabilities_back(p, dp):
    return p * (dp - (p * dp).sum(keepdims=True))


def softmax_bound(x, dp):
    p = _probabilities(rounded(x))
    return p, (_probabilities_back(p, rounded(dp)),)


def split(x, heads):
    B, S, H = x.shape
    return x.reshape(B, S, heads, H // heads).swapaxes(1, 2)


def merge(x):
    B, A, S, D = x.shape
    return x.swapaxes(1, 2).reshape(B, S, A * D)


def _split_torch(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class Attention:
    """Attention with one set of options, in three arithmetics."""

    def __init__(self, mask, heads, mask_value, keep=None, rate=0.0):
        self.mask, self.heads, self.mask_value, self.keep, self.rate = mask, heads, mask_value, keep, rate
        self.scale = 1 if keep is None else keep / (1 - mpmath.mpf(rate))

    # PyTorch, as Hugging Face's eager attention has it: the most negative number is added where a key is masked.
    def probabilities_torch(self, q, k):
        Q, K = _split_torch(q, self.heads), _split_torch(k, self.heads)
        scores = Q @ K.transpose(-1, -2) / math.sqrt(Q.shape[-1])
        value = max(self.mask_value, torch.finfo(torch.float64).min)
        hidden = torch.from_numpy(1.0 - self.mask)[:, None, None, :]
        return torch.softmax(scores + hidden * value, dim=-1)

    def torch(self, q, k, v):
        p = self.probabilities_torch(q, k)
        if self.keep is not None:
            p = p * torch.from_numpy(self.keep) / (1 - self.rate)
        return (p @ _split_torch(v, self.heads)).transpose(1, 2).flatten(2)

    # mpmath: exponentials need no shift. e^−10000 is below every bound but is kept.
    def probabilities_exact(self, q, k):
        Q, K = split(q, self.heads), split(k, self.heads)
        e = mp_exp(Q @ K.swapaxes(-1, -2) / mpmath.sqrt(Q.shape[-1]))
        weight = mpmath.exp(self.mask_value) if self.mask_value > -math.inf else mpmath.mpf(0)
        e = e * np.where(self.mask, mpmath.mpf(1), weight)[:, None, None, :]
        return e / e.sum(axis=-1, keepdims=True)

    def exact(self, q, k, v):
        return merge(self.probabilities_exact(q, k) * self.scale @ split(v, self.heads))

    # Rounding
    def probabilities_rounded(self, q, k):
        Q, K = split(rounded(q), self.heads), split(rounded(k), self.heads)
        scale = constant(1 / math.sqrt(Q.shape[-1]), 2)
        scores, visible = Q @ K.mT * scale, (self.mask != 0)[:, None, None, :]
        if self.mask_value > -math.inf:
            scores = o.where(visible, scores, scores + self.mask_value)
        else:
            some = visible.any(axis=-1, keepdims=True)
            scores = o.where(some, o.where(visible, scores, -math.inf), 0.0)
        return Q, K, scale, _probabilities(scores)

    def probabilities_bound(self, q, k, dp):
        Q, K, scale, p = self.probabilities_rounded(q, k)
        ds = _probabilities_back(p, rounded(dp))
        return p, (merge(ds @ K * scale), merge(ds.mT @ Q * scale))

    def bound(self, q, k, v, dy):
        p = self.probabilities_rounded(q, k)[-1]
        V, dY = split(rounded(v), self.heads), split(rounded(dy), self.heads)
        dropped, dp = p, dY @ V.mT
        if self.keep is not None:
            dropped, dp = (t * self.keep / constant(1 - self.rate, 1) for t in (p, dp))
        _, (dq, dk) = self.probabilities_bound(q, k, dp)
        return merge(dropped @ V), (dq, dk, merge(dropped.mT @ dY))


def _mask(rng, B, S, kind):
    """Keys visible at random; in kind "some" at least one per row, in "none" the first sequence has none."""
    mask = rng.integers(0, 2, (B, S))
    if kind == "some" and B:
        mask[np.arange(B), rng.integers(0, S, B)] = 1
    if kind == "none" and B:
        mask[0] = 0
    return mask


def _attention(mask_value, kind, dropout=False, probabilities=False):
    def case(rng, regime, sizes):
        B, S, A, D = sizes
        H, scale = A * D, 0.1 if regime in ("offset", "mixed scales") else 1.0  # scores of a few hundred at most
        q, k, v = (
            scale * fill(rng, regime, (B, S, H)),
            scale * fill(rng, regime, (B, S, H)),
            fill(rng, regime, (B, S, H)),
        )
        mask = _mask(rng, B, S, kind)
        keep, rate = (rng.random((B, A, S, S)) < 0.7, 0.3) if dropout else (None, 0.0)
        f = Attention(mask, A, mask_value, keep, rate)
        options = {"mask": mask, "heads": A, "mask_value": mask_value}
        host = (mask,) if keep is None else (mask, keep)
        if probabilities:
            oracles = f.probabilities_torch, f.probabilities_bound, f.probabilities_exact
            return Case(ops.attention_probabilities, (q, k), *oracles, host=host, options=options)
        if dropout:
            options |= {"keep": keep, "rate": rate}
        return Case(ops.attention, (q, k, v), f.torch, f.bound, f.exact, host=host, options=options)

    return case


def dropout(rng, regime, sizes):
    x, rate = fill(rng, regime, sizes[:3]), 0.1
    keep = rng.random(x.shape) >= rate
    return Case(
        ops.dropout,
        (x,),
        lambda x: x * torch.from_numpy(keep) / (1 - rate),
        lambda x, dy: (rounded(x) * keep / constant(1 - rate, 1), (rounded(dy) * keep / constant(1 - rate, 1),)),
        lambda x: x * keep / (1 - mpmath.mpf(rate)),
        host=(keep,),
        options={"keep": keep, "rate": rate},
    )


def cross_entropy(rng, regime, sizes):
    a, b, c, d = sizes
    z, C = fill(rng, regime, (a, b, c + d)), c + d
    labels = np.where(rng.random((a, b)) < 0.3, ops.IGNORE, rng.integers(0, C, (a, b)))
    denominator = 2.0 * a + 1e-5
    c, labelled = labels[labels != ops.IGNORE], labels.reshape(-1) != ops.IGNORE

    def exact(z):
        z = z.reshape(-1, C)[labelled]
        return ((mp_log(mp_exp(z).sum(axis=-1)) - z[np.arange(len(c)), c]).sum() + mpmath.mpf(0)) / denominator

    def bound(z, dy):
        rows, n = rounded(z.reshape(-1, C)[labelled]), np.arange(len(c))
        shifted = rows - rows.max()
        e = exp(shifted)
        s = e.sum(keepdims=True)
        loss = (log(s)[:, 0] - shifted[n, c]).sum(axis=0) * (rounded(1.0) / denominator)
        one = np.zeros(rows.shape)
        one[n, c] = 1
        dz = (e / s - one) * (rounded(dy) * (rounded(1.0) / denominator))
        value, error = np.zeros((labelled.size, C)), np.zeros((labelled.size, C))
        value[labelled], error[labelled] = dz.value, dz.error
        return loss, (Rounded(value, error).reshape(z.shape),)

    return Case(
        lambda z: ops.cross_entropy(z, labels, denominator=denominator),
        (z,),
        lambda z: (
            F.cross_entropy(z.reshape(-1, C), torch.from_numpy(labels.reshape(-1)), reduction="sum") / denominator
        ),
        bound,
        exact,
        host=(labels,),
    )


def mean_squared_error(rng, regime, sizes):
    x, targets, denominator = fill(rng, regime, sizes[:2]), rng.standard_normal(sizes[:2]), 7.0

    def bound(x, dy):
        difference, per_row = rounded(x) - targets, rounded(1.0) / denominator
        loss = (difference * difference).reshape(-1).sum(axis=0) * per_row
        return loss, (difference * (2.0 * rounded(dy) * per_row),)

    return Case(
        lambda x: ops.mean_squared_error(x, targets, denominator=denominator),
        (x,),
        lambda x: F.mse_loss(x, torch.from_numpy(targets), reduction="sum") / denominator,
        bound,
        lambda x: (((x - o.mp(targets)) * (x - o.mp(targets))).sum() + mpmath.mpf(0)) / denominator,
        host=(targets,),
    )


GOOGLE, HF = -10000.0, -math.inf
CASES = {
    "add": add,
    "reshape": reshape,
    "transpose": transpose,
    "embedding": embedding,
    "gather": gather,
    "linear": linear,
    "layer_norm": layer_norm,
    "gelu erf": gelu_erf,
    "gelu tanh": gelu_tanh,
    "relu": relu,
    "tanh": tanh,
    "softmax": softmax,
    "attention_probabilities google": _attention(GOOGLE, "none", probabilities=True),
    "attention_probabilities hf": _attention(HF, "some", probabilities=True),
    "attention google": _attention(GOOGLE, "any"),
    "attention google, no visible key": _attention(GOOGLE, "none"),
    "attention hf": _attention(HF, "some"),
    "attention hf, no visible key": _attention(HF, "none"),
    "attention with dropout": _attention(HF, "some", dropout=True),
    "dropout": dropout,
    "cross_entropy": cross_entropy,
    "mean_squared_error": mean_squared_error,
}
# Under −∞ a row without a visible key is the limit of an added constant: it has a gradient, but is not a function
# whose derivative that is. PyTorch alone can oracle it.
ANALYTIC = tuple(name for name in CASES if name != "attention hf, no visible key")


def make(name, regime, sizes, seed):
    """(case, a random cotangent of its result)."""
    rng = np.random.default_rng(seed)
    case = CASES[name](rng, regime, sizes)
    y, _ = case()
    return case, rng.standard_normal(np.shape(y))
