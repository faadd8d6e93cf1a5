"""Rounding bounds derived by running the truth itself: arrays that carry a bound on their own rounding error.

`Tracked` holds a value in float64 and, entry by entry, how far a computation in unit roundoff u may be from it. NumPy's
dispatch protocols let refbert.ops run on it unchanged, so every op's bound, forward and backward, comes out of its own
formulas (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §3.3, running error analysis):

    fl(x ∘ z) = (x ∘ z)(1 + δ), |δ| ≤ u       the operands' errors go through ∘, and u |x ∘ z| is added
    a sum of n terms, in any order             Σ errors + n u Σ |terms|       (Higham eq. 4.4, to first order)
    f in {exp, log, tanh, erfc, …}             |f′| error + FUNCTION u |f|
    a constant                                 is itself rounded: u |c|

What is left out is of second order in u.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

Host = npt.NDArray[Any]

# The largest error of the functions used here in the CUDA C++ Programming Guide's table "Mathematical Functions" is
# 5 ulp (erfc, double); 1 ulp is at most 2u.
FUNCTION = 10


class Tracked(NDArrayOperatorsMixin):
    """A value, and a bound on the error of computing it in unit roundoff ``u``; inputs are exact."""

    __array_priority__ = 100

    def __init__(self, value: Any, error: Any = None, *, u: float) -> None:
        self.value: Host = np.asarray(value, np.float64)
        error = np.zeros_like(self.value) if error is None else np.asarray(error, np.float64)
        # −∞ stands for "masked" and is exact; it also must not turn 0 · ∞ into NaN.
        self.error: Host = np.broadcast_to(np.where(np.isfinite(self.value), error, 0), self.value.shape).copy()
        self.u = u

    @property
    def shape(self) -> tuple[int, ...]:
        """The value's shape."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """The value's number of axes."""
        return self.value.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """The value's dtype: float64."""
        return self.value.dtype

    @property
    def size(self) -> int:
        """The value's number of entries."""
        return self.value.size

    @property
    def T(self) -> Tracked:
        """The transpose."""
        return self.arranged(np.transpose)

    def arranged(self, f: Callable[[Host], Host]) -> Tracked:
        """The same rearrangement of value and error: nothing is rounded."""
        return Tracked(f(self.value), f(self.error), u=self.u)

    def reshape(self, *shape: Any) -> Tracked:
        """As NumPy's."""
        return self.arranged(lambda a: a.reshape(*shape))

    def transpose(self, *axes: Any) -> Tracked:
        """As NumPy's."""
        return self.arranged(lambda a: a.transpose(*axes))

    def swapaxes(self, a: int, b: int) -> Tracked:
        """As NumPy's."""
        return self.arranged(lambda x: x.swapaxes(a, b))

    def copy(self) -> Tracked:
        """As NumPy's."""
        return self.arranged(np.copy)

    def __getitem__(self, index: Any) -> Tracked:
        return self.arranged(lambda a: a[index])

    def __setitem__(self, index: Any, x: Any) -> None:
        x = self.lifted(x)
        self.value[index], self.error[index] = x.value, x.error

    def max(self, **how: Any) -> Tracked:
        """As NumPy's: a maximum is one of the entries, so nothing is rounded."""
        return self.arranged(lambda a: a.max(**how))

    def sum(self, axis: Any = None, keepdims: bool = False) -> Tracked:
        """As NumPy's, in any order."""
        axes = tuple(range(self.ndim)) if axis is None else np.atleast_1d(axis)
        n = math.prod(self.shape[a] for a in axes)
        total = self.value.sum(axis=axis, keepdims=keepdims)
        error = (self.error + n * self.u * abs(self.value)).sum(axis=axis, keepdims=keepdims)
        return Tracked(total, error, u=self.u)

    def mean(self, axis: Any, keepdims: bool = False) -> Tracked:
        """As NumPy's."""
        mean: Tracked = self.sum(axis=axis, keepdims=keepdims) / float(self.shape[axis])
        return mean

    def lifted(self, x: Any) -> Tracked:
        """A number or an array as Tracked; numbers are rounded to the computing dtype, arrays are exact (masks)."""
        if isinstance(x, Tracked):
            return x
        x = np.asarray(x, np.float64)
        return Tracked(x, self.u * abs(x) if x.ndim == 0 else None, u=self.u)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method == "at" and ufunc is np.add:
            target, index, values = inputs
            count = np.zeros(target.shape)
            np.add.at(count, index, np.ones(values.shape))
            magnitude = np.zeros(target.shape)
            np.add.at(magnitude, index, abs(values.value))
            np.add.at(target.value, index, values.value)
            np.add.at(target.error, index, values.error)
            target.error += count * self.u * magnitude
            return None
        options.pop("out", None)  # of x -= z: Python binds x to what comes back
        rule = getattr(self, f"_{ufunc.__name__}", None)
        if rule is None or method != "__call__" or options:
            return NotImplemented
        return rule(*(self.lifted(x) for x in inputs))

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        if function is np.zeros_like:
            return Tracked(np.zeros(self.shape), u=self.u)
        if function is np.where:
            condition, x, z = args
            x, z = self.lifted(x), self.lifted(z)
            condition = condition.value.astype(bool) if isinstance(condition, Tracked) else condition
            return Tracked(np.where(condition, x.value, z.value), np.where(condition, x.error, z.error), u=self.u)
        return NotImplemented

    def rounded(self, value: Host, error: Host) -> Tracked:
        """One rounding more."""
        return Tracked(value, error + self.u * abs(np.where(np.isfinite(value), value, 0)), u=self.u)

    def function(self, value: Host, slope: Host) -> Tracked:
        """f(x) for an elementary f: x's error through its slope, and f's own."""
        return Tracked(value, abs(slope) * self.error + FUNCTION * self.u * abs(value), u=self.u)

    def _add(self, x: Tracked, z: Tracked) -> Tracked:
        return self.rounded(x.value + z.value, x.error + z.error)

    def _subtract(self, x: Tracked, z: Tracked) -> Tracked:
        return self.rounded(x.value - z.value, x.error + z.error)

    def _multiply(self, x: Tracked, z: Tracked) -> Tracked:
        return self.rounded(x.value * z.value, abs(x.value) * z.error + abs(z.value) * x.error)

    def _divide(self, x: Tracked, z: Tracked) -> Tracked:
        value = x.value / z.value
        return self.rounded(value, (x.error + abs(value) * z.error) / abs(z.value))

    def _matmul(self, x: Tracked, z: Tracked) -> Tracked:
        error = x.error @ abs(z.value) + abs(x.value) @ z.error
        return Tracked(x.value @ z.value, error + x.shape[-1] * self.u * (abs(x.value) @ abs(z.value)), u=self.u)

    def _negative(self, x: Tracked) -> Tracked:
        return Tracked(-x.value, x.error, u=self.u)

    def _maximum(self, x: Tracked, z: Tracked) -> Tracked:
        return Tracked(np.maximum(x.value, z.value), np.maximum(x.error, z.error), u=self.u)

    def _greater(self, x: Tracked, z: Tracked) -> Tracked:
        return Tracked(x.value > z.value, u=self.u)

    def _exp(self, x: Tracked) -> Tracked:
        value = np.exp(x.value)
        return x.function(value, value)

    def _log(self, x: Tracked) -> Tracked:
        return x.function(np.log(x.value), 1 / x.value)

    def _sqrt(self, x: Tracked) -> Tracked:
        value = np.sqrt(x.value)
        return x.function(value, 0.5 / np.where(value == 0, 1, value))

    def _tanh(self, x: Tracked) -> Tracked:
        value = np.tanh(x.value)
        return x.function(value, 1 - value * value)

    def _erfc(self, x: Tracked) -> Tracked:
        from scipy.special import erfc

        return x.function(erfc(x.value), 2 / math.sqrt(math.pi) * np.exp(-x.value * x.value))

    def _logaddexp(
        self, x: Tracked, z: Tracked
    ) -> Tracked:  # of exact 0 and z, in refbert.ops.gelu; d/dz = 1/(1 + e^(x−z)); 1 + e^z adds u
        value = np.logaddexp(x.value, z.value)
        return Tracked(
            value,
            z.error * np.exp(z.value - value) + (FUNCTION + 2) * self.u * (value + np.exp(z.value - value)),
            u=self.u,
        )

    def astype(self, dtype: Any) -> Tracked:
        """Itself, for any floating dtype: what is computed in is u."""
        if np.dtype(dtype).kind != "f":
            raise TypeError(f"a tracked number is not {dtype}")
        return self
