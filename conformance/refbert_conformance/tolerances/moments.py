"""How large errors are in the mean, and how far their mean may be from 0, under the declared arithmetic.

The bounds of `bounds` hold for every input and every order of summation, so they are far above what rounding does to
ordinary numbers, and a fault has room below them. Of inputs drawn at random more can be said. To first order the error
of a result is

    e = Σ_i c_i δ_i + s        δ_i: roundings to nearest, |δ_i| ≤ u;   s: what is the same at every call

**The mean.** A rounding takes off low bits, of a number that comes of random ones. They say nothing of the number's
size or sign, and a rounding to nearest goes up as often and as far as down (of two that are equally near, to the even
one: again either). Given all but those bits, Σ c_i δ_i is therefore symmetric about 0. What is left is s: functions and
constants, which may err the same way everywhere. `Systematic` runs the rules of `running_error` without roundings to
nearest, and keeps the errors of functions as declared (5 ULP where nothing is), of constants (one rounding each), of
declared operands, and of accumulators declared to cut.

    |E(e | size and sign)| ≤ b = b₁ + b₂        b₁: the rules with s alone;   b₂: everything of second order

b₂ has two parts, which matter in float16 and bfloat16 alone. The bound E is a power series in u whose coefficients
bound those of the error (each rule bounds the series of its operation term by term), and E(2u) − 2E(u) is at least
twice its terms from u² on. And low bits are not quite even: over a gap h ≤ 2u|x|, a density f moves the mean of a
rounding by h²|f′/f|/12 ≤ u²|x|/3 |x f′/f|, where |x f′/f| is x² for a normal number, 1 on average; that, with what
happens at powers of two (3h²/32 once per binade, less than u²|x|/5), is below 4u²|x| each, 4uE in all.

**The mean square.** ‖x‖ = √E x² obeys the triangle inequality, whatever depends on what. `Spread` therefore runs the
same rules with errors that add up, and only the roundings of one sum join as the root of their squares: each is of mean
0 given those before it. A sum of n terms rounds its partial sums s_k, so ‖e‖² ≤ u² Σ_k E s_k², which needs the terms in
an order that does not depend on them, and

    terms of random sign              Σ_k E s_k² ≤ Σ_i (how many partial sums hold term i) p_i² ≤ n Σ p²
    exchangeable terms                E s_k² ≤ (k/n) Σp² + (k/n)² (Σp)², added up over k:  ≤ n (Σp² + (Σp)²)

with a rounding of each product included. Both are at most σ² = n u² (Σp² + (Σp)²), instead of n² u² (Σ|p|)².
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from refbert.backend import Host
from refbert_conformance.tolerances.arithmetic import FORMATS, Arithmetic
from refbert_conformance.tolerances.bounds import Expected, Options, expected

_CUT = frozenset(u for name, (u, _, _) in FORMATS.items() if name.endswith("-truncated"))


@dataclass(frozen=True)
class Spread(Arithmetic):
    """The rules give ‖e‖."""

    def gamma(self, n: Any, u: float) -> Any:
        """n independent roundings."""
        return np.sqrt(n) * u

    def summed(self, powers: Callable[[int], Host], total: Host) -> Host:
        """As the module derives it."""
        return np.asarray(np.sqrt(powers(2) + total**2))


@dataclass(frozen=True)
class Systematic(Arithmetic):
    """The rules give what may be the same at every call."""

    def gamma(self, n: Any, u: float) -> Any:
        """Roundings to nearest: nothing. What cuts always cuts the same way."""
        return super().gamma(n, u) if u in _CUT else 0.0 * n

    def rounding(self, u: float, size: Any) -> Any:
        """As `gamma`."""
        return u * size if u in _CUT else 0.0 * size


@dataclass(frozen=True)
class Moments:
    """Of one output: the reference, how far the mean error may be from 0 (``bias``, given the size of the result), and
    the root of the mean square of what is left (``spread``)."""

    name: str
    y: Host
    bias: Host
    spread: Host


def moments(
    op: str, arrays: Sequence[Host], options: Options, arithmetic: Arithmetic, dy: Host | None
) -> list[Moments]:
    """The result's (and with ``dy`` the cotangents')."""

    def bounds(a: Arithmetic) -> list[Expected]:
        return expected(op, arrays, options, a, dy)

    spreads, systematic = bounds(_as(Spread, arithmetic)), bounds(_as(Systematic, arithmetic))
    second: list[Any] = [0.0] * len(spreads)
    if arithmetic.low:
        once, twice = bounds(arithmetic), bounds(_doubled(arithmetic))
        u = max(arithmetic.u, arithmetic.u_step)
        with np.errstate(invalid="ignore"):  # ∞ − ∞
            second = [
                np.maximum(two.bound - 2 * one.bound, 0) / 2 + 4 * u * one.bound
                for one, two in zip(once, twice, strict=True)
            ]
    return [
        Moments(of.name, of.y, fixed.bound + more, of.bound)
        for of, fixed, more in zip(spreads, systematic, second, strict=True)
    ]


def _as(kind: type[Arithmetic], a: Arithmetic) -> Arithmetic:
    return kind(**{one.name: getattr(a, one.name) for one in fields(a)})


def _doubled(a: Arithmetic) -> Arithmetic:
    return replace(a, u=2 * a.u, u_step=2 * a.u_step, u_accumulation=2 * a.u_accumulation, u_matmul=2 * a.u_matmul)
