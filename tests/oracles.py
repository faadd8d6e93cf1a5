"""Truths that owe nothing to refbert, and bounds on how far rounding may carry a computation from them.

Reference: mpmath at 100 digits (`exactly`, `gradient`, `directional`) and PyTorch's kernels and autograd (`autograd`).

Bound: running error analysis (Higham, Accuracy and Stability of Numerical Algorithms, §3.3). `Rounded` carries a
float64 value together with a bound on its distance from the exact result, through the textbook formula of an op
written out in the tests. Every rule below is the standard model fl(a ∘ b) = (a ∘ b)(1 + δ), |δ| ≤ u, plus what the
operands' own errors become; nothing is tuned. The value that comes out is used for nothing but its bound.
"""

from __future__ import annotations

import math

import mpmath
import numpy as np
import torch

U = 2.0**-53  # unit roundoff of float64, round to nearest
# Results below the smallest normal number may be flushed to zero (vectorised exp and Cephes' erfc do so).
ETA = 2.0**-1022
# Vectorised exp, log and tanh promise 4 units in the last place; one such unit is at most 2u of the value.
ELEMENTARY = 8
# Cephes' erf and erfc: a quotient of polynomials of degree at most 8 with positive coefficients by Horner's rule
# (2·8 roundings each, one for the quotient), times an exponential.
ERF = 2 * 8 * 2 + 1 + ELEMENTARY
DIGITS = 100
STEP = "1e-40"  # of the complex step: its error is h² = 1e-80, relative to the next derivative but one
TRUTH = 1e-60  # what mpmath's own rounding and that step leave, relative to the largest entry; far below u


def gamma(n):
    """γ_n = nu/(1 − nu): what n roundings in a row, in any order, can add up to."""
    return max(n, 0) * U / (1 - max(n, 0) * U)


class Rounded:
    """A float64 array, and entry by entry a bound on its distance from the exact result."""

    __array_ufunc__ = None  # so that ndarray ∘ Rounded comes here

    def __init__(self, value, error=0.0):
        self.value = np.asarray(value, np.float64)
        self.error = np.broadcast_to(np.asarray(error, np.float64), self.value.shape)

    def __add__(self, other):
        other = rounded(other)
        with np.errstate(over="ignore"):
            value = self.value + other.value
        return Rounded(value, self.error + other.error + _half_ulp(value))

    def __neg__(self):
        return Rounded(-self.value, self.error)

    def __sub__(self, other):
        return self + -rounded(other)

    def __rsub__(self, other):
        return rounded(other) - self

    def __mul__(self, other):
        other = rounded(other)
        value = self.value * other.value
        inherited = _times(self.value, other.error) + _times(other.value, self.error) + self.error * other.error
        may_underflow = ((self.value != 0) & (other.value != 0)) | (inherited > 0)
        return Rounded(value, inherited + _half_ulp(value) + ETA * may_underflow)

    def __truediv__(self, other):
        other = rounded(other)
        value = self.value / other.value
        size = np.abs(other.value)
        with np.errstate(divide="ignore", invalid="ignore"):
            # x̂/ŷ − x/y = (x̂ − x)/y + x̂/ŷ (y − ŷ)/y, and |y| ≥ |ŷ| − e
            inherited = (self.error + np.abs(value) * other.error) / (size - other.error)
        inherited = np.where(other.error < size, inherited, np.inf)
        return Rounded(value, inherited + _half_ulp(value) + ETA)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rtruediv__(self, other):
        return rounded(other) / self

    def __matmul__(self, other):
        other = rounded(other)
        a, b = np.abs(self.value), np.abs(other.value)
        n = self.value.shape[-1]
        # n products and n − 1 additions in any order, fused or not: γ_n |A||B|
        error = gamma(n) * (a @ b) + a @ other.error + self.error @ b + self.error @ other.error
        return Rounded(self.value @ other.value, error + n * ETA)

    def __rmatmul__(self, other):
        return rounded(other) @ self

    def __getitem__(self, index):
        return Rounded(self.value[index], self.error[index])

    @property
    def shape(self):
        return self.value.shape

    @property
    def mT(self):
        return Rounded(self.value.swapaxes(-1, -2), self.error.swapaxes(-1, -2))

    def reshape(self, *shape):
        return Rounded(self.value.reshape(*shape), self.error.reshape(*shape))

    def swapaxes(self, i, j):
        return Rounded(self.value.swapaxes(i, j), self.error.swapaxes(i, j))

    def transpose(self, axes):
        return Rounded(self.value.transpose(axes), self.error.transpose(axes))

    def sum(self, axis=-1, keepdims=False):
        value = self.value.sum(axis=axis, keepdims=keepdims)
        n = self.value.size // max(value.size, 1)
        error = gamma(n - 1) * np.abs(self.value).sum(axis=axis, keepdims=keepdims)
        return Rounded(value, error + self.error.sum(axis=axis, keepdims=keepdims))

    def mean(self, axis=-1):
        return self.sum(axis, keepdims=True) / float(self.value.shape[axis])

    def max(self):
        return Rounded(self.value.max(axis=-1, keepdims=True), self.error.max(axis=-1, keepdims=True))


