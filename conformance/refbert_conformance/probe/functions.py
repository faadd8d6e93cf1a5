"""How far exp, log, tanh, erf, 1/√x and 1/n are off, in ULPs, where an operation shows one of them alone.

    tanh    its own operation
    exp     softmax of (0, x): below x = −(p + 1) ln 2 the sum of both is 1, and the second is e^x itself; above that,
            second over first is e^x up to the two divisions
    1/n     softmax of n equal numbers
    log     cross-entropy of C equal logits: log C
    1/√x    LayerNorm of (a, −a) with an ε that is lost beside a²: 1, up to the root and what divides by it
    erf     GELU's ½(1 + erf(x/√2)) = y/x, up to the rounding of the argument and of two products

Arguments: every number of a 16-bit dtype; millions of float32, with the neighbourhoods of powers of 2 and of 0; some
thousands of float64, where mpmath is there to know the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert_conformance.cases.inputs import rounded
from refbert_conformance.engine.measure import Failure, Unavailable, Unsupported
from refbert_conformance.probe.operations import Operations
from refbert_conformance.tolerances.arithmetic import FORMATS, FUNCTION, spacing
from refbert_conformance.tolerances.functions import Accuracy
from refbert_conformance.tolerances.presets import Preset

_MILLIONS, _THOUSANDS = 1 << 21, 4000
_BINS = 256
# A declaration that grows is worth its words if it allows less than this share of what one number would.
_WORTH = 0.75
_WRONG = 1 << 14


@dataclass(frozen=True)
class Measured:
    """The errors of one function: arguments, exact results, ULPs that it is off by itself (what storing adds is taken
    off), and the gap that is one ULP. every: whether these are all arguments there are.

    Of declarations the tightest is the one that allows the least in the geometric mean: 10⁵ ULP for results that are
    next to nothing are cheap, and dear for all the others.
    """

    name: str
    x: Host
    y: Host
    ulps: Host
    ulp: Host
    every: bool = False

    @property
    def worst(self) -> tuple[float, float]:
        """The most ULPs, and where."""
        at = int(np.argmax(self.ulps))
        return float(self.ulps[at]), float(self.x[at])

    def declaration(self) -> float | str:
        """The tightest number or expression that covers what was measured."""
        number = upward(max(0.5, self.worst[0]))
        forms: list[tuple[float, float | str]] = [(number * _WORTH, number)]
        if self.worst[0] > 4:
            forms += [(mean, said) for mean, said in (self._growing(), self._absolute()) if mean < _WORTH * number]
        return min(forms, key=lambda form: form[0])[1]

    def _growing(self) -> tuple[float, str]:
        """a + b|x|, with the least on average."""
        from scipy.optimize import linprog

        size = abs(self.x)
        edges = np.quantile(size, np.linspace(0, 1, _BINS + 1))
        bins = np.clip(np.searchsorted(edges, size) - 1, 0, _BINS - 1)
        most, at = np.full(_BINS, -np.inf), np.zeros(_BINS)
        np.maximum.at(most, bins, self.ulps)
        for i in np.flatnonzero(np.isfinite(most)):
            at[i] = size[bins == i][np.argmax(self.ulps[bins == i])]
        there = np.isfinite(most)
        cover = -np.stack([np.ones(there.sum()), at[there]], -1)
        fit = linprog([1, float(size.mean())], A_ub=cover, b_ub=-most[there], bounds=[(0.5, None), (0, None)])
        if fit.x is None:  # numbers of such different sizes that there is no answer
            return math.inf, ""
        b = round(float(fit.x[1]) * 8) / 8
        a = upward(max(0.5, float(np.max(self.ulps - b * size))))
        return _mean(a + b * size), f"{a:g} + {b:g}*abs(x)"

    def _absolute(self) -> tuple[float, str]:
        """An error that does not shrink with the result: A/ulp(y), and N where that is less than N."""
        large = self.ulp >= self.ulp.max() / 4
        N = upward(max(0.5, float(self.ulps[large].max())))
        A = float(np.max(self.ulps * self.ulp, where=self.ulps > N, initial=0.0))
        said = f"max({N:g}, {A * 1.01:.2g}/ulp(y))"
        return _mean(np.maximum(N, A / self.ulp)), said

    def inverse(self) -> Measured:
        """√x in the place of 1/√x: the same distance, relatively."""
        y = 1 / self.y
        _, exponent = np.frexp(y)
        _, before = np.frexp(self.y)
        ulp = np.ldexp(self.ulp, exponent - before)
        return Measured("sqrt", self.x, y, self.ulps * self.ulp / self.y * y / ulp, ulp, self.every)

    def within(self, preset: Preset) -> bool:
        """Whether a preset allows what was measured; where it does not mention the function, the usual ULPs count."""
        allowed = Accuracy(self.name, preset.functions.get(self.name, FUNCTION / 2))(self.x, self.y, self.ulp)
        return bool(np.all(self.ulps <= allowed + 1e-6))


def _mean(allowed: Host) -> float:
    return float(np.exp(np.log(allowed).mean()))


def upward(ulps: float) -> float:
    """The next half up to 4, the next whole number beyond."""
    ulps -= 1e-6 * ulps
    return math.ceil(2 * ulps) / 2 if ulps <= 4 else float(math.ceil(ulps))


def arguments(dtype: str, low: float, high: float) -> tuple[Host, bool]:
    """Numbers of the dtype from low to high, and whether these are all."""
    if dtype in ("float16", "bfloat16"):
        bits = np.arange(1 << 16, dtype=np.uint16)
        with np.errstate(invalid="ignore"):
            half, brain = bits.view(np.float16), (bits.astype(np.uint32) << 16).view(np.float32)
            every = np.asarray(half if dtype == "float16" else brain, np.float64)
            return every[(every >= low) & (every <= high) & (every != 0)], True
    rng = np.random.default_rng(0)
    count = _MILLIONS if dtype == "float32" else _THOUSANDS
    even = rng.uniform(low, high, count // 2)
    scaled = rng.choice([-1.0, 1.0], count // 2) * 2 ** rng.uniform(-40, math.log2(max(-low, high)), count // 2)
    powers = 2.0 ** np.arange(-40, 8)
    near = (powers[:, None] * (1 + FORMATS[dtype][0] * np.arange(-16, 17))).ravel()
    x = rounded(np.concatenate([even, scaled, near, -near]), dtype)
    return x[(x >= low) & (x <= high) & (x != 0)], False


def _exact(name: str, x: Host, dtype: str) -> Host:
    """A function of numbers below float64's precision, or of float64 by mpmath rounded to float64."""
    if dtype != "float64":
        from scipy import special

        function: Callable[[Host], Any] = special.erfc if name == "erfc" else getattr(np, name)
        return np.asarray(function(x))
    import mpmath

    with mpmath.workprec(120):
        return np.array([float(getattr(mpmath, name)(mpmath.mpf(float(v)))) for v in x])


