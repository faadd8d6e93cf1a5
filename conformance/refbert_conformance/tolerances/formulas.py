"""Bounds for any formula of NumPy arrays: `Tracked` with what today's networks are written in.

Rules beside those of `running_error`, with |x̂ − x| ≤ e:

    |x|, min, max, clip, sign    the largest change; nothing is rounded
    x², x^n (n whole, |n| ≤ 64)  products and a division, step by step
    sin, cos, exp2, expm1,       the largest change over [x − e, x + e], from the largest slope there, + 5 ULP
    log1p, log2
    a cumulative sum             of i terms at place i: Σe + γ_i(u_acc) Σ(|x| + e)
    einsum of two                the product rule summed, as for x wᵀ
    what only moves entries      moves their bounds along
    a constant                   exact if the steps' dtype has it, else rounded

A comparison, and what selects by it, is decided by exact values: a formula that jumps where rounding may decide
otherwise has no bound there, and none is claimed. Whatever is not listed is refused by its name.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert_conformance.tolerances.arithmetic import gamma
from refbert_conformance.tolerances.running_error import Tracked

_LARGEST_POWER = 64


class _NoBound(TypeError, AttributeError):
    """What NumPy's arrays have and those with bounds have not; `hasattr` says so."""


class Formula(Tracked):
    """A number of a formula that others have written.

    doubtful: it may be ∞ or NaN where it is not, or not where it is, as rounding decides: 1/(a − b) with a = b.
    """

    __array_priority__ = 101
    doubtful = False
    # What is written into it is written into the array of which it is a view, but the bounds are not.
    _astray = False

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        self.arithmetic.step(ufunc.__name__)
        out = (options.pop("out", None) or (None,))[0]
        if method == "at" and ufunc is np.add:
            return self._added_at(*inputs)
        found = self._computed(ufunc, method, inputs, options)
        if isinstance(found, Formula):
            found.doubtful |= _doubtful(inputs) or (ufunc in _SINGULAR and _singular(found, inputs))
        if out is None:
            return found
        if not isinstance(out, Formula):
            raise TypeError(f"numpy.{ufunc.__name__} with out= has no bound here")
        if not out.ndim:  # NumPy's numbers are never changed
            return found
        out[...] = found
        return out

    def _computed(self, ufunc: np.ufunc, method: str, inputs: Any, options: Any) -> Any:
        if method == "reduce" and ufunc in _REDUCED:
            odd = {k for k, v in options.items() if k not in ("axis", "keepdims", "dtype") and v is not True}
            if odd:
                raise TypeError(f"numpy.{ufunc.__name__}.reduce with {', '.join(sorted(odd))} has no bound here")
            return getattr(self, _REDUCED[ufunc])(**{k: v for k, v in options.items() if k in ("axis", "keepdims")})
        if ufunc in _DECIDED and method == "__call__":
            return ufunc(*(x.value if isinstance(x, Tracked) else x for x in inputs))
        found = super().__array_ufunc__(ufunc, method, *inputs, **options)
        if found is NotImplemented:
            how = f" as .{method}" * (method != "__call__") + f" with {', '.join(options)}=" * bool(options)
            raise TypeError(f"numpy.{ufunc.__name__} has no bound here{how}")
        return found

    def _added_at(self, target: Any, index: Any, values: Any) -> None:
        if not isinstance(target, Formula):
            raise TypeError(f"numpy.add.at has no bound here into {_OWN}")
        target.written()
        super().__array_ufunc__(np.add, "at", target, index, self.lifted(values))

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        self.arithmetic.step(function.__name__)
        handler = _FUNCTIONS.get(function)
        with np.errstate(all="ignore"):
            if handler is not None:
                found = handler(self, *args, **options)
            elif function is np.where and len(args) == 3:
                found = super().__array_function__(function, types, args, options)
            else:
                raise TypeError(f"{function.__module__}.{function.__name__} has no bound here")
        if isinstance(found, Formula):
            found.doubtful |= _doubtful(args)
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        function: Any = getattr(np, name, None)
        if function not in _FUNCTIONS:
            raise _NoBound(f"numpy.ndarray.{name} has no bound here")
        return functools.partial(function, self)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"numpy.asarray has no bound here, nor has writing into {_OWN}")

    def __float__(self) -> float:
        raise TypeError("float() has no bound here: leave numbers as NumPy has them")

    __int__ = __float__

    def like(self, value: Any, error: Any = None) -> Tracked:
        """Another number in the same arithmetic, of this one."""
        found: Any = super().like(value, error)
        found.doubtful = self.doubtful
        return found  # type: ignore[no-any-return]

    def lifted(self, x: Any) -> Tracked:
        """A number or an array with a bound: a number is exact if the steps' dtype has it."""
        found = super().lifted(x)
        if found is not x and not found.ndim:
            a, bits = self.arithmetic, np.frexp(found.value)[0] / self.arithmetic.u_step
            if bits == np.rint(bits) and 2 * a.u_step * abs(found.value) >= a.underflow_step:
                found.error[...] = 0
        return found

    def arranged(self, f: Callable[[Host], Host]) -> Tracked:
        """The same rearrangement of value and error; a view of one is a view of the other."""
        value, error = f(self.value), f(self.error)
        shared = np.may_share_memory(value, self.value)
        found: Any = self.like(value, error if shared else error.copy())
        found._astray = self._astray or (shared and not np.may_share_memory(found.error, self.error))
        return found  # type: ignore[no-any-return]

    def written(self) -> None:
        """Raise TypeError where nothing can be written."""
        if self._astray:
            raise TypeError("writing into this view has no bound here: write x[...] = … into the array itself")

    def __setitem__(self, index: Any, x: Any) -> None:
        self.written()
        super().__setitem__(index, x)
        self.doubtful = self.doubtful or getattr(x, "doubtful", False)

    # As NumPy's methods.
    def __len__(self) -> int:
        return int(self.shape[0])

    def copied(self, x: Tracked) -> Tracked:
        """The same number, with an error of its own."""
        return self.like(x.value.copy(), x.error.copy())

    def astype(self, dtype: Any, **_: Any) -> Tracked:
        """Itself, for any floating dtype: what is computed in is the arithmetic's."""
        if np.dtype(dtype).kind != "f":
            raise TypeError(f"numpy.ndarray.astype to {np.dtype(dtype)} has no bound here")
        return self.copied(self)

    def sum(self, axis: Any = None, keepdims: bool = False, **odd: Any) -> Tracked:
        """As NumPy's, in any order."""
        _refuse("sum", odd)
        self.arithmetic.step("sum")
        return super().sum(axis, keepdims)

    def max(self, axis: Any = None, keepdims: bool = False, **odd: Any) -> Tracked:
        """As NumPy's."""
        _refuse("max", odd)
        return super().max(axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False, **odd: Any) -> Tracked:
        """As NumPy's."""
        _refuse("mean", odd)
        total = self.sum(axis, keepdims)
        found: Tracked = total / (self.size / max(total.size, 1))
        return found

    def var(self, axis: Any = None, ddof: int = 0, keepdims: bool = False, **odd: Any) -> Tracked:
        """As NumPy's: the mean of the squares of x − μ."""
        _refuse("var", odd)
        d = self - self.mean(axis, keepdims=True)
        squares = (d * d).sum(axis, keepdims)
        found: Tracked = squares / (self.size / max(squares.size, 1) - ddof)
        return found

    def std(self, axis: Any = None, ddof: int = 0, keepdims: bool = False, **odd: Any) -> Tracked:
        """As NumPy's."""
        _refuse("std", odd)
        return np.sqrt(self.var(axis, ddof, keepdims))  # type: ignore[no-any-return]

    def min(self, axis: Any = None, keepdims: bool = False, **odd: Any) -> Tracked:
        """As NumPy's."""
        _refuse("min", odd)
        return -(-self).max(axis, keepdims)  # type: ignore[no-any-return]

    def cumsum(self, axis: int | None = None, **odd: Any) -> Tracked:
        """As NumPy's, each sum in any order."""
        _refuse("cumsum", odd)
        x = self.reshape(-1) if axis is None else self
        axis, a = 0 if axis is None else axis, self.arithmetic
        size = abs(x.value) + x.error
        terms = np.cumsum(size > 0, axis)
        joined = np.sqrt(np.cumsum(x.error**2, axis)) if a.probable else np.cumsum(x.error, axis)
        error = a.joined(joined, a.gamma(terms, a.u_accumulation) * np.cumsum(size, axis))
        return self.stored(np.cumsum(x.value, axis), error)

    def flatten(self) -> Tracked:
        """As NumPy's."""
        return self.reshape(-1).copy()

    def clip(self, min: Any = None, max: Any = None, a_min: Any = None, a_max: Any = None, **odd: Any) -> Tracked:
        """As NumPy's; None: no limit."""
        _refuse("clip", odd)
        min, max = a_min if min is None else min, a_max if max is None else max
        found: Tracked = self.copied(self) if min is None else self._maximum(self, self.lifted(min))
        return found if max is None else self._minimum(found, self.lifted(max))

    # Rules of ufuncs.
    def _absolute(self, x: Tracked) -> Tracked:
        return self.like(abs(x.value), x.error.copy())

    _fabs = _absolute

    def _positive(self, x: Tracked) -> Tracked:
        return self.copied(x)

    def _sqrt(self, x: Tracked) -> Tracked:
        found = super()._sqrt(x)
        return self.like(found.value, np.where(x.value - x.error < 0, np.inf, found.error))  # it may be NaN

    def _erf(self, x: Tracked) -> Tracked:
        from scipy.special import erf

        return self._error_function(x, erf(x.value))

    def _logaddexp(self, x: Tracked, z: Tracked) -> Tracked:
        top = self._maximum(x, z)
        parts = self._add(self._exp(self._subtract(x, top)), self._exp(self._subtract(z, top)))
        return self.like(np.logaddexp(x.value, z.value), self._add(top, self._log(parts)).error)

    def _maximum(self, x: Tracked, z: Tracked) -> Tracked:
        """As of `max`: between those of x − e and of x + e."""
        top = np.maximum(x.value, z.value)
        above = np.maximum(x.value + x.error, z.value + z.error) - top
        return self.like(top, np.maximum(above, top - np.maximum(x.value - x.error, z.value - z.error)))

    def _sign(self, x: Tracked) -> Tracked:
        return self.like(np.sign(x.value), np.where(abs(x.value) > x.error, 0, np.where(x.error > 0, 2, 0)))

    def _minimum(self, x: Tracked, z: Tracked) -> Tracked:
        return self._negative(self._maximum(self._negative(x), self._negative(z)))

    def _square(self, x: Tracked) -> Tracked:
        return self._multiply(x, x)

    def _reciprocal(self, x: Tracked) -> Tracked:
        return self._divide(self.like(np.ones(x.shape)), x)

    def _power(self, x: Tracked, n: Tracked) -> Tracked:
        exact = n.ndim == 0 and not n.error
        if not exact or n.value != round(float(n.value)) or abs(n.value) > _LARGEST_POWER:
            if exact and n.value in (0.5, -0.5):
                root = self._sqrt(x)
                return root if n.value > 0 else self._reciprocal(root)
            raise TypeError(f"numpy.power has a bound here for whole numbers up to {_LARGEST_POWER}, and for ±½")
        count = abs(int(n.value))
        found = self.like(np.ones(x.shape))
        for number in range(count):
            found = self._multiply(found, x) if number else self.copied(x)
        return found if n.value >= 0 else self._reciprocal(found)

    def _smooth(self, x: Tracked, value: Host, slope: Any) -> Tracked:
        """A function whose slope is at most that within the error of x."""
        a = self.arithmetic
        moved = np.where(x.error == 0, 0, slope * x.error)
        own = gamma(a.roundings(""), a.u_step) * (abs(value) + moved)
        return self.stored(value, moved, own, a.roundings(""))

    def _sin(self, x: Tracked) -> Tracked:
        return self._smooth(x, np.sin(x.value), np.minimum(1, abs(np.cos(x.value)) + x.error))

    def _cos(self, x: Tracked) -> Tracked:
        return self._smooth(x, np.cos(x.value), np.minimum(1, abs(np.sin(x.value)) + x.error))

    def _exp2(self, x: Tracked) -> Tracked:
        return self._smooth(x, np.exp2(x.value), math.log(2) * np.exp2(x.value + x.error))

    def _expm1(self, x: Tracked) -> Tracked:
        return self._smooth(x, np.expm1(x.value), np.exp(x.value + x.error))

    def _log1p(self, x: Tracked) -> Tracked:
        room = 1 + x.value - x.error
        return self._smooth(x, np.log1p(x.value), np.where(room > 0, 1 / room, np.inf))

    def _log2(self, x: Tracked) -> Tracked:
        room = x.value - x.error
        return self._smooth(x, np.log2(x.value), np.where(room > 0, 1 / room, np.inf) / math.log(2))


