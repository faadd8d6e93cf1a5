"""GELU in both forms, and its slope, in place: through NumPy's vectorised tanh, block by block, without SciPy.

Derivation
    With h = x/2, both forms are  y = h + h tanh(h P(h²)):

    form "tanh"  by definition, with P(s) = √(2/π) (2 + 8 · 0.044715 s).
    form "erf"   Φ(x) = ½ (1 + tanh g) for g = ½ log(Φ(x)/Φ(−x)), since tanh g = (e^{2g} − 1)/(e^{2g} + 1). g is odd
                 and smooth, so g = h P(h²) with a polynomial P, for float32.

    An error δ in P moves the result by h² (1 − tanh² g) δ, which fades as tanh saturates; so the erf's P is fitted to
    g/h on 0 ≤ h² ≤ 9 by least squares with that weight, reweighted until the largest error is as small as it gets
    (Lawson's algorithm). Beyond, h P(h²) goes on growing, and tanh of it is ±1 in float32. Degree 6 leaves
    2.5e-8 max(1, |x|); with all float32 rounding the result is within 1.2e-7 max(1, |x|) of x Φ(x), two units of
    roundoff. tests/backends/test_numpy.py checks both numbers against SciPy.

    The slopes (refbert.ops.gelu derives them), with the t = tanh(…) that is already there:
    form "erf"   ½ (1 + t) + x φ(x),   x φ(x) = 2h e^{−2h²}/√(2π)
    form "tanh"  ½ (1 + t) + h (1 − t²) u′,   u′ = √(2/π) (1 + 12 · 0.044715 h²)

Why blocks: about twenty passes over an array that stays in the second-level cache cost less than three over one that
does not. Smaller ones lose to the cost of the calls: 2.2 ns an entry here, 2.8 with blocks of 1 << 14.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_K, _A = math.sqrt(2 / math.pi), 0.044715
# P's coefficients, constant term first.
_P = {
    "erf": (
        1.5957705974578857,
        0.29065650701522827,
        -0.0010157270589843392,
        -0.0071173058822751045,
        0.002054451731964946,
        -0.00027797595248557627,
        1.5127854567253962e-05,
    ),
    "tanh": (2 * _K, 8 * _A * _K),
}
# Where |h| is cut inside tanh and the slope, both long constant by then: no square overflows, however large x is.
_LIMIT = 8.0
BLOCK = 1 << 16  # entries: with three scratch buffers, 1 MB in float32


def gelu_in_place(x: Array, form: str, bias: Array | None = None, slope: Array | None = None) -> None:
    """x ← gelu(x + bias), for a contiguous x [..., F] and bias [F]; slope (of x's shape) ← gelu′(x + bias).

    Form "erf" is for float32 only: the polynomial is not good enough for float64.
    """
    width = 1 if bias is None else len(bias)
    rows = x.reshape(-1, width)
    slopes = None if slope is None else slope.reshape(-1, width)
    step = max(1, BLOCK // width)
    scratch = np.empty((3, min(step, len(rows)), width), x.dtype)
    for start in range(0, len(rows), step):
        h = rows[start : start + step]
        c, s, t = scratch[:, : len(h)]
        if bias is not None:
            h += bias
        h *= 0.5
        np.clip(h, -_LIMIT, _LIMIT, out=c)
        np.multiply(c, c, out=s)
        _tanh(form, c, s, t)
        if slopes is not None:
            _slope(form, c, s, t, slopes[start : start + step])
        t *= h
        h += t


def _tanh(form: str, h: Array, s: Array, t: Array) -> None:
    """t ← tanh(h P(s)), by Horner's rule."""
    first, *middle, last = _P[form]
    np.multiply(s, last, out=t)
    for coefficient in reversed(middle):
        t += coefficient
        t *= s
    t += first
    t *= h
    np.tanh(t, out=t)


def _slope(form: str, h: Array, s: Array, t: Array, out: Array) -> None:
    """out ← gelu′(2h), with s = h² (overwritten) and t = tanh(h P(s))."""
    if form == "erf":
        np.multiply(s, -2, out=out)
        np.exp(out, out=out)
        out *= h
        out *= 2 / math.sqrt(2 * math.pi)
    else:
        np.multiply(s, 12 * _A * _K, out=out)
        out += _K
        out *= h
        np.multiply(t, t, out=s)
        np.subtract(1, s, out=s)
        out *= s
    np.multiply(t, 0.5, out=s)
    s += 0.5
    out += s
