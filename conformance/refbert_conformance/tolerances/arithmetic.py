"""The arithmetic that a backend declares, and the numbers that every bound is made of.

Source   IEEE 754-2019; Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., §2.1-2.2 (unit roundoff, the
         standard model), eq. 2.8 (gradual underflow), §3.1 (γ_n). TF32 and bfloat16: NVIDIA's A100 white paper. Tensor
         cores add with truncation: Fasi, Higham, Mikaitis, Pranesh 2021, "Numerical behavior of NVIDIA tensor cores".

    fl(x ∘ z) = (x ∘ z)(1 + δ) + ε,     |δ| ≤ u,  |ε| ≤ η        round to nearest: u is half the gap after 1

A backend's dtype says how results are stored. Its optional attribute ``arithmetic`` (a plain mapping) says what else is
so; nothing in it is measured, it is taken at its word and reported:

    accumulation     dtype of sums and matrix products     float32 for float16 and bfloat16, else the dtype itself;
                     "float32-truncated" for tensor cores that cut instead of rounding
    matmul_inputs    what operands of matrix products are rounded to: "tensorfloat32", "bfloat16", "float8_e4m3", …,
                     "bfloat16-truncated" and "tensorfloat32-truncated" where they are cut; "bfloat16x3" for a product
                     made of three of bfloat16; else nothing
    intermediates    dtype of the steps inside one op; else the dtype itself
    flush_to_zero    True: numbers below the normal range become 0
    nondeterministic names of ops whose bits may change from call to call (atomic additions)
    functions        how many ULPs exp, log, tanh, erf, sqrt, rsqrt, division and reciprocal may be off: numbers, or
                     expressions of the argument x and the result y, as "3 + 2*abs(x)" (see `functions`)
    preset           the name of a published arithmetic (see `presets`), of which the other keys then speak
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refbert.backend import UNIT_ROUNDOFF, Host
from refbert.errors import BackendError
from refbert_conformance.tolerances.functions import Accuracy, accuracies, gap

_SPLIT = "bfloat16x3"
# name -> (unit roundoff, exponent of the smallest normal number, exponent just above the largest)
FORMATS: Mapping[str, tuple[float, int, int]] = {
    "float64": (UNIT_ROUNDOFF["float64"], -1022, 1024),
    "float32": (UNIT_ROUNDOFF["float32"], -126, 128),
    "float16": (UNIT_ROUNDOFF["float16"], -14, 16),
    "bfloat16": (UNIT_ROUNDOFF["bfloat16"], -126, 128),
    "tensorfloat32": (2.0**-11, -126, 128),
    # Cutting errs by up to the whole gap, twice as far as rounding.
    "float32-truncated": (2.0**-23, -126, 128),
    "tensorfloat32-truncated": (2.0**-10, -126, 128),
    "bfloat16-truncated": (2.0**-7, -126, 128),
    "float8_e4m3": (2.0**-4, -6, 9),  # Micikevicius et al. 2022, "FP8 formats for deep learning", table 1
    "float8_e5m2": (2.0**-3, -14, 16),
    # An operand as the sum h + l of two bfloat16 numbers, a product as h h′ + h l′ + l h′. With |x − h| ≤ 2⁻⁸|x| and
    # |x − h − l| ≤ 2⁻¹⁶|x| what is missing is |l l′| + |r x′| + |x r′| ≤ 3 · 2⁻¹⁶ |x x′|, a little more as l may be
    # larger than x − h: 2u.
    _SPLIT: (1.51 * 2.0**-16, -126, 128),
}
_KEYS = (
    "accumulation", "matmul_inputs", "intermediates", "flush_to_zero", "nondeterministic", "functions", "preset",
)  # fmt: skip
# Half ULPs that a function may be off where nothing is declared. The largest error of the functions used here in the
# CUDA C++ Programming Guide's table "Mathematical Functions" is 5 ulp (erfc, double); 1 ulp is at most 2u.
FUNCTION = 10


@dataclass(frozen=True)
class Arithmetic:
    """How a backend rounds.

    u: stored results. u_step: steps inside an op. u_accumulation: sums. u_matmul: operands of matrix products (0: not
    rounded). terms: products in the place of one. underflow: the η of stored results, and underflow_step that of steps
    inside an op. largest, largest_step: where overflow begins. nondeterministic: ops whose bits may change. probable:
    errors are sizes of independent random numbers, instead of bounds that add up (see `noise`). declared: what all this
    follows from, besides the dtype. functions: how accurate those are that it says something of.
    """

    dtype: str
    u: float
    u_step: float
    u_accumulation: float
    u_matmul: float
    terms: int
    underflow: float
    underflow_step: float
    largest: float
    largest_step: float
    flush_to_zero: bool
    nondeterministic: frozenset[str]
    probable: bool = False
    declared: Mapping[str, Any] = field(default_factory=dict, hash=False)
    functions: Mapping[str, Accuracy] = field(default_factory=dict, hash=False, compare=False)

    @classmethod
    def of(cls, dtype: str, declared: Mapping[str, Any] | None = None) -> Arithmetic:
        """The arithmetic of a dtype, with what the backend declares; raises `BackendError` for words not known here."""
        declared = dict(declared or {})
        unknown = sorted(set(declared) - set(_KEYS))
        if unknown:
            raise BackendError(f"arithmetic declares {', '.join(unknown)}; known: {', '.join(_KEYS)}")
        _check(declared)
        given, declared = declared, expanded(declared)
        wide = "float32" if dtype in ("float16", "bfloat16") else dtype
        accumulation = declared.get("accumulation") or wide
        step = declared.get("intermediates") or dtype
        operands = declared.get("matmul_inputs")
        numbers = [name for name in FORMATS if name != _SPLIT]
        for name, known in ((dtype, numbers), (accumulation, numbers), (step, numbers), (operands, list(FORMATS))):
            if name and name not in known:
                raise BackendError(f'arithmetic knows no dtype "{name}"; known: {", ".join(known)}')
        flush = bool(declared.get("flush_to_zero", False))
        return cls(
            dtype=dtype,
            u=FORMATS[dtype][0],
            u_step=FORMATS[step][0],
            u_accumulation=FORMATS[accumulation][0],
            u_matmul=FORMATS[operands][0] if operands else 0.0,
            terms=3 if operands == _SPLIT else 1,
            underflow=_underflow(dtype, flush),
            underflow_step=_underflow(step, flush),
            largest=_largest(dtype),
            largest_step=_largest(step),
            flush_to_zero=flush,
            nondeterministic=frozenset(declared.get("nondeterministic", ())),
            declared=given,
            functions=accuracies(declared.get("functions", {})),
        )

    @property
    def low(self) -> bool:
        """Whether this is low precision, which certifies arithmetic but cannot tell eps 1e-12 from rounding."""
        return self.u > UNIT_ROUNDOFF["float32"]

    def gamma(self, n: Any, u: float) -> Any:
        """How far n roundings of one number may take it: γ_n; probably no further than √n u (Higham & Mary 2019)."""
        if self.probable:
            return np.sqrt(n) * u
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(n * u < 1, n * u / (1 - n * u), np.inf)

    def joined(self, *errors: Any) -> Any:
        """How far a sum of numbers that are off by so much may be off; probably by the root of their squares."""
        return np.sqrt(sum(e * e for e in errors)) if self.probable else sum(errors)

    def added(self, errors: Host, **how: Any) -> Any:
        """`joined` along an axis, as NumPy's sum."""
        return np.sqrt((errors * errors).sum(**how)) if self.probable else errors.sum(**how)

    def products(self, x: Host, z: Host) -> Host:
        """`joined` over the terms of a matrix product of an error with a factor."""
        return np.sqrt((x * x) @ (z * z)) if self.probable else x @ z

    def summed(self, powers: Callable[[int], Host], total: Host) -> Host:
        """What the roundings of a sum are relative to: the sum of its terms' sizes. ``powers(n)``: the sum of the n-th
        powers of those. ``total``: the sum itself."""
        return powers(1)

    def rounding(self, u: float, size: Any) -> Any:
        """How far one rounding to nearest takes a number of that size."""
        return u * size

    def step(self, name: str) -> None:
        """A step of a formula begins; whoever looks for where a bound comes from counts them (see `within`)."""

    def own(self, function: str, x: Any, y: Any) -> Any:
        """How far a function's own error takes its result y at x: ULPs as declared, times the gap between numbers. What
        comes of an infinity is exact."""
        if not self.varies(function):
            return gamma(self.roundings(function), self.u_step) * abs(y)
        ulp = gap(y, self.u_step, self.underflow_step)
        return np.where(np.isinf(x), 0, self.functions[function](x, y, ulp) * ulp)

    def varies(self, function: str) -> bool:
        """Whether a function's declared accuracy depends on its argument or result."""
        return function in self.functions and self.functions[function].number is None

    def roundings(self, function: str) -> float:
        """The half ULPs of a function whose accuracy is the same everywhere."""
        return 2 * float(self.functions[function].number or 0) if function in self.functions else FUNCTION

    def described(self) -> dict[str, Any]:
        """For reports."""
        return {
            "u": self.u,
            "u_step": self.u_step,
            "u_accumulation": self.u_accumulation,
            "u_matmul_inputs": self.u_matmul,
            "flush_to_zero": self.flush_to_zero,
            "nondeterministic": sorted(self.nondeterministic),
            "declared": {name: value for name, value in self.declared.items() if name != "nondeterministic"},
        }