def _off(got: Host, x: Host, name: str, dtype: str) -> tuple[Host, Host, Host]:
    """(exact, distance, one ULP); of float64 the distance is from the exact result, not from its rounding."""
    y = _exact(name, x, dtype)
    ulp = spacing(y, dtype)
    if dtype != "float64":
        return y, abs(got - y), ulp
    import mpmath

    with mpmath.workprec(120):
        function = getattr(mpmath, name)
        off = [float(abs(mpmath.mpf(float(g)) - function(mpmath.mpf(float(v))))) for g, v in zip(got, x, strict=True)]
    return y, np.array(off), ulp


def _stored(off: Host, got: Host, ulp: Host, dtype: str) -> Host:
    """ULPs without the half gap that storing the result may add; what is correctly rounded is off by 0.5."""
    half = spacing(got, dtype) / 2
    return np.maximum((off - half) / ulp, np.minimum(off / ulp, 0.5))


def _whole(division: float) -> float:
    """How far a division may be off with the rounding of its result, in gaps."""
    return division if division <= 0.5 else division + 0.5


def _normal(y: Host, dtype: str) -> Host:
    """Where a result is no subnormal number, which may be flushed."""
    return np.asarray(abs(y) >= 2.0 ** FORMATS[dtype][1])


def _tanh(o: Operations, division: float, bits: int) -> Measured:
    dtype = o.subject.dtype
    x, every = arguments(dtype, -30.0, 30.0)
    x = x[_normal(x, dtype)]
    got = o("tanh", [x])[0]
    y, off, ulp = _off(got, x, "tanh", dtype)
    return Measured("tanh", x, y, _stored(off, got, ulp, dtype), ulp, every)


