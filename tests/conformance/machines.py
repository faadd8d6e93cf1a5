"""Simulated machines: refbert.ops in float32 where every function errs by as much as its vendor allows."""

from __future__ import annotations

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from scipy import special

from refbert import ops
from refbert.backend.reference import ReferenceBackend
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_conformance.tolerances.bounds import ARRAYS
from refbert_conformance.tolerances.functions import gap

FUNCTIONS = {"exp": np.exp, "log": np.log, "tanh": np.tanh, "erfc": special.erfc, "sqrt": np.sqrt}


class Number(NDArrayOperatorsMixin):
    """Arrays of float32, each step of which is rounded, each function off by share x its allowance.

    signs: "random", or 1 or −1 for all alike.
    """

    __array_priority__ = 100

    def __init__(self, value, machine):
        self.value, self.machine = machine.stored(np.asarray(value, np.float32)), machine

    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)
    size = property(lambda self: self.value.size)
    dtype = property(lambda self: self.value.dtype)
    T = property(lambda self: self.like(self.value.T))

    def like(self, value):
        return Number(value, self.machine)

    def __getattr__(self, name):
        if name not in ("reshape", "transpose", "swapaxes", "max", "copy"):
            raise AttributeError(name)
        return lambda *a, **k: self.like(getattr(self.value, name)(*a, **k))

    def sum(self, axis=None, keepdims=False):
        with np.errstate(all="ignore"):
            return self.like(self.machine.total(self.value, axis, keepdims))

    def mean(self, axis, keepdims=False):
        return self.sum(axis=axis, keepdims=keepdims) / float(self.shape[axis])

    def astype(self, dtype):
        return self

    def __getitem__(self, index):
        return self.like(self.value[index])

    def __setitem__(self, index, x):
        self.value[index] = x.value if isinstance(x, Number) else x

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [x.value if isinstance(x, Number) else x for x in inputs]
        if method == "at":
            ufunc.at(*plain)
            return None
        assert method == "__call__"
        assert not options
        name = ufunc.__name__
        with np.errstate(all="ignore"):
            if name in FUNCTIONS:
                return self.like(self.machine.off(name.replace("erfc", "erf"), plain[0], FUNCTIONS[name]))
            if name == "matmul":
                return self.like(self.machine.product(*plain))
            if name == "divide":
                return self.like(self.machine.divided(*plain))
            if name == "logaddexp":  # log(1 + e^z), as a machine has it
                e = self.machine.off("exp", plain[1], np.exp)
                found = self.machine.off("log", np.float32(1) + e, np.log)
                return self.like(np.where(plain[1] > 80, plain[1], found))
            result = ufunc(*(np.asarray(x, np.float32) for x in plain))
            return result if result.dtype == bool else self.like(result)

    def __array_function__(self, function, types, args, options):
        if function is np.zeros_like:
            return self.like(np.zeros(self.shape))
        if function is np.where:
            condition, *both = (x.value if isinstance(x, Number) else x for x in args)
            return self.like(np.where(condition, *both))
        return NotImplemented


class Machine(ReferenceBackend):
    """Declares what it does; ``share`` of it is used."""

    name, dtypes = "machine", ("float32",)

    def __init__(self, does, declares, *, share=1.0, signs="random"):
        super().__init__()
        self.dtype, self.arithmetic = "float32", declares
        self._does = Arithmetic.of("float32", {"functions": does})
        self._share, self._signs, self._rng = share, signs, np.random.default_rng(0)

    def off(self, name, x, function):
        x = np.asarray(x, np.float64)
        y = function(x)
        allowed = self._does.own(name, x, y) if name in self._does.functions else 0.0
        sign = self._rng.choice([-1.0, 1.0], np.shape(y)) if self._signs == "random" else self._signs
        found = y + np.where(np.isfinite(y), sign * self._share * allowed, 0)
        return np.where(x == 0, y, found).astype(np.float32) if name == "tanh" else found.astype(np.float32)

    def divided(self, x, z):
        return self.off("division", np.asarray(x, np.float64), lambda x: x / np.asarray(z, np.float64))

    def stored(self, x):
        return x

    def total(self, x, axis, keepdims):
        return x.sum(axis=axis, keepdims=keepdims, dtype=np.float32)

    def product(self, x, z):
        return np.float32(x) @ np.float32(z)

    def asarray(self, x, /):
        return np.asarray(x, np.float32)

    def to_numpy(self, x, /):
        return np.asarray(x, np.float32)