def rounded(x):
    """x itself if it carries its error already, else x as an exact input."""
    return x if isinstance(x, Rounded) else Rounded(x)


def constant(value, roundings):
    """A number that took so many roundings to compute in float64."""
    return Rounded(value, roundings * U * abs(value))


def where(condition, x, z):
    x, z = rounded(x), rounded(z)
    return Rounded(np.where(condition, x.value, z.value), np.where(condition, x.error, z.error))


def exp(x):
    value = np.exp(x.value)
    # e^{x+e} − e^x, the larger side because exp is convex
    with np.errstate(over="ignore"):
        inherited = np.where(x.error < 1, value * np.expm1(np.minimum(x.error, 1)), np.exp(x.value + x.error))
    return Rounded(value, inherited + ELEMENTARY * (U * value + ETA))


def log(x):
    value = np.log(x.value)
    return Rounded(value, -np.log1p(-x.error / x.value) + ELEMENTARY * U * np.abs(value))


def sqrt(x):
    value = np.sqrt(x.value)
    # |√a − √b| = |a − b|/(√a + √b), which is at most |a − b|/√a and at most √|a − b|
    with np.errstate(divide="ignore", invalid="ignore"):
        inherited = np.fmin(x.error / value, np.sqrt(x.error))
    return Rounded(value, inherited + _half_ulp(value))


def tanh(x):
    value = np.tanh(x.value)
    steepest = 1 - np.tanh(np.maximum(np.abs(x.value) - x.error, 0)) ** 2
    return Rounded(value, x.error * steepest + ELEMENTARY * U * np.abs(value))


def softplus(x):
    """log(1 + eˣ) = np.logaddexp(0, x): positive, slope at most 1; an exp and a log1p, which does not magnify."""
    value = np.logaddexp(0, x.value)
    inherited = np.minimum(x.error, np.logaddexp(0, x.value + x.error))
    return Rounded(value, inherited + 2 * ELEMENTARY * (U * value + ETA))


def erf(x):
    from scipy import special

    return _error_function(x, special.erf(x.value), np.zeros_like(x.value))


def erfc(x):
    from scipy import special

    # e^{−x²} turns the rounding of x², at most u x², into a relative error of the result
    return _error_function(x, special.erfc(x.value), np.maximum(x.value, 0))


def _error_function(x, value, far):
    nearest = np.maximum(np.abs(x.value) - x.error, 0)
    steepest = 2 / math.sqrt(math.pi) * np.exp(-(np.minimum(nearest, 1e3) ** 2))
    own = (ERF + np.minimum(far, 1e3) ** 2) * U * np.abs(value)
    return Rounded(value, x.error * steepest + own + ETA)