def _division(o: Operations, division: float, bits: int) -> Measured:
    dtype = o.subject.dtype
    ns = np.unique(np.round(2 ** np.linspace(1, min(9, bits), 160)))
    got = np.array([o.softmax(np.zeros((1, int(n))))[0, 0] for n in ns])
    y = 1 / ns
    ulp = spacing(y, dtype)
    # n y − 1 is exact enough: y is 1/n to a bit of float64
    off = abs(np.array([_product_error(g, n) for g, n in zip(got, ns, strict=True)])) / ns
    return Measured("division", ns, y, _stored(off, got, ulp, dtype), ulp)


def _product_error(y: float, n: float) -> float:
    from fractions import Fraction

    return float(Fraction(float(y)) * int(n) - 1) if math.isfinite(y) else math.nan


def _exp(o: Operations, division: float, bits: int) -> Measured:
    dtype = o.subject.dtype
    u, smallest, _ = FORMATS[dtype]
    alone = -(-math.log2(u) + 2) * math.log(2)
    x, every = arguments(dtype, (smallest + 1) * math.log(2), 0.0)
    if not o.subject.has("softmax"):  # attention's scores are products
        x = np.unique(rounded(x, "bfloat16"))
    p = o.softmax(np.stack([np.zeros(len(x)), x], -1))
    direct = x < alone
    with np.errstate(all="ignore"):
        got = np.where(direct, p[:, 1], p[:, 1] / p[:, 0])
    y, off, ulp = _off(got, x, "exp", dtype)
    # What e^x is divided by is 1, or two divisions' worth away: what they are off, beyond the rounding of one.
    beyond, whole = (division if division > 0.5 else 0.0), _whole(division)
    near = [spacing(one * (1 + 4 * whole * u), dtype) / np.where(one == 0, np.inf, one) for one in p.T]
    own = _stored(off, got, ulp, dtype)
    ulps = np.where(direct, own - beyond, own - whole * sum(near) * y / ulp)
    return Measured("exp", x, y, np.maximum(ulps, 0.0), ulp, every and o.subject.has("softmax"))


def _log(o: Operations, division: float, bits: int) -> Measured:
    dtype = o.subject.dtype
    if FORMATS[dtype][0] < 2.0**-bits:  # the loss is a sum over rows, of one row here
        raise Unsupported("does not show: sums have fewer bits than results")
    most = min(4096.0, 1 / FORMATS[dtype][0])
    counts = np.unique(np.round(2 ** np.linspace(1, math.log2(most), 160)))
    labels = np.zeros(1, np.int64)
    got = np.array([
        float(o("cross_entropy", [np.zeros((1, int(C)))], labels=labels, denominator=1.0)[0]) for C in counts
    ])  # fmt: skip
    y, off, ulp = _off(got, counts, "log", dtype)
    return Measured("log", counts, y, _stored(off, got, ulp, dtype), ulp)


