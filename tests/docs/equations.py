"""The equations of refbert.ops a second time, with plain numbers and loops, line by line as they are shown."""

from __future__ import annotations

import cmath
import math

import numpy as np
from calculus import agree, delta, erf, forward_and_back, jacobian, largest, lse, shown, softmax

from refbert import ops


@shown("add", "y = x + z", "∂y/∂x = ∂y/∂z = 1", "dx = dz = dy")
def add(rng):
    x, z, dy = rng.standard_normal((3, 2, 3))
    forward_and_back(ops.add, lambda x, z: [[a + b for a, b in zip(*r, strict=True)] for r in zip(x, z, strict=True)],
                     [x, z], dy)  # fmt: skip
    for gradient in ops.add(x, z)[1](dy):
        agree(gradient, dy)


@shown(
    "linear",
    "y_no = Σ_i x_ni w_oi + b_o              y = x wᵀ + b",
    "∂y_no/∂x_ni = w_oi   =>   dx_ni = Σ_o dy_no w_oi        dx = dy w",
    "∂y_no/∂w_oi = x_ni   =>   dw_oi = Σ_n dy_no x_ni        dw = dyᵀ x",
    "∂y_no/∂b_o  = 1      =>   db_o  = Σ_n dy_no             db = Σ_n dy_n",
)
def linear(rng):
    x, w, b, dy = (rng.standard_normal(s) for s in ((4, 3), (2, 3), (2,), (4, 2)))

    def f(x, w, b):
        return [[sum(a * c for a, c in zip(r, s, strict=True)) + t for s, t in zip(w, b, strict=True)] for r in x]

    dx, dw, db = forward_and_back(ops.linear, f, [x, w, b], dy)
    agree(dx, [[sum(dy[n, o] * w[o, i] for o in range(2)) for i in range(3)] for n in range(4)])
    agree(dw, [[sum(dy[n, o] * x[n, i] for n in range(4)) for i in range(3)] for o in range(2)])
    agree(db, [sum(dy[n, o] for n in range(4)) for o in range(2)])
    agree(jacobian(lambda v: f([v], w, b)[0], x[0]), w)


@shown(
    "layer_norm",
    "μ  = 1/H Σ_j x_j",
    "σ² = 1/H Σ_j (x_j − μ)²                 the biased variance",
    "r  = 1 / √(σ² + ε)",
    "x̂  = (x − μ) r",
    "y  = γ x̂ + β                            elementwise",
    "dγ_j = Σ_n dy_nj x̂_nj       dβ_j = Σ_n dy_nj       q ≡ dx̂ = dy γ",
    "∂d_i/∂x_j  = δ_ij − 1/H",
    "∂σ²/∂x_j   = 2/H Σ_i d_i (δ_ij − 1/H) = 2 d_j/H            because Σ_i d_i = 0",
    "∂r/∂x_j    = −½ (σ² + ε)^{−3/2} ∂σ²/∂x_j = −r³ d_j/H",
    "∂x̂_i/∂x_j  = r (δ_ij − 1/H) + d_i (−r³ d_j/H) = r (δ_ij − 1/H − x̂_i x̂_j/H)",
    "dx_j = Σ_i q_i ∂x̂_i/∂x_j = r ( q_j − 1/H Σ_i q_i − x̂_j · 1/H Σ_i q_i x̂_i )",
    "dx = r (q − mean(q) − x̂ mean(q x̂))",
    "Σ_j dx_j = 0 always, and a cotangent with constant q gives dx = 0",
)
def layer_norm(rng):
    N, H, eps = 3, 5, 0.01
    x, dy, gamma, beta = (rng.standard_normal(s) for s in ((N, H), (N, H), (H,), (H,)))

    def parts(x):
        mu = sum(x) / H
        variance = sum((v - mu) ** 2 for v in x) / H
        r = 1 / cmath.sqrt(variance + eps)
        return mu, variance, r, [(v - mu) * r for v in x]

    def f(x, gamma, beta):
        return [[g * v + b for g, v, b in zip(gamma, parts(row)[3], beta, strict=True)] for row in x]

    dx, dgamma, dbeta = forward_and_back(ops.layer_norm, f, [x, gamma, beta], dy, eps=eps)
    xhat = np.real([parts(row)[3] for row in x])
    agree(dgamma, [sum(dy[n, j] * xhat[n, j] for n in range(N)) for j in range(H)])
    agree(dbeta, [sum(dy[n, j] for n in range(N)) for j in range(H)])
    for n in range(N):
        mu, variance, r, _ = parts(x[n])
        r, d, q, s = r.real, x[n] - mu, dy[n] * gamma, xhat[n]
        agree(
            jacobian(lambda v: [a - sum(v) / H for a in v], x[n]),
            [[delta(i, j) - 1 / H for j in range(H)] for i in range(H)],
        )
        agree(sum(d), 0)
        dvariance = jacobian(lambda v: parts(v)[1], x[n])
        agree(dvariance, [2 / H * sum(d[i] * (delta(i, j) - 1 / H) for i in range(H)) for j in range(H)])
        agree(dvariance, 2 * d / H)
        dr = jacobian(lambda v: parts(v)[2], x[n])
        agree(dr, -0.5 * (variance + eps) ** -1.5 * dvariance)
        agree(dr, -(r**3) * d / H)
        dxhat = jacobian(lambda v: parts(v)[3], x[n])
        agree(dxhat, [[r * (delta(i, j) - 1 / H) + d[i] * (-(r**3) * d[j] / H) for j in range(H)] for i in range(H)])
        agree(dxhat, [[r * (delta(i, j) - 1 / H - s[i] * s[j] / H) for j in range(H)] for i in range(H)])
        agree(dx[n], [sum(q[i] * dxhat[i, j] for i in range(H)) for j in range(H)])
        agree(dx[n], [r * (q[j] - sum(q) / H - s[j] * sum(q * s) / H) for j in range(H)])
        agree(sum(dx[n]), 0)
    agree(ops.layer_norm(x, np.ones(H), beta, eps=eps)[1](np.full((N, H), 3.0))[0], np.zeros((N, H)))