def _half_ulp(value):
    return np.where(np.isfinite(value), U * np.abs(value), 0.0)


def _times(value, error):
    return np.where(error == 0, 0.0, np.abs(value) * error)


def agree(ours, theirs, bound, what=""):
    """|ours − theirs| ≤ bound, entry by entry. ``theirs`` may hold mpmath numbers; NaN agrees with nothing."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    bound = bound.error if isinstance(bound, Rounded) else np.asarray(bound, np.float64)
    assert ours.dtype == np.float64, f"{what}: {ours.dtype}"
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, not {theirs.shape}"
    bound = np.broadcast_to(bound, ours.shape)
    assert np.isfinite(bound).all(), f"{what}: the bound says nothing"
    if theirs.dtype == object:
        with mpmath.workdps(DIGITS):
            gap = np.abs(mp(ours) - theirs) - TRUTH * np.asarray(np.abs(theirs)).max(initial=0)
    else:
        gap = np.abs(ours - theirs)
    far = np.argwhere(~np.asarray(gap <= bound, bool))
    assert not len(far), _message(what, tuple(far[0]), ours, theirs, bound, len(far))


def _message(what, index, ours, theirs, bound, count):
    us, them = mpmath.mpf(float(ours[index])), mpmath.mpf(theirs[index])
    return (
        f"{what}{[int(i) for i in index]}: got {float(us)!r}, not {mpmath.nstr(them, 20)}: "
        f"{mpmath.nstr(abs(us - them), 3)} away, {bound[index]:.3g} allowed; {count} of {ours.size} entries"
    )


# mpmath's functions on NumPy arrays of its numbers (dtype object): +, ·, /, @ and sum work on those as they are.
mp = np.frompyfunc(mpmath.mpf, 1, 1)
mp_exp = np.frompyfunc(mpmath.exp, 1, 1)
mp_log = np.frompyfunc(mpmath.log, 1, 1)
mp_sqrt = np.frompyfunc(mpmath.sqrt, 1, 1)
mp_tanh = np.frompyfunc(mpmath.tanh, 1, 1)
mp_erfc = np.frompyfunc(mpmath.erfc, 1, 1)
_imaginary = np.frompyfunc(lambda z: mpmath.mpc(z).imag, 1, 1)


def exactly(f, *arrays):
    """f of the same numbers, at 100 digits."""
    with mpmath.workdps(DIGITS):
        return np.asarray(f(*(mp(x) for x in arrays)), object)


def directional(f, arrays, directions):
    """J v of an analytic f by the complex step, Im f(x + ihv)/h (Squire & Trapp 1998), at 100 digits."""
    with mpmath.workdps(DIGITS):
        h = mpmath.mpf(STEP)
        moved = [mp(x) + mpmath.mpc(0, h) * mp(v) for x, v in zip(arrays, directions, strict=True)]
        return np.asarray(_imaginary(np.asarray(f(*moved), object)), object) / h


def gradient(f, arrays, cotangent):
    """Σ cotangent · ∂f/∂x for every entry of every array, one complex step each."""
    out = []
    for i, x in enumerate(arrays):
        g = np.empty(x.shape, object)
        for index in np.ndindex(x.shape):
            directions = [np.zeros(z.shape) for z in arrays]
            directions[i][index] = 1.0
            column = directional(f, arrays, directions)
            with mpmath.workdps(DIGITS):
                g[index] = mpmath.fsum(np.asarray(mp(cotangent) * column).ravel().tolist())
        out.append(g)
    return out


def autograd(f, arrays, cotangent):
    """(f, its gradients) by PyTorch, in float64."""
    tensors = [torch.from_numpy(np.array(x)).requires_grad_() for x in arrays]
    y = f(*tensors)
    gradients = torch.autograd.grad(y, tensors, torch.from_numpy(np.array(cotangent)))
    return y.detach().numpy(), [g.numpy() for g in gradients]
