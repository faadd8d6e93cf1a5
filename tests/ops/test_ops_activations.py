"""GELU, ReLU and tanh far from the origin and at it, and what their files say about them."""

from __future__ import annotations

import numpy as np
import op_oracles as w
import oracles as o
import pytest
from oracles import agree

from refbert import ops

EXTREMES = np.array([s * x for x in (0.0, 1e-300, 1e-9, 0.5, 2.7, 5.0, 8.0, 12.0, 38.0, 1e30) for s in (1.0, -1.0)])
GELU = {"erf": (w.gelu_erf_bound, w.gelu_erf_exact), "tanh": (w.gelu_tanh_bound, w.gelu_tanh_exact)}


# One number after another, so that a rounding that one of them happens to escape shows at the next.
ORDINARY = np.linspace(-9, 9, 73)


@pytest.mark.parametrize("form", GELU)
@pytest.mark.parametrize("x", [EXTREMES, ORDINARY], ids=["extremes", "ordinary"])
def test_gelu_everywhere(form, x):
    bound, exact = GELU[form]
    dy = np.full_like(x, -1.5)
    y, pullback = ops.gelu(x, form=form)
    E, (dx_E,) = bound(x, dy)
    agree(y, o.exactly(exact, x), E, "y")
    # Entry by entry the function is its own, so one direction finds every derivative.
    agree(pullback(dy)[0], -1.5 * o.directional(exact, [x], [np.ones_like(x)]), dx_E, "dx")


@pytest.mark.parametrize("form", GELU)
def test_gelu_keeps_its_digits_far_below_zero(form):
    """Relative accuracy, where 1 + erf and 1 + tanh would have none left.

    Only the argument's own rounding is amplified: by x d(log y)/dx, about x² for Φ and 6·0.036 x⁴ + 2·0.8 x² for the
    tanh form, times a few roundings of the argument (at most 8) and the function's own error.
    """
    x = -np.linspace(1, 12, 45)
    y, _ = ops.gelu(x, form=form)
    amplified = x**2 if form == "erf" else 6 * 0.036 * x**4 + 1.6 * x**2
    with o.mpmath.workdps(o.DIGITS):
        allowed = (8 * amplified + 2 * o.ERF) * o.U
    reference = o.exactly(GELU[form][1], x)
    agree(y, reference, allowed * np.abs(y), form)


def test_gelu_forms_differ_by_what_the_file_says():
    x = np.linspace(-6, 6, 120_001)
    gap = np.abs(ops.gelu(x, form="erf")[0] - ops.gelu(x, form="tanh")[0])
    assert f"{gap.max():.2e}" == "4.73e-04"
    assert f"{abs(x[gap.argmax()]):.2f}" == "2.70"


@pytest.mark.parametrize("form", GELU)
def test_gelu_minus_its_mirror_is_x(form):
    """Φ(x) + Φ(−x) = 1, for both forms."""
    x = np.linspace(-9, 9, 101)
    dy = np.ones_like(x)
    E = GELU[form][0](x, dy)[0].error + GELU[form][0](-x, dy)[0].error
    agree(ops.gelu(x, form=form)[0] - ops.gelu(-x, form=form)[0], x, E + o.U * np.abs(x))


def test_gelu_has_two_forms():
    with pytest.raises(ValueError, match="sigmoid"):
        ops.gelu(np.ones(1), form="sigmoid")


def test_relu_is_flat_at_zero():
    x = np.array([0.0, -0.0, 5e-324, -5e-324, -np.inf, np.inf])
    y, pullback = ops.relu(x)
    assert y.tolist() == [0, 0, 5e-324, 0, 0, np.inf]
    assert pullback(np.full(6, 7.0))[0].tolist() == [0, 0, 7, 0, 0, 7]


def test_tanh_everywhere():
    x = np.append(EXTREMES, [20.0, -20.0, 300.0, -np.inf])
    dy = np.full_like(x, 2.5)
    y, pullback = ops.tanh(x)
    E, (dx_E,) = w.tanh_bound(x[:-1], dy[:-1])
    agree(y[:-1], o.exactly(o.mp_tanh, x[:-1]), E, "y")
    agree(pullback(dy)[0][:-1], o.gradient(o.mp_tanh, [x[:-1]], dy[:-1])[0], dx_E, "dx")
    assert (y[-1], pullback(dy)[0][-1]) == (-1, 0)
