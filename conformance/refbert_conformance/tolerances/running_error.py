"""Rounding bounds derived by running the reference itself: arrays that carry a bound on their own rounding error.

`Tracked` holds a value in float64 and, entry by entry, how far any computation in the declared arithmetic may be from
it. NumPy's dispatch protocols let refbert.ops run on it unchanged, so every op's bound, forward and backward, comes out
of its own formulas (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §3.3, running error analysis).

With x̂ the computed x and |x̂ − x| ≤ e, each rule bounds the next e without leaving anything out (no "to first order"):

    a step                 e + γ_2(u)(|y| + e) + 2η       two roundings, each of which may underflow: x·0.5·f, or 1/√v
    and a product for a division x + z, x − z           e_x + e_z
    x z                    |x| e_z + |z| e_x + e_x e_z
    x / z                  (e_x + |x/z| e_z)/(|z| − e_z)                       ∞ if e_z ≥ |z|
    a sum of n terms       Σe + γ_n(u_acc) Σ(|x| + e) in any order             (Higham eq. 4.4)
    x wᵀ, K terms          the product rule summed, + (γ_K(u_acc) + 2u_in + u_in²) Σ(|x| + e_x)(|w| + e_w) + K η
                           n and K count the terms that are not 0: to add 0 rounds nothing
    √x                     e/(√x + √(x − e)), from √x̂ − √x = (x̂ − x)/(√x̂ + √x)
    f in {exp, log, tanh, erfc}   the largest change over [x − e, x + e], + n ULPs: γ_2n(u) |f| + 2n η, n declared or 5
    a constant c           γ_1(u)|c|: it is itself rounded

In a ``probable`` arithmetic (see `noise`) the same rules give how far rounding probably goes: independent errors join
as the root of the sum of their squares, and γ_n(u) is √n u (Higham & Mary 2019, "A new approach to probabilistic
rounding error analysis", Thm 2.4). A function's own error stays γ_FUNCTION: it may be the same everywhere.

A bound of ∞ means that nothing can be said: a divisor that may be 0, a step that may overflow. Such entries are
*unchecked*, and counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from refbert.backend import Host
from refbert_conformance.tolerances.arithmetic import Arithmetic, gamma

# How many roundings a step of the reference's formula may take elsewhere: x·(0.5·f) or (x·0.5)·f, 1/√v times d for
# d/√v, exp2(x·log₂e) for exp.
STEP = 2


def _arranging(name: str) -> Callable[..., Tracked]:
    return lambda self, *how, **order: self.arranged(lambda a: getattr(a, name)(*how, **order))


class Tracked(NDArrayOperatorsMixin):
    """A value, and a bound on the error of computing it in an arithmetic; inputs are exact."""

    __array_priority__ = 100

    def __init__(self, value: Any, error: Any = None, *, arithmetic: Arithmetic) -> None:
        self.value: Host = np.asarray(value, np.float64)
        error = np.zeros_like(self.value) if error is None else np.asarray(error, np.float64)
        unknown = np.isnan(error)  # ∞ · 0 and ∞ − ∞: nothing can be said
        if unknown.any():
            error = np.where(unknown, np.inf, error)
        exact = np.isinf(self.value) & (error != 0)  # −∞ stands for "masked"
        if exact.any():
            error = np.where(exact, 0, error)
        self.error: Host = error if error.shape == self.value.shape else np.broadcast_to(error, self.shape).copy()
        self.arithmetic = arithmetic

    # The value's.
    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)
    dtype = property(lambda self: self.value.dtype)
    size = property(lambda self: self.value.size)

    @property
    def T(self) -> Tracked:
        """The transpose."""
        return self.arranged(np.transpose)

    def __bool__(self) -> bool:
        return bool(self.value)

    def arranged(self, f: Callable[[Host], Host]) -> Tracked:
        """The same rearrangement of value and error: nothing is rounded."""
        return self.like(f(self.value), f(self.error).copy())

    def like(self, value: Any, error: Any = None) -> Tracked:
        """Another number in the same arithmetic."""
        return type(self)(value, error, arithmetic=self.arithmetic)

    # As NumPy's.
    reshape, transpose, swapaxes = map(_arranging, ("reshape", "transpose", "swapaxes"))

    def copy(self) -> Tracked:
        """As NumPy's."""
        return self.arranged(np.copy)

    def astype(self, dtype: Any) -> Tracked:
        """Itself, for any floating dtype: what is computed in is the arithmetic's."""
        if np.dtype(dtype).kind != "f":
            raise TypeError(f"a tracked number is not {dtype}")
        return self

    def __getitem__(self, index: Any) -> Tracked:
        return self.arranged(lambda a: a[index])

    def __setitem__(self, index: Any, x: Any) -> None:
        x = self.lifted(x)
        self.value[index], self.error[index] = x.value, x.error

    def max(self, **how: Any) -> Tracked:
        """As NumPy's: the maximum lies between those of x − e and of x + e; nothing is rounded."""
        top = self.value.max(**how)
        with np.errstate(invalid="ignore"):  # ∞ − ∞ in a row of −∞
            return self.like(top, np.maximum((self.value + self.error).max(**how) - top,
                                             top - (self.value - self.error).max(**how)))  # fmt: skip

    def sum(self, axis: Any = None, keepdims: bool = False) -> Tracked:
        """As NumPy's, in any order."""
        axes = tuple(range(self.ndim)) if axis is None else np.atleast_1d(axis)
        a, how = self.arithmetic, {"axis": axis, "keepdims": keepdims}
        n = math.prod(self.shape[i] for i in axes)
        total, size = self.value.sum(**how), abs(self.value) + self.error
        terms = np.count_nonzero(size, **how)  # to add 0 rounds nothing
        summed = a.summed(lambda power: (size**power).sum(**how), total)
        error = a.joined(a.added(self.error, **how), a.gamma(terms, a.u_accumulation) * summed)
        return self.stored(total, error + (n * a.underflow_step if a.flush_to_zero else 0))

    def mean(self, axis: Any, keepdims: bool = False) -> Tracked:
        """As NumPy's."""
        mean: Tracked = self.sum(axis=axis, keepdims=keepdims) / float(self.shape[axis])
        return mean

    def lifted(self, x: Any) -> Tracked:
        """A number or an array as Tracked; numbers are rounded to the computing dtype, arrays are exact (masks)."""
        if isinstance(x, Tracked):
            return x
        x = np.asarray(x, np.float64)
        a = self.arithmetic
        return self.like(x, a.u_step * abs(x) + np.minimum(abs(x), a.underflow_step) if x.ndim == 0 else None)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method == "at" and ufunc is np.add:
            target, index, values = inputs
            a, moved = self.arithmetic, abs(values.value) + values.error

            def added(x: Host) -> Host:
                found = np.zeros(target.shape)
                np.add.at(found, index, x)
                return found

            before = abs(target.value) + target.error
            count = added(moved > 0) + (before > 0)
            np.add.at(target.value, index, values.value)
            summed = a.summed(lambda power: added(moved**power) + before**power, target.value)
            squares = 2 if a.probable else 1
            errors = target.error**squares
            np.add.at(errors, index, values.error**squares)
            # A sum like any other. A table that is stored in a narrow dtype is no place for it: in bfloat16, 256 + 1 is
            # 256.
            rounding = np.where(count > 1, a.gamma(count, a.u_accumulation), 0)
            target.error[...] = a.joined(errors ** (1 / squares), rounding * summed)
            return None
        options.pop("out", None)  # of x -= z: Python binds x to what comes back
        rule = getattr(self, f"_{ufunc.__name__}", None)
        if rule is None or method != "__call__" or options:
            return NotImplemented
        with np.errstate(all="ignore"):  # ∞ and NaN in an error are its answer, see __init__
            return rule(*(self.lifted(x) for x in inputs))

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        if function is np.zeros_like:
            return self.like(np.zeros(self.shape))
        if function is np.where:
            condition, x, z = args
            x, z = self.lifted(x), self.lifted(z)
            condition = condition.value.astype(bool) if isinstance(condition, Tracked) else condition
            return self.like(np.where(condition, x.value, z.value), np.where(condition, x.error, z.error))
        return NotImplemented

    def stored(self, value: Host, error: Any, own: Any = None, roundings: float = STEP) -> Tracked:
        """A step's result: its roundings on top of the error that came in; ∞ where it may overflow.

        own: what a function errs by itself, in place of a step's roundings; ``roundings``: how often either underflows.
        """
        a = self.arithmetic
        size = np.where(np.isinf(value), 0, abs(value)) + error
        own = a.gamma(STEP, a.u_step) * size if own is None else own
        error = a.joined(error, own, np.where(size == 0, 0, roundings * a.underflow_step))
        return self.like(value, np.where(size > a.largest_step, np.inf, error))

    def function(self, name: str, x: Tracked, value: Host, moved: Any) -> Tracked:
        """A function's result: its own error, at the argument or within its error of it, on top of what came in."""
        a = self.arithmetic
        if not a.varies(name):  # one number, which may be the same error everywhere: never √n u
            roundings = a.roundings(name)
            size = np.where(np.isinf(value), 0, abs(value)) + moved
            return self.stored(value, moved, gamma(roundings, a.u_step) * size, roundings)
        around = ((x.value + s * x.error, value + s * moved) for s in (-1, 0, 1))
        return self.stored(value, moved, np.maximum.reduce([a.own(name, at, y) for at, y in around]))

    def _add(self, x: Tracked, z: Tracked) -> Tracked:
        return self.stored(x.value + z.value, self.arithmetic.joined(x.error, z.error))

    def _subtract(self, x: Tracked, z: Tracked) -> Tracked:
        return self.stored(x.value - z.value, self.arithmetic.joined(x.error, z.error))

    def _multiply(self, x: Tracked, z: Tracked) -> Tracked:
        error = self.arithmetic.joined(abs(x.value) * z.error, abs(z.value) * x.error, x.error * z.error)
        return self.stored(x.value * z.value, error)

    def _divide(self, x: Tracked, z: Tracked) -> Tracked:
        value = x.value / z.value
        a, room = self.arithmetic, abs(z.value) - z.error
        error = np.where(room > 0, a.joined(x.error, abs(value) * z.error) / room, np.inf)
        found = self.stored(value, error)
        for name in ("division", "reciprocal"):  # as declared, beyond the one rounding that a step has anyway
            if name in a.functions:
                own = np.maximum(a.own(name, x.value, value) - a.rounding(a.u_step, abs(value)), 0)
                found = self.like(value, found.error + np.where(np.isfinite(value), own, 0))
        return found

    def _matmul(self, x: Tracked, z: Tracked) -> Tracked:
        a = self.arithmetic
        X, Z = abs(x.value) + x.error, abs(z.value) + z.error
        # How many products are not 0: others round nothing.
        touched = a.terms * ((X > 0).astype(float) @ (Z > 0).astype(float))
        value = x.value @ z.value
        summed = a.summed(lambda power: X**power @ Z**power, value)
        parts = [a.gamma(touched, a.u_accumulation) * summed, touched * a.underflow_step]
        if a.u_matmul:
            parts.append((2 * a.u_matmul + a.u_matmul**2) * a.products(X, Z))
        if x.error.any():
            parts.append(a.products(x.error, Z))
        if z.error.any():
            parts.append(a.products(abs(x.value), z.error))
        return self.stored(value, a.joined(*parts))

    def _negative(self, x: Tracked) -> Tracked:
        return self.like(-x.value, x.error.copy())

    def _maximum(self, x: Tracked, z: Tracked) -> Tracked:
        return self.like(np.maximum(x.value, z.value), np.maximum(x.error, z.error))

    def _greater(self, x: Tracked, z: Tracked) -> Tracked:
        return self.like(x.value > z.value)

    def _exp(self, x: Tracked) -> Tracked:
        value = np.exp(x.value)
        moved = value * np.expm1(x.error)
        return self.function("exp", x, value, np.where(np.isnan(moved), np.exp(x.value + x.error) - value, moved))

    def _log(self, x: Tracked) -> Tracked:
        error = np.where(x.error < x.value, -np.log1p(-x.error / x.value), np.inf)
        return self.function("log", x, np.log(x.value), error)

    def _sqrt(self, x: Tracked) -> Tracked:
        value = np.sqrt(x.value)
        below = value + np.sqrt(np.maximum(x.value - x.error, 0))
        error = np.where(x.error == 0, 0, np.where(below > 0, x.error / below, np.sqrt(x.error)))
        found = self.function("sqrt", x, value, error)
        if "rsqrt" in self.arithmetic.functions:  # who multiplies by 1/√x is as far off, relatively
            inverse = 1 / value
            own = self.arithmetic.own("rsqrt", x.value, inverse) * (value + error) ** 2
            other = self.stored(value, error, np.where(value > 0, own, 0))
            found = self.like(value, np.maximum(found.error, other.error))
        return found

    def _tanh(self, x: Tracked) -> Tracked:
        steepest = 1 - np.tanh(np.maximum(abs(x.value) - x.error, 0)) ** 2
        return self.function("tanh", x, np.tanh(x.value), steepest * x.error)

    def _erfc(self, x: Tracked) -> Tracked:
        from scipy.special import erfc

        return self._error_function(x, erfc(x.value))

    def _error_function(self, x: Tracked, value: Host) -> Tracked:
        """erf or erfc, whose slopes are alike but for the sign."""
        steepest = 2 / math.sqrt(math.pi) * np.exp(-(np.maximum(abs(x.value) - x.error, 0) ** 2))
        return self.function("erf", x, value, steepest * x.error)

    def _logaddexp(self, x: Tracked, z: Tracked) -> Tracked:
        """log s with s = e⁰ + e^z, of refbert.ops.gelu: s is off by a relative u and σ(z) = e^z/s times e^z's own."""
        value, a = np.logaddexp(x.value, z.value), self.arithmetic
        slope = 1 / (1 + np.exp(-(z.value + z.error)))  # σ, largest at z + e
        if a.varies("exp"):
            largest = np.minimum(z.value, 700)  # e^z is a number in float64
            own = a.own("exp", largest, np.exp(largest)) / (1 + np.exp(largest))
        else:
            own = slope * gamma(a.roundings("exp"), a.u_step)
        moved = slope * z.error + own + gamma(1, a.u_step)
        return self.function("log", self.like(np.exp(value)), value, moved)
