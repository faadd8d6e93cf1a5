"""The oracles themselves: a bound that holds nothing back, or holds everything, would let every bug through."""

from __future__ import annotations

import mpmath
import numpy as np
import oracles as o
import pytest
from op_oracles import CASES, make


def test_agree_refuses():
    one = np.ones(2)
    o.agree(one, one + o.U * 2, 2 * o.U)
    for theirs, bound in [(one + 4 * o.U, 2 * o.U), (one * np.nan, 1.0), (np.ones(3), 1.0), (one, np.inf)]:
        with pytest.raises(AssertionError):
            o.agree(one, theirs, bound)
    with pytest.raises(AssertionError):
        o.agree(one * np.nan, one, 1.0)
    with pytest.raises(AssertionError):
        o.agree(one.astype(np.float32), one, 1.0)


def test_rounded_covers_cancellation():
    x = o.Rounded([1e16, 1.0, -1e16])
    total = x.sum()
    assert abs(total.value - 1.0) <= total.error
    third = 1 / o.Rounded(3.0)
    left = third * 3.0 - 1.0 + (third - 0.25) * 12.0
    with mpmath.workdps(o.DIGITS):
        assert abs(mpmath.mpf(float(left.value)) - 1) <= float(left.error)
    assert left.error < 100 * o.U


@pytest.mark.parametrize(
    ("f", "true"),
    [
        (o.exp, mpmath.exp),
        (o.tanh, mpmath.tanh),
        (o.erf, mpmath.erf),
        (o.erfc, mpmath.erfc),
        (o.softplus, lambda x: mpmath.log1p(mpmath.exp(x))),
    ],
)
def test_functions_of_a_number_that_is_off(f, true):
    """f of the true argument is within the bound of f as computed from an argument that is off."""
    for x in (-30.0, -3.0, -0.1, 0.0, 0.7, 4.0, 25.0):
        for off in (0.0, 1e-12, 0.5):
            result = f(o.Rounded(x, off))
            with mpmath.workdps(o.DIGITS):
                for side in (-1, 0, 1):
                    gap = abs(mpmath.mpf(float(result.value)) - true(mpmath.mpf(x) + side * mpmath.mpf(off)))
                    assert gap <= float(result.error) * (1 + 1e-12)


@pytest.mark.parametrize("name", CASES)
def test_bounds_are_tight_enough_to_see_a_bug(name):
    """On ordinary numbers no bound reaches a millionth of the largest entry: rounding, not slack.

    The widest is the mask of −10000 over a whole row, which rounds every score to 10⁴u.
    """
    case, dy = make(name, "normal", (2, 3, 4, 5), seed=3)
    y, cotangents = case.bound(*case.arrays, dy)
    for bound in (y, *cotangents):
        largest = np.abs(bound.value).max(initial=0)
        assert bound.error.max(initial=0) <= 1e-6 * max(largest, 1)
        assert np.median(bound.error) <= 1e5 * o.U * max(largest, 1)


def test_complex_step_is_exact():
    x = np.array([[0.3, -1.2], [2.0, 0.0]])
    (g,) = o.gradient(lambda x: (x * x * x).sum(axis=-1), [x], np.array([1.0, -2.0]))
    o.agree(3 * x * x * np.array([[1.0], [-2.0]]), g, 4 * o.U * (3 * x * x))