@shown("relu", "y = max(0, x)", "dy/dx = 1 for x > 0 and 0 for x < 0", "At x = 0, where there is no derivative")
def relu(rng):
    x, dy = rng.standard_normal((2, 20))
    forward_and_back(ops.relu, lambda x: [largest([0j, v]) for v in x], [x], dy)
    agree(ops.relu(np.array([2.5, -1e-9, 0.0]))[1](np.array([3.0, 3, 3]))[0], [3, 0, 0])


@shown(
    "tanh",
    "y = tanh x = (eˣ − e^{−x}) / (eˣ + e^{−x})",
    "d tanh x/dx = 1 − tanh² x, so dx = dy (1 − y²) = dy (1 − y)(1 + y)",
)
def tanh(rng):
    x, dy = rng.standard_normal((2, 20))

    def f(x):
        return [(cmath.exp(v) - cmath.exp(-v)) / (cmath.exp(v) + cmath.exp(-v)) for v in x]

    (dx,) = forward_and_back(ops.tanh, f, [x], dy)
    y = np.real(f(x))
    agree(y, [math.tanh(v) for v in x])
    agree(jacobian(f, x).diagonal(), [1 - math.tanh(v) ** 2 for v in x])
    agree(dx, [a * (1 - b * b) for a, b in zip(dy, y, strict=True)])
    agree(dx, [a * (1 - b) * (1 + b) for a, b in zip(dy, y, strict=True)])


@shown(
    "gelu",
    "y = x Φ(x),     Φ(x) = ½ (1 + erf(x/√2)),     the standard normal distribution function",
    "the same Φ(x) = ½ erfc(−x/√2)",
    "Φ′(x) = φ(x) = e^{−x²/2}/√(2π), so   dy/dx = Φ(x) + x φ(x).",
)
def gelu_erf(rng):
    x, dy = rng.uniform(-2, 2, (2, 20))

    def Phi(x):
        return 0.5 * (1 + erf(x / math.sqrt(2)))

    (dx,) = forward_and_back(ops.gelu, lambda x: [v * Phi(v) for v in x], [x], dy, form="erf")
    agree([Phi(v) for v in x], [0.5 * math.erfc(-v / math.sqrt(2)) for v in x])
    phi = [math.exp(-v * v / 2) / math.sqrt(2 * math.pi) for v in x]
    agree([Phi(v + 1e-30j).imag / 1e-30 for v in x], phi)
    agree(dx, [a * (Phi(v) + v * b) for a, v, b in zip(dy, x, phi, strict=True)])


