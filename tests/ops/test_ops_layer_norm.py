"""Layer norm on rows that are hard for it, and what its file says follows from the gradient."""

from __future__ import annotations

import numpy as np
import op_oracles as w
import oracles as o
import pytest
from oracles import agree

from refbert import ops

RNG = np.random.default_rng(0)
H = 5
GAMMA, BETA, DY = RNG.standard_normal(H), RNG.standard_normal(H), RNG.standard_normal((2, H))
ROWS = {
    "ordinary": RNG.standard_normal((2, H)),
    "constant": np.array([[0.1] * H, [-1e6] * H]),
    "zero": np.zeros((2, H)),
    "offset 1e6": 1e6 + RNG.standard_normal((2, H)),
    "a last digit apart": 1.0 + np.array([[0, 2**-52, 0, 0, 0], [2**-52, 0, -(2**-53), 0, 0]]),
    "1e-160": 1e-160 * RNG.standard_normal((2, H)),
    "1e150": 1e150 * RNG.standard_normal((2, H)),
    "one large entry": np.array([[1e8, 0, 0, 0, 0], [0, 1e-8, 1, 0, 0]]),
    "spread as eps": 1e-6 * RNG.standard_normal((2, H)),
}


@pytest.mark.parametrize("rows", ROWS)
def test_hard_rows(rows):
    arrays = (ROWS[rows], GAMMA, BETA)
    y, pullback = ops.layer_norm(*arrays, eps=w.EPS)
    E, cotangent_E = w.layer_norm_bound(*arrays, DY)
    agree(y, o.exactly(w.layer_norm_exact, *arrays), E, "y")
    theirs = o.gradient(w.layer_norm_exact, arrays, DY)
    for name, ours, true, e in zip(("dx", "dgamma", "dbeta"), pullback(DY), theirs, cotangent_E, strict=True):
        agree(ours, true, e, name)


def test_a_constant_row_gives_beta():
    x = np.full((2, 7), 3.0)  # its sum and mean are whole numbers, so nothing rounds
    gamma, beta, dy = RNG.standard_normal((3, 7))
    y, pullback = ops.layer_norm(x, gamma, beta, eps=1e-12)
    assert np.array_equal(y, np.stack([beta, beta]))
    dx, dgamma, dbeta = pullback(np.stack([dy, dy]))
    assert not dgamma.any()
    assert np.array_equal(dbeta, 2 * dy)
    # r = ε^{−1/2} = 1e6 times what is left of the cotangent without its mean
    q = dy * gamma
    agree(dx[0], 1e6 * (q - q.mean()), 1e6 * (2 * o.gamma(7) + 4 * o.U) * (np.abs(q) + np.abs(q).mean()))


def test_one_feature_is_always_beta():
    y, pullback = ops.layer_norm(np.array([[3.7], [1e9]]), np.array([2.0]), np.array([-0.3]), eps=1e-12)
    assert (y == -0.3).all()
    assert not pullback(np.array([[1.0], [5.0]]))[0].any()


def test_dx_sums_to_zero_and_a_constant_cotangent_vanishes():
    x = np.random.default_rng(1).standard_normal((4, 3, 9))
    gamma = np.random.default_rng(2).standard_normal(9)
    dy = np.random.default_rng(3).standard_normal(x.shape)
    _, pullback = ops.layer_norm(x, gamma, gamma, eps=1e-12)
    E = w.layer_norm_bound(x, gamma, gamma, dy)[1][0].error
    # Each entry is off by its own bound; adding them up rounds too.
    agree(pullback(dy)[0].sum(axis=-1), np.zeros((4, 3)), E.sum(axis=-1) * (1 + o.gamma(9)) + o.gamma(9) * 9)
    ones = np.ones(9)
    dx = ops.layer_norm(x, ones, gamma, eps=1e-12)[1](np.full_like(x, 3.0))[0]
    # dx = −r x̂ mean(q x̂) with mean(x̂) = 0: rounding only
    agree(dx, np.zeros_like(x), w.layer_norm_bound(x, ones, gamma, np.full_like(x, 3.0))[1][0])


def test_output_has_mean_0_and_variance_1():
    x = 5 + np.random.default_rng(4).standard_normal((6, 8))
    ones, zeros = np.ones(8), np.zeros(8)
    y, _ = ops.layer_norm(x, ones, zeros, eps=1e-12)
    E = w.layer_norm_bound(x, ones, zeros, x)[0].error.max()
    agree(y.mean(axis=-1), np.zeros(6), 2 * E)
    # σ²/(σ² + ε) = 1 − ε/(σ² + ε)
    variance = x.var(axis=-1)
    agree(y.var(axis=-1), 1 - 1e-12 / (variance + 1e-12), 2 * np.abs(y).max() * E + E * E + o.gamma(16))


def test_eps_stands_inside_the_root():
    """At σ² = ε the row comes out scaled by 1/√2; outside the root it would be 1/2."""
    x = np.array([[1.0, -1.0]])
    y, _ = ops.layer_norm(x, np.ones(2), np.zeros(2), eps=1.0)
    agree(y, np.array([[0.5**0.5, -(0.5**0.5)]]), 4 * o.U * np.ones((1, 2)))