def gamma(n: float, u: float) -> float:
    """γ_n = nu/(1 − nu), a bound on |∏(1 + δ_i) − 1| over n factors (Higham, Lemma 3.1); infinite once nu ≥ 1."""
    return n * u / (1 - n * u) if n * u < 1 else float("inf")


_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("accumulation", "matmul_inputs", "intermediates", "preset"), ((str, type(None)), "a name")),
    "flush_to_zero": ((bool, int), "True or False"),
    "nondeterministic": ((tuple, list, set, frozenset), "names of ops"),
    "functions": ((Mapping,), 'a mapping as {"exp": 2} is'),
}


def _check(declared: Mapping[str, Any]) -> None:
    """Raise `BackendError` for a value of another kind than a key has."""
    for name, value in declared.items():
        kinds, said = _KINDS[name]
        if not isinstance(value, kinds):
            raise BackendError(f"arithmetic's {name} is {said}, not {value!r}")


def expanded(declared: Mapping[str, Any]) -> dict[str, Any]:
    """What is declared, with a preset's words in the place of its name; raises `BackendError` for an unknown one."""
    name = declared.get("preset")
    if name is None:
        return dict(declared)
    from refbert_conformance.tolerances.presets import PRESETS

    if name not in PRESETS:
        raise BackendError(f'arithmetic knows no preset "{name}"; known: {", ".join(PRESETS)}')
    preset = PRESETS[name]
    own = {key: value for key, value in declared.items() if key != "preset"}
    return {**preset.also, **own, "functions": {**preset.functions, **declared.get("functions", {})}}


def spacing(y: Any, dtype: str) -> Host:
    """The gap between numbers of a dtype at y, subnormal ones among them."""
    return gap(y, FORMATS[dtype][0], _underflow(dtype, False))


def _underflow(dtype: str, flush: bool) -> float:
    u, smallest, _ = FORMATS[dtype]
    normal = 2.0**smallest
    # The gap between subnormal numbers, 2u times the smallest normal. Half of it would do, but is not a number in
    # float64.
    return normal if flush else normal * 2 * u


def _largest(dtype: str) -> float:
    u, _, above = FORMATS[dtype]
    return (1 - u) * 2.0 ** (above - 1) * 2