@shown(
    "gelu",
    "y = x T(x),     T(x) = ½ (1 + tanh u),     u = √(2/π) (x + 0.044715 x³)",
    "½ (1 + tanh u) = 1/(1 + e^{−2u}) = exp(−log(e⁰ + e^{−2u}))",
    "T′ = ½ (1 − tanh² u) u′ = 2 T (1 − T) u′ with u′ = √(2/π) (1 + 3·0.044715 x²), so",
    "dy/dx = T + 2 x T (1 − T) u′,       1 − T = 1/(1 + e^{2u}) in the same way.",
)
def gelu_tanh(rng):
    x, dy = rng.uniform(-2, 2, (2, 20))

    def u(x):
        return math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)

    def T(x):
        return 0.5 * (1 + cmath.tanh(u(x)))

    (dx,) = forward_and_back(ops.gelu, lambda x: [v * T(v) for v in x], [x], dy, form="tanh")
    for v, cotangent, gradient in zip(x, dy, dx, strict=True):
        agree(T(v), 1 / (1 + math.exp(-2 * u(v))))
        agree(T(v), math.exp(-math.log(math.exp(0) + math.exp(-2 * u(v)))))
        agree(1 - T(v), 1 / (1 + math.exp(2 * u(v))))
        du = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * v**2)
        agree(u(v + 1e-30j).imag / 1e-30, du)
        agree(T(v + 1e-30j).imag / 1e-30, 0.5 * (1 - math.tanh(u(v)) ** 2) * du)
        agree(T(v + 1e-30j).imag / 1e-30, 2 * T(v) * (1 - T(v)) * du)
        agree(gradient, cotangent * (T(v) + 2 * v * T(v) * (1 - T(v)) * du))


@shown(
    "softmax",
    "p_j = e^{x_j} / Σ_k e^{x_k}  =  e^{x_j − m} / Σ_k e^{x_k − m},     m = max_k x_k",
    "With s = Σ_k e^{x_k}:   ∂p_i/∂x_j = e^{x_i} δ_ij/s − e^{x_i} e^{x_j}/s² = p_i (δ_ij − p_j).   Contract with dp:",
    "dx_j = Σ_i dp_i p_i (δ_ij − p_j) = p_j (dp_j − t),        t = Σ_i p_i dp_i",
    "Σ_j dx_j = t − t = 0",
)
def softmax_(rng):
    C = 4
    x, dp = rng.standard_normal((2, 3, C))
    (dx,) = forward_and_back(
        ops.softmax, lambda x: [[cmath.exp(v) / sum(map(cmath.exp, r)) for v in r] for r in x], [x], dp
    )
    for n in range(3):
        e = [math.exp(v) for v in x[n]]
        s, p = sum(e), [v / sum(e) for v in e]
        agree(np.real(softmax(x[n].tolist())), p)
        dpdx = jacobian(lambda v: [cmath.exp(a) / sum(map(cmath.exp, v)) for a in v], x[n])
        agree(dpdx, [[e[i] * delta(i, j) / s - e[i] * e[j] / s**2 for j in range(C)] for i in range(C)])
        agree(dpdx, [[p[i] * (delta(i, j) - p[j]) for j in range(C)] for i in range(C)])
        t = sum(a * b for a, b in zip(p, dp[n], strict=True))
        agree(dx[n], [sum(dp[n, i] * p[i] * (delta(i, j) - p[j]) for i in range(C)) for j in range(C)])
        agree(dx[n], [p[j] * (dp[n, j] - t) for j in range(C)])
        agree(sum(dx[n]), 0)


@shown(
    "cross_entropy",
    "ℓ_n  = −log softmax(z_n)_{c_n} = lse(z_n) − z_{n,c_n},      lse(z) = m + log Σ_k e^{z_k − m},   m = max_k z_k",
    "loss = 1/M Σ_{n labelled} ℓ_n",
    "∂lse/∂z_j = e^{z_j}/Σ_k e^{z_k} = p_j and ∂z_c/∂z_j = δ_jc, so for a cotangent d of the scalar loss",
    "dz_nj = d/M (p_nj − δ_{j,c_n})   for labelled rows,       0 for ignored ones.",
    "M = 0 makes the loss 0 with zero gradients",
)
def cross_entropy(rng):
    z, labels, M, d = rng.standard_normal((4, 3)), np.array([2, ops.IGNORE, 0, 1]), 2.5, np.array(1.7)

    def f(z):
        return sum(-cmath.log(softmax(row)[c]) for row, c in zip(z, labels, strict=True) if c != ops.IGNORE) / M

    (dz,) = forward_and_back(ops.cross_entropy, f, [z], d, labels=labels, denominator=M)
    for row, c, gradient in zip(z, labels, dz, strict=True):
        p = np.real(softmax(row.tolist()))
        agree(jacobian(lse, row), p)
        agree(p, [math.exp(v) / sum(math.exp(w) for w in row) for v in row])
        agree(gradient, [0 if c == ops.IGNORE else d / M * (p[j] - delta(j, c)) for j in range(3)])
        if c != ops.IGNORE:
            agree(-math.log(p[c]), (lse(row.tolist()) - row[c]).real)
    loss, pullback = ops.cross_entropy(z, labels, denominator=0.0)
    assert loss == 0
    assert not pullback(d)[0].any()