class Integers(np.ndarray[Any, Any]):
    """Whole numbers and booleans, exact and NumPy's own until a number of floating point comes of them.

    arithmetic: what that is then computed in; of a subclass.
    """

    arithmetic: Any

    @classmethod
    def of(cls, x: Host, arithmetic: Any) -> Host:
        """A copy of x, for that arithmetic."""
        return x.copy().view(type(cls.__name__, (cls,), {"arithmetic": arithmetic}))

    def _formula(self) -> Formula:
        return Formula(self.view(np.ndarray), arithmetic=self.arithmetic)

    def astype(self, dtype: Any, *how: Any, **more: Any) -> Any:
        """As NumPy's; a floating dtype is the arithmetic's."""
        return self._formula() if np.dtype(dtype).kind == "f" else super().astype(dtype, *how, **more)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [x.view(np.ndarray) if isinstance(x, Integers) else x for x in inputs]
        if "out" in options:
            options["out"] = tuple(x.view(np.ndarray) if isinstance(x, Integers) else x for x in options["out"])
        found = getattr(ufunc, method)(*plain, **options)
        if method != "__call__" or isinstance(found, Formula) or np.asarray(found).dtype.kind != "f":
            return found.view(type(self)) if isinstance(found, np.ndarray) and found.dtype.kind in "iu" else found
        return ufunc(*(x._formula() if isinstance(x, Integers) else x for x in inputs), **options)


