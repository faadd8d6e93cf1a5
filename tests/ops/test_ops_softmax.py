"""Softmax and cross-entropy: large, infinite and equal entries, ignored labels, no labels."""

from __future__ import annotations

import math

import numpy as np
import op_oracles as w
import oracles as o
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import agree

from refbert import ops

HARD = np.array(
    [
        [1000.0, -1000.0, 0.0, 999.0],
        [-1000.0, -1000.0, -1000.0, -1000.0],
        [1e300, -1e300, 0.0, 1e300],
        [0.0, -0.0, 1e-300, -1e-300],
        [745.0, 0.0, 37.0, -1.0],
    ]
)
DP = np.random.default_rng(0).standard_normal(HARD.shape)


def test_softmax_of_hard_rows():
    p, pullback = ops.softmax(HARD)
    E, (dx_E,) = w.softmax_bound(HARD, DP)
    agree(p, o.exactly(w.softmax_exact, HARD), E, "p")
    agree(pullback(DP)[0], o.gradient(w.softmax_exact, [HARD], DP)[0], dx_E, "dx")


def test_minus_infinity_takes_an_entry_out():
    x = np.array([[-np.inf, 0.3, -1.2, -np.inf], [2.0, -np.inf, -np.inf, -np.inf]])
    p, pullback = ops.softmax(x)
    theirs, (gradient,) = o.autograd(lambda x: torch.softmax(x, -1), [x], DP[:2])
    dx = pullback(DP[:2])[0]
    out = np.isinf(x)
    assert (p[out] == 0).all()
    assert (dx[out] == 0).all()
    assert p[1].tolist() == [1, 0, 0, 0]
    E, (dx_E,) = w.softmax_bound(x[:1, 1:3], DP[:1, 1:3])
    agree(p[:1, 1:3], theirs[:1, 1:3], 2 * E.error)
    agree(dx[:1, 1:3], gradient[:1, 1:3], 2 * dx_E.error)


def test_softmax_rows_sum_to_one_and_gradients_to_zero():
    x = 10 * np.random.default_rng(1).standard_normal((5, 7))
    dp = np.random.default_rng(2).standard_normal(x.shape)
    p, pullback = ops.softmax(x)
    E, (dx_E,) = w.softmax_bound(x, dp)
    assert (p >= 0).all()
    agree(p.sum(axis=-1), np.ones(5), E.error.sum(axis=-1) + o.gamma(7))
    agree(pullback(dp)[0].sum(axis=-1), np.zeros(5), (dx_E.error.sum(axis=-1)) * (1 + o.gamma(7)) + o.gamma(7))
    constant = np.full_like(x, 2.5)
    agree(pullback(constant)[0], np.zeros_like(x), w.softmax_bound(x, constant)[1][0])


def test_softmax_of_one_entry():
    p, pullback = ops.softmax(np.array([[1e5], [-3.0]]))
    assert (p == 1).all()
    assert not pullback(np.array([[2.0], [7.0]]))[0].any()


@pytest.mark.parametrize("label", range(4))
def test_cross_entropy_of_huge_logits(label):
    z, labels = HARD[:2], np.array([label, label])
    loss, pullback = ops.cross_entropy(z, labels, denominator=2.0)

    def exact(z):
        return (o.mp_log(o.mp_exp(z).sum(axis=-1)) - z[:, label]).sum() / 2

    # Two rows, each log s − shifted: exp, sum and log round relative to s ≤ 4, the differences relative to 2000.
    rounding = 4 * (o.ELEMENTARY * 2 + 4) * o.U + 8 * 2000 * o.U
    agree(loss, o.exactly(exact, z), rounding)
    dz = o.gradient(exact, [z], np.array(1.7))[0]
    p = w.softmax_bound(z, z)[0]
    agree(pullback(np.array(1.7))[0], dz, 1.7 * (p.error + 4 * o.U * (p.value + 1)))


def test_uniform_logits_cost_log_c():
    for C in (2, 3, 30522):
        loss, _ = ops.cross_entropy(np.full((1, C), -4.25), np.array([C - 1]), denominator=1.0)
        agree(loss, np.log(C), (2 * o.ELEMENTARY + 1) * o.U * math.log(C))
    # Devlin et al.'s loss before any training: log 30522 + log 2
    assert f"{math.log(30522) + math.log(2):.3f}" == "11.019"


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 5), C=st.integers(1, 6))
def test_rows_of_dz_sum_to_zero_and_ignored_rows_are_zero(seed, rows, C):
    rng = np.random.default_rng(seed)
    z = 5 * rng.standard_normal((rows, C))
    labels = np.where(rng.random(rows) < 0.5, ops.IGNORE, rng.integers(0, C, rows))
    z[labels == ops.IGNORE, 0] = np.nan  # what is not looked at may be anything
    _, pullback = ops.cross_entropy(z, labels, denominator=3.0)
    dz = pullback(np.array(1.0))[0]
    assert not dz[labels == ops.IGNORE].any()
    E = w.softmax_bound(np.nan_to_num(z), z)[0].error
    # p − δ summed: each p within E, one rounding in p − 1, two in the factor, C − 1 in the sum of at most 2 in all
    agree(dz.sum(axis=-1), np.zeros(rows), E.sum(axis=-1) / 3 + o.gamma(C + 3) * 2)


def test_ignored_rows_may_be_left_out():
    rng = np.random.default_rng(3)
    z, labels = rng.standard_normal((4, 6)), np.array([2, ops.IGNORE, 5, ops.IGNORE])
    loss, pullback = ops.cross_entropy(z, labels, denominator=2.0)
    theirs, (gradient,) = o.autograd(
        lambda z: torch.nn.functional.cross_entropy(z, torch.from_numpy(labels)), [z], np.array(1.0)
    )
    E = w.softmax_bound(z, z)[0].error
    agree(loss, theirs, 2 * (2 * (o.ELEMENTARY * 2 + 6) * o.U * (1 + np.abs(z).max() * 2)))
    agree(pullback(np.array(1.0))[0], gradient, 2 * (E + 4 * o.U))


@pytest.mark.parametrize(("labels", "denominator"), [([-100, -100], 0.0), ([-100, -100], 1e-5), ([1, 2], 0.0)], ids=str)
def test_no_labels_and_no_denominator_cost_nothing(labels, denominator):
    loss, pullback = ops.cross_entropy(HARD[:2], np.array(labels), denominator=denominator)
    dz = pullback(np.array(3.0))[0]
    assert loss == 0
    assert dz.shape == (2, 4)
    assert not dz.any()


def test_denominator_zero_of_squared_error():
    loss, pullback = ops.mean_squared_error(np.ones(3), np.zeros(3), denominator=0)
    assert loss == 0
    assert not pullback(np.array(1.0))[0].any()
    with pytest.raises(ValueError, match="equal shapes"):
        ops.mean_squared_error(np.ones((3, 1)), np.ones(3), denominator=1)


@pytest.mark.parametrize("label", [-1, 4, -101, 10**9])
def test_labels_out_of_range(label):
    with pytest.raises(IndexError, match=str(label)):
        ops.cross_entropy(HARD[:2], np.array([0, label]), denominator=1.0)
