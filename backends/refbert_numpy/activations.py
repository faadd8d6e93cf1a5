"""Activations with their slopes, in place. GELU goes through NumPy's vectorised exp, block by block, without SciPy.

Derivation
    Both forms are  y = x Φ  with  Φ = 1/(1 + e^{−x Q(x²)}):

    form "tanh"  by definition, since ½ (1 + tanh u) = 1/(1 + e^{−2u}), with Q(s) = 2 √(2/π) (1 + 0.044715 s).
    form "erf"   x Q(x²) = log(Φ(x)/Φ(−x)) is odd and smooth, so Q is a polynomial in x², for float32.

    An error δ in Q moves the result by x² Φ (1 − Φ) δ, which fades as Φ saturates; so the erf's Q is fitted on |x| ≤ 6
    by least squares with that weight, reweighted until the largest error is as small as it gets (Lawson's algorithm).
    Beyond, x Q(x²) goes on growing, and Φ is 0 or 1 in float32. Degree 6 leaves 2.5e-8 max(1, |x|); with all float32
    rounding the result is within 1.6e-7 max(1, |x|) of x Φ(x), three units of roundoff. tests/backends/test_numpy.py
    checks both numbers against SciPy.

    The slopes (refbert.ops.gelu derives them):
    form "erf"   Φ + x φ(x),   φ(x) = e^{−x²/2}/√(2π)
    form "tanh"  Φ + x Φ (1 − Φ) 2u′,   2u′ = 2 √(2/π) (1 + 3 · 0.044715 x²)

Where e^{…} overflows Φ is 0, as it should be; so NumPy is told not to warn of it.

exp costs half of what tanh does without AVX-512: 3.5 ns an entry here where the same through tanh took 5.2, and SciPy's
erf 15.
"""

from __future__ import annotations

import math

import numpy as np

from refbert.backend.reference import ReferenceBackend
from refbert.spec.layers import activate
from refbert_numpy.memory import Array, give_back, scratch
from refbert_numpy.rows import blocks

_K, _A = 2 * math.sqrt(2 / math.pi), 0.044715
# Q's coefficients, constant term first.
_Q = {
    "erf": (
        1.5957705974578857,
        0.07266412675380707,
        -6.34829411865212e-05,
        -0.00011120790441054851,
        8.02520207798807e-06,
        -2.714608910991956e-07,
        3.693323868958487e-09,
    ),
    "tanh": (_K, _K * _A),
}
_LIMIT = 256.0  # of x² in a slope, where it multiplies a 0: both slopes are constant long before


def activate_rows(x: Array, bias: Array, activation: str, slope: Array | None = None) -> None:
    """x ← act(x + bias), slope ← act′(x + bias), both [n, F]."""
    if activation == "gelu_tanh" or (activation == "gelu_erf" and x.dtype == np.float32):
        gelu_in_place(x, activation.removeprefix("gelu_"), bias, slope)
        return
    reference = ReferenceBackend(x.dtype.name)
    for block in blocks(*x.shape):
        part = x[block]
        part += bias
        y, back = activate(reference, part, activation)
        if slope is not None:
            (slope[block],) = back(np.ones_like(part))
        part[:] = y


def gelu_in_place(x: Array, form: str, bias: Array | None = None, slope: Array | None = None) -> None:
    """x ← gelu(x + bias), for a contiguous x [..., F] and bias [F]; slope (of x's shape) ← gelu′(x + bias).

    Form "erf" is for float32 only: the polynomial is not good enough for float64.
    """
    width = 1 if bias is None else len(bias)
    rows = x.reshape(-1, width)
    slopes = None if slope is None else slope.reshape(-1, width)
    parts = blocks(*rows.shape)
    if not parts:
        return
    most = 2 * rows[parts[0]].size
    flat = scratch(most, x.dtype)
    work = flat[:most].reshape(2, -1, width)
    with np.errstate(over="ignore"):
        for at in parts:
            y = rows[at]
            s, t = work[:, : len(y)]
            if bias is not None:
                y += bias
            np.multiply(y, y, out=s)
            _one_and_exp(form, y, s, t)
            if slopes is None:
                y /= t
                continue
            np.divide(1, t, out=t)  # Φ
            _slope(form, y, s, t, slopes[at])
            y *= t
    give_back(flat)


def _one_and_exp(form: str, x: Array, s: Array, t: Array) -> None:
    """t ← 1 + e^{−x Q(s)}, by Horner's rule."""
    first, *middle, last = _Q[form]
    np.multiply(s, -last, out=t)
    for coefficient in reversed(middle):
        t -= coefficient
        t *= s
    t -= first
    t *= x
    np.exp(t, out=t)
    t += 1


def _slope(form: str, x: Array, s: Array, phi: Array, out: Array) -> None:
    """out ← gelu′(x), with s = x² (overwritten) and Φ."""
    if form == "erf":
        s *= -0.5
        np.exp(s, out=out)
        out *= x
        out *= 1 / math.sqrt(2 * math.pi)
    else:
        np.minimum(s, _LIMIT, out=s)
        np.subtract(1, phi, out=out)
        out *= phi
        out *= x
        s *= 3 * _A * _K
        s += _K
        out *= s
    out += phi
