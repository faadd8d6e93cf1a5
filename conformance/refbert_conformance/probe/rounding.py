"""How results are stored, what operands of products are rounded to, and what becomes of subnormal numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from refbert.backend import Host
from refbert_conformance.cases.inputs import rounded
from refbert_conformance.engine.measure import Failure
from refbert_conformance.probe.operations import OPERANDS, Operations
from refbert_conformance.tolerances.arithmetic import FORMATS

# Parts of the gap between two neighbours, above 1 and above the number behind it, and where each rounding takes them:
# as whole gaps above 1.
POWERS = ((0, 0.25), (0, 0.5), (0, 0.75))
_PARTS = (*POWERS, (1, 0.25), (1, 0.5), (1, 0.75))
ROUNDINGS: Mapping[str, Callable[[float], float]] = {
    "to nearest, ties to even": lambda x: float(np.rint(x)),
    "to nearest, ties away from zero": lambda x: float(np.copysign(np.floor(abs(x) + 0.5), x)),
    "to nearest, ties up": lambda x: float(np.floor(x + 0.5)),
    "toward zero": lambda x: float(np.trunc(x)),
    "down": lambda x: float(np.floor(x)),
    "up": lambda x: float(np.ceil(x)),
    "away from zero": lambda x: float(np.copysign(np.ceil(abs(x)), x)),
}
RANDOM, UNKNOWN = "at random", "in no way known here"
FIXED = "small numbers lose bits that larger ones keep, as in fixed point, which no declaration has"
AGAIN = 8  # calls, until what is rounded at random has come out in two ways


def rounding(of: Callable[[Host], Host], bits: int, parts: Sequence[tuple[int, float]] = _PARTS) -> str:
    """How ``of`` rounds numbers between 1 and 2, and their negatives, to so many bits; ``of`` gets what lies between
    neighbours, as [N, 2]: a number with that many bits, and what is to be added to it."""
    gap = 2.0 ** (1 - bits)
    sums = np.array([(s * (1 + k * gap), s * part * gap) for s in (1, -1) for k, part in parts])
    found = (of(sums) - np.sign(sums[:, 0])) / gap
    if not np.isfinite(found).all():
        raise Failure("not finite")
    if any(not np.array_equal(found, (of(sums) - np.sign(sums[:, 0])) / gap) for _ in range(AGAIN)):
        return RANDOM
    exact = [s * (k + part) for s in (1, -1) for k, part in parts]
    for name, rule in ROUNDINGS.items():
        if found.tolist() == [rule(x) for x in exact]:
            return name
    return UNKNOWN


def stored(o: Operations) -> str:
    """How the result of an addition is rounded to the dtype."""
    bits = bits_of(o.subject.dtype)
    return rounding(lambda sums: o("add", [sums[:, 0], sums[:, 1]])[0], bits)


def bits_of(dtype: str) -> int:
    """Of its significand."""
    return round(-math.log2(FORMATS[dtype][0]))


@dataclass(frozen=True)
class Operand:
    """What a number is rounded to before it is multiplied: its bits, how, and the format that this is."""

    bits: int
    rounding: str
    name: str | None

    def __str__(self) -> str:
        if self.name is None:
            return "not rounded"
        if self.name == "bfloat16x3":  # or another sum of parts
            return f"{self.rounding}, as with bfloat16x3"
        return f"{self.bits} bits, {self.rounding}: {self.name}"


# By bits: with the range of float32, and with a small one.
_FORMATS = {11: ("tensorfloat32", "float16"), 8: ("bfloat16", "bfloat16"), 4: ("float8_e4m3", "float8_e4m3"),
            3: ("float8_e5m2", "float8_e5m2")}  # fmt: skip


def operand(o: Operations, site: str, widest: int) -> Operand | None:
    """What the operand at a place of `OPERANDS` is rounded to; None where it does not show. Rounding to ``widest``
    bits is the accumulator's, through which products go."""
    dtype, copied = o.subject.dtype, OPERANDS[site]
    powers = 2.0 ** np.arange(-5, 6)
    if not np.array_equal(copied(o, powers), powers):
        return None
    full = bits_of(dtype)
    ends = 1 + 2.0 ** -np.arange(1, full)
    kept = copied(o, ends) == ends
    if not np.array_equal(copied(o, ends / 16) == ends / 16, kept):
        raise Failure(FIXED)
    bits = full if kept.all() else int(np.argmin(kept)) + 1
    mantissas = rounded(np.random.default_rng(0).uniform(1, 2, 4096), dtype)
    if bits >= min(full, widest):
        if bits < full:
            return Operand(bits, "", None)
        off = float(np.max(abs(copied(o, mantissas) - mantissas) / mantissas))
        if not off:
            return Operand(bits, "", None)
        split = 2.0**-20 < off <= FORMATS["bfloat16x3"][0]
        return Operand(full, f"off by {off:.2g}", "bfloat16x3" if split else _loosest(2 * off))
    how = rounding(lambda sums: copied(o, sums.sum(-1)), bits)
    u = 2.0**-bits if how.startswith("to nearest") else 2.0 ** (1 - bits)
    narrow = not copied(o, np.array([2.0**-40]))[0]
    named = _FORMATS.get(bits)
    if named and how.startswith("to nearest"):
        return Operand(bits, how, named[narrow])
    return Operand(bits, how, _loosest(u))


def _loosest(u: float) -> str:
    """The tightest format that covers it."""
    names: Sequence[str] = ("bfloat16x3", "tensorfloat32", "tensorfloat32-truncated", "bfloat16", "bfloat16-truncated",
                            "float8_e4m3", "float8_e5m2")  # fmt: skip
    return next((name for name in names if FORMATS[name][0] >= u), names[-1])


def _kept(found: float, kept: float, flushed: float) -> bool:
    if found not in (kept, flushed):
        raise Failure(f"{found:.9g}, where {kept:.9g} is due")
    return found == kept


def _least(o: Operations) -> float:
    """The smallest normal number."""
    return float(2.0 ** FORMATS[o.subject.dtype][1])


def _added(o: Operations) -> tuple[bool, bool]:
    least = _least(o)

    def add(x: float, z: float) -> float:
        return float(o("add", [np.array([x]), np.array([z])])[0][0])

    return _kept(add(least / 2, least), 1.5 * least, least), _kept(add(2 * least, -1.5 * least), least / 2, 0)


def _multiplied(o: Operations) -> tuple[bool, bool]:
    least = _least(o)
    root = 2.0 ** ((FORMATS[o.subject.dtype][1] - 2) // 2)

    def product(x: float, w: float) -> float:
        return float(o("linear", [np.array([[x]]), np.array([[w]]), np.zeros(1)])[0][0, 0])

    if product(1, 1) != 1:
        raise Failure("a number times 1 is another")
    return _kept(product(least / 2, 8.0), 4 * least, 0), _kept(product(root, root), root * root, 0)


def _tanh(o: Operations) -> tuple[bool, bool]:
    normal, found = o("tanh", [np.array([4 * _least(o), _least(o) / 2])])[0]
    if not (math.isfinite(found) and normal):
        raise Failure(f"{normal:.9g} and {found:.9g}, where two small numbers are due")
    return bool(found), bool(found)  # whether it is the argument that is flushed does not show


# Operation -> whether a subnormal argument counts, and whether a result may be subnormal.
SUBNORMALS: Mapping[str, Callable[[Operations], tuple[bool, bool]]] = {
    "add": _added, "linear": _multiplied, "tanh": _tanh,
}  # fmt: skip