def to_bits(x, bits, *, cut=False):
    """float64 numbers with so many significant bits."""
    mantissa, exponent = np.frexp(x)
    scaled = np.ldexp(mantissa, bits)
    return np.ldexp(np.trunc(scaled) if cut else np.rint(scaled), exponent - bits)


def split(x):
    """The sum of two bfloat16 numbers."""
    x = np.asarray(x, np.float64)
    high = to_bits(x, 8)
    return high, to_bits(x - high, 8)


class Invented(Machine):
    """A machine of products and sums.

    operands: what those of a product become. bits, cut: of the accumulator, which takes one number after the other.
    flush: no subnormal numbers. lanes: sums of every so many numbers, joined in pairs. shuffled: in another order each
    time.
    """

    def __init__(self, functions=(), *, operands=None, bits=24, cut=False, flush=False, lanes=1, shuffled=False, **how):
        super().__init__(dict(functions), {}, **how)
        self._operands, self._bits, self._cut, self._flush = operands, bits, cut, flush
        self._lanes, self._shuffled = lanes, shuffled

    def off(self, name, x, function):
        """By its ULPs, up or down as the argument's bits have it: the same for the same argument."""
        x = np.asarray(x, np.float64)
        y = function(x)
        if self._does.functions.get(name) is None or self._does.functions[name].number == 0.5:
            return y.astype(np.float32)
        ulp = gap(y, 2.0**-24, 2.0**-149)
        digits = x.astype(np.float32).view(np.uint32) * np.uint32(2654435761)
        sign = np.where(digits >> 31, 1.0, -1.0) if self._signs == "random" else self._signs
        found = y + np.where(np.isfinite(y), sign * self._share * self._does.functions[name](x, y, ulp) * ulp, 0)
        same = (x == 0) & (name in ("exp", "tanh")) | ((x == 1) & (name in ("log", "sqrt")))
        return np.where(same, y, found).astype(np.float32)

    def stored(self, x):
        return np.where(abs(x) < 2.0**-126, 0 * x, x) if self._flush else x

    def _added(self, terms):
        """[n, …] -> […]."""
        if self._shuffled:
            terms = self._rng.permutation(terms)
        parts = [np.zeros(terms.shape[1:])] * self._lanes
        for number, term in enumerate(terms.astype(np.float64)):
            at = number % self._lanes
            parts[at] = to_bits(parts[at] + term, self._bits, cut=self._cut)
        while len(parts) > 1:
            half = len(parts) // 2
            parts = [to_bits(a + b, self._bits, cut=self._cut) for a, b in zip(parts[:half], parts[half:], strict=True)]
        return parts[0]

    def total(self, x, axis, keepdims):
        axes = tuple(range(x.ndim)) if axis is None else tuple(np.atleast_1d(axis) % x.ndim)
        kept = [a for a in range(x.ndim) if a not in axes]
        found = self._added(x.transpose(*axes, *kept).reshape(-1, *(x.shape[a] for a in kept)))
        return found.reshape([1 if a in axes else n for a, n in enumerate(x.shape)]) if keepdims else found

    def product(self, x, z):
        x, z = (np.asarray(one, np.float64) for one in (x, z))
        if self._operands == "bfloat16x3":
            (high, low), (top, rest) = split(x), split(z)
            pairs = ((high, top), (high, rest), (low, top))
        else:
            pairs = ((self._operands(x), self._operands(z)) if self._operands else (x, z),)
        terms = [a[..., :, k, None] * b[..., k, None, :] for a, b in pairs for k in range(x.shape[-1])]
        return self._added(np.stack(terms)) if terms else np.zeros((*x.shape[:-1], z.shape[-1]))


def _op(name):
    def op(self, *arguments, **options):
        count = len(ARRAYS[name])
        y, back = getattr(ops, name)(*(Number(x, self) for x in arguments[:count]), *arguments[count:], **options)
        return y.value, lambda dy: tuple(d.value for d in back(Number(dy, self)))

    return op


for _name in ARRAYS:
    setattr(Machine, _name, _op(_name))
