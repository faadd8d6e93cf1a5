"""Numbers to try: shapes are small, values are of every kind that breaks arithmetic.

Hypothesis draws (shape, regime, seed, size) and NumPy fills the array: arrays drawn entry by entry repeat a handful of
values (a 4 × 64 array had 5 distinct ones at the median), which no rounding error survives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from refbert.backend import Host
from refbert_conformance.tolerances.arithmetic import FORMATS


def rounded(x: Host, dtype: str) -> Host:
    """The nearest numbers (ties to even) of a dtype, as float64; NumPy has no bfloat16, whose bits are float32's."""
    x = np.asarray(x, np.float64)
    if dtype in ("float64", "float32", "float16"):
        with np.errstate(over="ignore"):
            return x.astype(dtype).astype(np.float64)
    # 8 significant bits, by scaling each number's leading bit to 2⁷; subnormals stop at 2⁻¹³³.
    _, exponent = np.frexp(np.where(np.isfinite(x), x, 0))
    exponent = np.maximum(exponent - 8, -133)
    y = np.where(np.isfinite(x), np.ldexp(np.rint(np.ldexp(np.where(np.isfinite(x), x, 0), -exponent)), exponent), x)
    return np.where(abs(y) >= 2.0**128, np.copysign(np.inf, x), y)


Draw = Callable[[np.random.Generator, tuple[int, ...]], Host]


def _near_constant(rng: np.random.Generator, shape: tuple[int, ...]) -> Host:
    """Rows that are almost one number: LayerNorm divides by their small spread."""
    return rng.standard_normal((*shape[:-1], 1)[-len(shape) :] if shape else ()) + 0.01 * rng.standard_normal(shape)


# Simplest first: a failure shrinks towards the front.
REGIMES: Mapping[str, Draw] = {
    "integers": lambda rng, shape: rng.integers(-4, 5, shape).astype(float),
    "normal": lambda rng, shape: rng.standard_normal(shape),
    # Zeros of both signs, ones, and a few others: ties, kinks, exact cancellation.
    "few": lambda rng, shape: rng.choice(np.array([0.0, -0.0, 1.0, -1.0, 0.5, -3.0, 8.0]), shape),
    "constant": lambda rng, shape: np.full(shape, rng.standard_normal()),
    "offset": lambda rng, shape: 30 * rng.standard_normal() + rng.standard_normal(shape),
    "mixed": lambda rng, shape: rng.standard_normal(shape) * 10.0 ** rng.uniform(-3, 2, shape),
    "near constant": _near_constant,
    "large": lambda rng, shape: 40 * rng.standard_normal(shape),
    # Attention scores beyond ±10,000, where a mask value of −10,000 is not −∞.
    "huge": lambda rng, shape: 200 * rng.standard_normal(shape),
    "tiny": lambda rng, shape: 1e-5 * rng.standard_normal(shape),
}


def _enormous(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Host:
    """Where x³ overflows and x² does not (float16: near its end)."""
    x = rng.uniform(0.1, 1, shape) * rng.choice(np.array([1.0, -1.0]), shape)
    return np.asarray(x * (3e4 if dtype == "float16" else 1e15))


def _subnormal(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Host:
    """Below the dtype's smallest normal number, which only a declared flush_to_zero makes 0."""
    return np.asarray(rng.uniform(-0.5, 0.5, shape) * 2.0 ** FORMATS[dtype][1])


def _positive(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Host:
    return np.asarray(10 + rng.standard_normal(shape))


def _negative(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Host:
    """By positive ones: scores far below 0, which a 0 in a padded place outweighs."""
    return np.asarray(-10 + rng.standard_normal(shape))


# The ends of the dtype's range, for ops whose steps stay within it, and what is of one sign: only where the corpus
# names them.
EXTREMES = {"enormous": _enormous, "subnormal": _subnormal, "positive": _positive, "negative": _negative}


def fill(shape: tuple[int, ...], regime: str, seed: int | tuple[int, ...], dtype: str) -> Host:
    """An array of that regime, exact in the dtype, as float64."""
    rng = np.random.default_rng(seed)
    if regime in EXTREMES:
        return rounded(EXTREMES[regime](rng, shape, dtype), dtype)
    x = REGIMES[regime](rng, shape)
    if dtype == "float16" and regime in ("offset", "mixed", "large", "huge"):
        x = x / 8  # float16 ends at 65504, which products of such numbers pass
    return rounded(x, dtype)


def masks(mask: Host) -> dict[str, Host]:
    """The same mask in other words: whatever is not 0 means yes, and -0.0 means no."""
    yes = mask != 0
    return {
        "255": yes.astype(np.uint8) * np.uint8(255),
        "2": yes.astype(np.int64) * 2,
        "-1": -yes.astype(np.int8),
        "0.5": yes.astype(np.float32) * np.float32(0.5),
        "-1.0": -yes.astype(np.float64),
        "2**32": yes.astype(np.int64) * 2**32,
    }