@shown(
    "mean_squared_error",
    "loss = 1/M Σ_n (x_n − t_n)²            M is the caller's denominator; M = 0 makes the loss 0",
    "dx_n = d · 2 (x_n − t_n)/M             for a cotangent d of the scalar loss",
)
def mean_squared_error(rng):
    (x, t), M, d = rng.standard_normal((2, 5)), 3.5, np.array(-0.7)
    (dx,) = forward_and_back(
        ops.mean_squared_error, lambda x: sum((a - b) ** 2 for a, b in zip(x, t, strict=True)) / M, [x], d,
        targets=t, denominator=M,
    )  # fmt: skip
    agree(dx, [d * 2 * (a - b) / M for a, b in zip(x, t, strict=True)])
    assert ops.mean_squared_error(x, t, denominator=0.0)[0] == 0


@shown(
    "dropout",
    "y = x keep / (1 − rate)            keep_n ~ Bernoulli(1 − rate), so that E[y] = x",
    "dx = dy keep / (1 − rate)",
)
def dropout(rng):
    (x, dy), keep, rate = rng.standard_normal((2, 6)), np.array([1, 0, 1, 1, 0, 1]), 0.3
    f = lambda x: [v * k / (1 - rate) for v, k in zip(x, keep, strict=True)]  # noqa: E731
    (dx,) = forward_and_back(ops.dropout, f, [x], dy, keep=keep, rate=rate)
    agree(dx, [v * k / (1 - rate) for v, k in zip(dy, keep, strict=True)])
    kept, dropped = (ops.dropout(x, keep=np.full(6, k), rate=rate)[0] for k in (1, 0))
    agree((1 - rate) * kept + rate * dropped, x)


@shown(
    "embedding",
    "y_n = E[ids_n]",
    "with the one-hot matrix O (O_nv = 1 if ids_n = v, else 0), y = O E",
    "From y = O E:   dE = Oᵀ dy,   so row v collects the cotangent of every place where v was looked up:",
    "dE_v = Σ_{n : ids_n = v} dy_n",
)
def embedding(rng):
    E, ids, dy = rng.standard_normal((4, 2)), np.array([3, 0, 3]), rng.standard_normal((3, 2))
    O = [[delta(i, v) for v in range(4)] for i in ids]  # noqa: E741
    (dE,) = forward_and_back(ops.embedding, lambda E: [E[i] for i in ids], [E], dy, ids=ids)
    agree([[sum(row[v] * E[v, h] for v in range(4)) for h in range(2)] for row in O], E[ids])
    agree(dE, [[sum(O[n][v] * dy[n, h] for n in range(3)) for h in range(2)] for v in range(4)])
    agree(dE, [[sum(dy[n, h] for n in range(3) if ids[n] == v) for h in range(2)] for v in range(4)])


@shown(
    "gather",
    "y_p = x[positions_p]",
    "dx_m = Σ_{p : positions_p = m} dy_p       and zero for rows that were not gathered.",
)
def gather(rng):
    x, positions, dy = rng.standard_normal((2, 3, 2)), np.array([4, 1, 4]), rng.standard_normal((3, 2))
    f = lambda x: [[*x[0], *x[1]][p] for p in positions]  # noqa: E731
    (dx,) = forward_and_back(ops.gather, f, [x], dy, positions=positions)
    rows = [[sum(dy[p, h] for p in range(3) if positions[p] == m) for h in range(2)] for m in range(6)]
    agree(dx, [rows[:3], rows[3:]])


@shown(
    "shape",
    "reshape: y has x's entries in the same row-major order, y.flat_n = x.flat_n",
    "transpose: y_{i_0, i_1, …} = x_j where j_{axes[k]} = i_k",
)
def shape(rng):
    x, axes = rng.standard_normal((2, 3, 4)), (2, 0, 1)
    y, pullback = ops.reshape(x, (4, 6))
    entries = [v for a in x for b in a for v in b]
    agree(y, [entries[6 * i : 6 * i + 6] for i in range(4)])
    dy = rng.standard_normal((4, 6))
    agree(pullback(dy)[0].reshape(-1), [v for row in dy for v in row])
    y, pullback = ops.transpose(x, axes)
    dy = rng.standard_normal(y.shape)
    dx = pullback(dy)[0]
    for i in np.ndindex(y.shape):
        j = [0, 0, 0]
        for k in range(3):
            j[axes[k]] = i[k]
        assert (y[i], dx[tuple(j)]) == (x[tuple(j)], dy[i])
