"""The learning-rate schedule: values of the paper's run, and Hugging Face's own schedule."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import get_linear_schedule_with_warmup

from refbert.training import learning_rate

U = Fraction(1, 2**53)
# Devlin et al. 2019 A.2: peak 1e-4, 10,000 steps of warmup, 1,000,000 in all; Google's code executed.
GOOGLE = {0: "0", 5000: "5e-5", 9999: "9.999e-5", 10_000: "9.9e-5", 500_000: "5e-5", 1_000_000: "0", 1_000_001: "0"}


@pytest.mark.parametrize("step", GOOGLE)
def test_google(step):
    ours = learning_rate(step, peak=1e-4, warmup=10_000, total=1_000_000, from_zero=True)
    expected = Fraction(GOOGLE[step])
    # The literal 1e-4, a quotient, a difference or product, and a product: four roundings.
    assert abs(Fraction(ours) - expected) <= 4 * U * expected


@given(warmup=st.integers(0, 40), total=st.integers(0, 60), step=st.integers(0, 70))
@example(warmup=10, total=10, step=10)
@example(warmup=0, total=0, step=0)
def test_hugging_face(warmup, total, step):
    peak = 3e-5
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, total)
    theirs = Fraction(peak * schedule.lr_lambdas[0](step))
    ours = Fraction(learning_rate(step, peak=peak, warmup=warmup, total=total, from_zero=False))
    assert abs(ours - theirs) <= 4 * U * theirs  # a product and a quotient on either side
    assert step or warmup == 0 or ours == 0


@given(warmup=st.integers(0, 40), extra=st.integers(1, 60), step=st.integers(0, 120))
def test_the_jump(warmup, extra, step):
    """Google's decay starts w/T below the peak, where Hugging Face's starts at it; they meet at the end."""
    total = warmup + extra
    google, hf = (learning_rate(step, peak=1.0, warmup=warmup, total=total, from_zero=z) for z in (True, False))
    if step < warmup or step >= total:
        assert google == hf
    else:
        jump = Fraction(total - step, total - warmup) - Fraction(total - step, total)
        assert abs(Fraction(hf) - Fraction(google) - jump) <= 4 * U
        assert step > warmup or abs(jump - Fraction(warmup, total)) == 0
    assert 0 <= google <= 1
    assert 0 <= hf <= 1
