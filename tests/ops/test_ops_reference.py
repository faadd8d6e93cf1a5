"""Every op, forward and backward, against PyTorch and against mpmath: random shapes, numbers and cotangents."""

from __future__ import annotations

import numpy as np
import oracles as o
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_oracles import ANALYTIC, CASES, REGIMES, make
from oracles import agree

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(1, 5), st.integers(1, 7))


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=25)
@given(regime=st.sampled_from(REGIMES), sizes=SIZES, seed=SEEDS)
def test_pytorch(name, regime, sizes, seed):
    compare_with_pytorch(name, regime, sizes, seed)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", CASES)
def test_pytorch_at_the_size_of_a_small_model(name, regime):
    """Long sums, where rounding adds up; heads of 33 features (attention), rows of 45 (layer norm)."""
    compare_with_pytorch(name, regime, (3, 20, 12, 33), seed=11)


def compare_with_pytorch(name, regime, sizes, seed):
    case, dy = make(name, regime, sizes, seed)
    y, pullback = case()
    theirs, gradients = o.autograd(case.torch, case.arrays, dy)
    # Both sides round: each within its own bound of the exact result.
    E, cotangent_E = case.bound(*case.arrays, dy)
    E_torch, cotangent_E_torch = (case.torch_bound or case.bound)(*case.arrays, dy)
    agree(y, theirs, E.error + E_torch.error, "y")
    cotangents = pullback(dy)
    assert len(cotangents) == len(case.arrays)
    for i, (ours, gradient) in enumerate(zip(cotangents, gradients, strict=True)):
        agree(ours, gradient, cotangent_E[i].error + cotangent_E_torch[i].error, f"cotangent {i}")


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", ANALYTIC)
def test_definition_and_complex_step(name, regime):
    """The definition at 100 digits, and its derivative in every entry of every argument."""
    case, dy = make(name, regime, (1, 3, 2, 4), seed=5)
    y, pullback = case()
    E, cotangent_E = case.bound(*case.arrays, dy)
    agree(y, o.exactly(case.exact, *case.arrays), E, "y")
    for i, (ours, theirs) in enumerate(zip(pullback(dy), o.gradient(case.exact, case.arrays, dy), strict=True)):
        agree(ours, theirs, cotangent_E[i], f"cotangent {i}")


@pytest.mark.parametrize("name", ANALYTIC)
@settings(max_examples=6)
@given(regime=st.sampled_from(REGIMES), sizes=SIZES, seed=SEEDS)
def test_adjoint(name, regime, sizes, seed):
    """⟨u, J v⟩ = ⟨Jᵀ u, v⟩ with J v by the complex step, at sizes where entry by entry would take too long."""
    case, dy = make(name, regime, sizes, seed)
    directions = [np.random.default_rng([seed, i]).standard_normal(x.shape) for i, x in enumerate(case.arrays)]
    _, pullback = case()
    _, E = case.bound(*case.arrays, dy)
    with o.mpmath.workdps(o.DIGITS):
        there = np.sum(o.mp(dy) * o.directional(case.exact, case.arrays, directions))
        back = sum(np.sum(o.mp(g) * o.mp(v)) for g, v in zip(pullback(dy), directions, strict=True))
        allowed = sum((e.error * np.abs(v)).sum() for e, v in zip(E, directions, strict=True))
        assert abs(there - back) <= allowed + o.TRUTH * abs(there)