_OWN = "an array that the formula makes: make it with np.zeros_like(x, shape=…)"
_REDUCED = {np.add: "sum", np.maximum: "max", np.minimum: "min"}
_SINGULAR = (np.divide, np.reciprocal, np.power, np.sqrt, np.log, np.log2, np.log1p)
_DECIDED = (
    np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal, np.isnan, np.isinf, np.isfinite,
    np.signbit,
)  # fmt: skip


def _refuse(name: str, options: Mapping[str, Any]) -> None:
    """Raise TypeError for an option without a rule; a floating dtype is the arithmetic's."""
    odd = [key for key, x in options.items() if key != "dtype" or (x is not None and np.dtype(x).kind != "f")]
    if odd:
        raise TypeError(f"numpy.{name} with {', '.join(odd)}= has no bound here")


def _doubtful(arrays: Any) -> bool:
    return any(x.doubtful if isinstance(x, Formula) else isinstance(x, list | tuple) and _doubtful(x) for x in arrays)


def _singular(found: Tracked, inputs: Any) -> bool:
    """Whether finite numbers give ∞ or NaN, and others as near as rounding takes them may not: log x with |x| ≤ e."""
    known = [x for x in inputs if isinstance(x, Formula)]
    odd, off = ~np.isfinite(found.value), np.zeros(found.shape)
    for x in known:
        odd, off = odd & np.isfinite(x.value), off + x.error
    return bool((odd & (off > 0)).any())