def _rsqrt(o: Operations, division: float, bits: int) -> Measured:
    """a has half of the significant bits, so that a² and the mean of two of them are exact."""
    dtype = o.subject.dtype
    u = FORMATS[dtype][0]
    bits = min(round(-math.log2(u)) // 2, bits // 2, 12)
    mantissas = 1 + np.arange(1 << (bits - 1)) * 2.0 ** (1 - bits)
    powers = 2.0 ** (np.arange(-3, 4) if dtype == "float16" else np.arange(-12, 13))
    a = (mantissas[:, None] * powers).ravel()
    y = o("layer_norm", [np.stack([a, -a], -1), np.ones(2), np.zeros(2)], eps=1e-30)[0][:, 0]
    root = 1 / a
    ulp = spacing(root, dtype)
    # What divides, 1/√v or a/√v, is off by so many gaps there; above 1 they are 2u wide, below it u.
    # A mean may be a division, too: half of what it is off.
    mean = (_whole(division) if division > 0.5 else 0.0) * spacing(a * a, dtype) / (2 * a * a)
    quotient = _whole(division) * np.maximum(np.where(y < 1, u, 2 * u), ulp / root)
    stored = u / 2 + spacing(a, dtype) / (2 * a)  # of the root, and of what is multiplied by it
    left = abs(y - 1) - quotient - mean - stored
    return Measured("rsqrt", a * a, root, np.maximum(left * root / ulp, 0.0), ulp)


def _erf(o: Operations, division: float, bits: int) -> Measured:
    dtype = o.subject.dtype
    u = FORMATS[dtype][0]
    x, every = arguments(dtype, -1.0, 4.0)
    x = x[abs(x) > max(2.0**-20, 4 * 2.0 ** FORMATS[dtype][1])]  # a result that is no subnormal number
    y = o("gelu", [x], form="erf")[0]
    got = 2 * y / x  # erfc(−x/√2)
    root = 1 / math.sqrt(2)
    # The argument as it may be computed: exactly, as a product with a rounded 1/√2, as a quotient by a rounded √2.
    ways = [-x * root, rounded(-x * rounded(np.array(root), dtype), dtype),
            rounded(-x / rounded(np.array(1 / root), dtype), dtype)]  # fmt: skip
    found = [_off(got, z, "erfc", dtype) for z in ways]
    ulp = found[0][2]
    off = np.minimum.reduce([distance for _, distance, _ in found])
    # Where x/√2 is a division that is off by more than its rounding, erfc is asked at another place.
    z = ways[0]
    moved = max(division - 0.5, 0.0) * spacing(z, dtype) * 2 / math.sqrt(math.pi) * np.exp(-z * z)
    products = 2 * u * abs(got) + moved
    return Measured("erf", x * root, found[0][0], np.maximum((off - products) / ulp, 0.0), ulp, every)


def _known(
    measure: Callable[[Operations, float, int], Measured], o: Operations, division: float, bits: int
) -> Measured:  # fmt: skip
    """What is measured against exact results, if these can be known."""
    if o.subject.dtype == "float64" and find_spec("mpmath") is None:
        raise Unavailable("float64 needs mpmath: pip install mpmath")
    return measure(o, division, bits)


def _plausible(
    measure: Callable[[Operations, float, int], Measured], o: Operations, division: float, bits: int
) -> Measured:  # fmt: skip
    """What is measured, if it is the function that errs: not where an error is not a number, or so large both for the
    result and for a number of 1 that no accuracy is to be declared."""
    found = measure(o, division, bits)
    u = FORMATS[o.subject.dtype][0]
    size = found.ulps * np.minimum(1, found.ulp / (2 * u))
    beyond = ~(size <= min(_WRONG, 0.125 / u))
    if beyond.any():
        at = int(np.argmax(beyond))
        ulps = found.ulps[at]
        raise Failure(f"{f'off by {ulps:.3g} ULP' if np.isfinite(ulps) else 'not finite'} at {found.x[at]:.9g}")
    return found


# Function -> how to measure it, given how far a division is off, and the bits of the narrowest accumulator, in which
# sums must be exact.
ASKED: Mapping[str, Callable[[Operations, float, int], Measured]] = {
    "division": partial(_plausible, _division),
    "rsqrt": partial(_plausible, _rsqrt),
    "sqrt": lambda o, division, bits: _plausible(_rsqrt, o, division, bits).inverse(),
    **{name: partial(_known, partial(_plausible, measure))
       for name, measure in {"exp": _exp, "tanh": _tanh, "erf": _erf, "log": _log}.items()},
}  # fmt: skip