def _moved(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of one array: its entries in other places."""
    return lambda self, x, *a, **k: x.arranged(lambda part: function(part, *a, **k)) if isinstance(x, Tracked) else \
        function(x, *a, **k)  # fmt: skip


def _together(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of several arrays."""

    def handler(self: Formula, arrays: Any, *a: Any, **k: Any) -> Tracked:
        parts = [self.like(x.value, x.error) if isinstance(x, Tracked) else self.like(np.asarray(x, np.float64))
                 for x in arrays]  # fmt: skip
        return self.like(function([p.value for p in parts], *a, **k), function([p.error for p in parts], *a, **k))

    return handler


def _split(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, x, *a, **k: [
        x.arranged(lambda part, i=i: function(part, *a, **k)[i]) for i in range(len(function(x.value, *a, **k)))
    ]


def _decided(function: Callable[..., Any]) -> Callable[..., Any]:
    """By the exact values."""
    return lambda self, x, *a, **k: function(x.value, *a, **k)


def _method(name: str) -> Callable[..., Any]:
    return lambda self, x, *a, **k: getattr(self.lifted(x), name)(*a, **k)


def _full(self: Formula, x: Any, value: Any = 0.0, *, shape: Any = None, **_: Any) -> Tracked:
    number, shape = self.lifted(value), np.shape(x) if shape is None else shape
    return self.like(np.full(shape, number.value), np.full(shape, number.error))


def _pad(self: Formula, x: Tracked, width: Any, mode: str = "constant", **how: Any) -> Tracked:
    if mode not in ("constant", "edge", "reflect", "symmetric", "wrap"):
        raise TypeError(f'numpy.pad has a bound here for modes that move entries, not for "{mode}"')
    exact = {} if mode == "constant" else how
    return self.like(np.pad(x.value, width, mode, **how), np.pad(x.error, width, mode, **exact))  # type: ignore[call-overload]


def _einsum(self: Formula, said: str, *operands: Any, **_: Any) -> Tracked:
    if not isinstance(said, str) or len(operands) > 2:
        raise TypeError("numpy.einsum has a bound here for one or two arrays, subscripts first")
    a, parts = self.arithmetic, [self.lifted(x) for x in operands]
    if len(parts) == 1:
        parts.append(self.like(np.ones(())))
        said = said.replace("->", ",->") if "->" in said else said + ","

    def over(x: Host, z: Host) -> Host:
        return np.asarray(np.einsum(said, x, z))

    x, z = parts
    X, Z = abs(x.value) + x.error, abs(z.value) + z.error
    touched = a.terms * over((X > 0).astype(float), (Z > 0).astype(float))
    errors = [a.gamma(touched, a.u_accumulation) * over(X, Z), touched * a.underflow_step]
    if a.u_matmul:
        errors.append((2 * a.u_matmul + a.u_matmul**2) * over(X, Z))
    if a.probable:
        errors += [np.sqrt(over(x.error**2, Z**2)), np.sqrt(over(x.value**2, z.error**2))]
    else:
        errors += [over(x.error, Z), over(abs(x.value), z.error)]
    return self.stored(over(x.value, z.value), a.joined(*errors))


def _dot(self: Formula, x: Any, z: Any) -> Any:
    return self.lifted(x) * z if np.ndim(x) == 0 or np.ndim(z) == 0 else self.lifted(x) @ z


def _norm(self: Formula, x: Tracked, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    if ord not in (None, 2):
        raise TypeError("numpy.linalg.norm has a bound here for the 2-norm of vectors")
    return np.sqrt((x * x).sum(axis=axis, keepdims=keepdims))


_FUNCTIONS: Mapping[Any, Callable[..., Any]] = {
    **{f: _moved(f) for f in (
        np.reshape, np.transpose, np.swapaxes, np.moveaxis, np.expand_dims, np.squeeze, np.broadcast_to, np.roll,
        np.flip, np.repeat, np.tile, np.take, np.take_along_axis, np.ravel, np.rollaxis, np.triu, np.tril,
        np.copy, np.diagonal, np.rot90, np.atleast_1d, np.atleast_2d,
        np.lib.stride_tricks.sliding_window_view,
    )},
    **{f: _together(f) for f in (np.concatenate, np.stack, np.hstack, np.vstack)},
    **{f: _split(f) for f in (np.split, np.array_split)},
    **{f: _method(name) for f, name in (
        (np.sum, "sum"), (np.mean, "mean"), (np.var, "var"), (np.std, "std"), (np.max, "max"), (np.amax, "max"),
        (np.min, "min"), (np.amin, "min"), (np.cumsum, "cumsum"), (np.clip, "clip"),
    )},
    np.zeros_like: _full, np.ones_like: lambda self, x, **how: _full(self, x, 1.0, **how), np.full_like: _full,
    np.pad: _pad, np.einsum: _einsum, np.dot: _dot, np.linalg.norm: _norm,
    np.shape: lambda self, x: x.shape, np.ndim: lambda self, x: x.ndim, np.size: lambda self, x: x.size,
    **{f: _decided(f) for f in (np.argmax, np.argmin, np.argsort)},
    np.outer: lambda self, x, z: self.lifted(x).reshape(-1, 1) * self.lifted(z).reshape(1, -1),
}  # fmt: skip
