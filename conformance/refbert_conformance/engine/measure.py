"""Comparing one result with what is expected of it: ρ, ULPs, the worst element; and the failure that this may be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refbert.backend import Host, host_dtype
from refbert_conformance.tolerances.arithmetic import Arithmetic, spacing
from refbert_conformance.tolerances.bounds import Expected

# Upper edges of the histogram of distances in ULPs; what is above the last is counted as ">1024".
ULPS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 1024.0)
ULPS_LABELS = (*(f"{edge:g}" for edge in ULPS), f">{ULPS[-1]:g}")


@dataclass(frozen=True)
class Worst:
    """The element that is furthest off, measured in bounds."""

    output: str
    index: tuple[int, ...]
    got: float
    expected: float
    bound: float
    rho: float
    ulps: float


class Failure(Exception):
    """The property does not hold. One line, and the worst element where there is one."""

    def __init__(self, message: str, worst: Worst | None = None) -> None:
        super().__init__(message)
        self.worst = worst


def words(error: BaseException) -> str:
    """An exception's kind and text, however its author has made it."""
    try:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    except Exception:  # noqa: BLE001
        return type(error).__name__


class Stopped(BaseException):
    """A backend's process had to end: no check's business, nor Hypothesis's.

    reason: what is said of it, after "the backend". kind: "slow" if it gave no answer without computing for long,
    "hung" if it computed too long, "killed" by a signal that the system sends too, "full" if it used too much memory
    after other properties, else "died". example: the one tried.
    """

    def __init__(self, kind: str, reason: str, example: str = "") -> None:
        super().__init__(reason)
        self.kind, self.reason, self.example = kind, reason, example


class Unsupported(Exception):
    """The backend does not offer what the property is about."""


class Unavailable(Exception):
    """It cannot be tried here."""


@dataclass
class Record:
    """What was measured over all examples of one property."""

    arithmetic: Arithmetic
    rho: float | None = None
    ulps: Counter[str] = field(default_factory=Counter)
    judged: int = 0
    unchecked: int = 0

    def compare(self, got: Any, want: Expected, where: str = "") -> None:
        """Measure one output; raises `Failure` if it has another shape or dtype, or is beyond its bound."""
        name = f"{where}{want.name}"
        array = check_array(got, want.y.shape, self.arithmetic, name)
        if not array.size:
            return
        y, bound = want.y, want.bound
        with np.errstate(all="ignore"):
            difference = np.where(array == y, 0, abs(array - y))
            rho = np.where(difference == 0, 0, difference / bound)
            # NaN where a number is due is as wrong as can be.
            rho = np.where(np.isnan(rho) | (np.isnan(array) & ~np.isnan(y)), np.inf, rho)
            rho = np.where(np.isinf(bound), 0, rho)
            ulps = np.where(difference == 0, 0, difference / spacing(y, self.arithmetic.dtype))
        judged = np.isfinite(bound)
        self.judged += int(judged.sum())
        self.unchecked += int((~judged).sum())
        places = np.searchsorted(ULPS, ulps[judged & ~np.isnan(ulps)], side="left")
        for place, count in zip(*np.unique(places, return_counts=True), strict=True):
            self.ulps[ULPS_LABELS[place]] += int(count)
        top = float(rho.max())
        self.rho = max(self.rho or 0.0, top)
        if top > 1:
            at = tuple(int(i) for i in np.unravel_index(int(rho.argmax()), rho.shape))
            worst = Worst(name, at, float(array[at]), float(y[at]), float(bound[at]), top, float(ulps[at]))
            raise Failure(described(worst), worst)

    def compare_all(self, got: Sequence[Any], want: Sequence[Expected], where: str = "") -> None:
        """`compare` output by output; raises `Failure` also if their number differs."""
        if len(got) != len(want):
            raise Failure(f"{where}expected {len(want)} arrays ({', '.join(w.name for w in want)}), got {len(got)}")
        for one, expected in zip(got, want, strict=True):
            self.compare(one, expected, where)


def described(worst: Worst) -> str:
    """The worst element in one line."""
    place = f"[{', '.join(map(str, worst.index))}]" if worst.index else ""
    allowed = f"may be off by {worst.bound:.3g}" if worst.bound else "must be exact"
    rho = f", ρ = {worst.rho:.{telling(worst.rho, 1.0, 3)}g}" if worst.bound and np.isfinite(worst.rho) else ""
    digits = telling(worst.got, worst.expected)
    return f"{worst.output}{place} is {worst.got:.{digits}g}, should be {worst.expected:.{digits}g} and {allowed}{rho}"


def telling(a: float, b: float, least: int = 6) -> int:
    """How many significant digits tell two numbers apart, with one to spare; at least so many, at most 17, which tell
    all numbers apart."""
    apart = (digits for digits in range(least, 17) if f"{a:.{digits - 1}g}" != f"{b:.{digits - 1}g}")
    return next(apart, 17) if a != b else least


def row_worst(got: Host, want: Expected, record: Record | None = None) -> Worst | None:
    """The row (last axis) whose error has the largest norm for its tolerance, ``want.bound`` [...] (see `noise`)."""
    if got.shape != want.y.shape:
        raise Failure(f"{want.name} has shape {got.shape}, expected {want.y.shape}")
    if not got.size:
        return None
    with np.errstate(all="ignore"):
        errors = np.sqrt((np.atleast_1d(np.asarray(got, np.float64) - want.y) ** 2).sum(axis=-1))
        errors = np.where(np.isnan(errors), np.inf, errors)
        rho = np.where(errors == 0, 0, errors / want.bound)
        rho = np.where(np.isinf(want.bound), 0, np.where(np.isnan(rho), np.inf, rho))
    if record is not None:
        record.judged += int(np.isfinite(want.bound).sum())
        record.unchecked += int(np.isinf(want.bound).sum())
    at = tuple(int(i) for i in np.unravel_index(int(np.argmax(rho)), rho.shape))
    return Worst(want.name, at, float(errors[at]), 0.0, float(want.bound[at]), float(rho[at]), 0.0)


def row_described(worst: Worst) -> str:
    """The worst row in one line."""
    place = f"[{', '.join(map(str, worst.index))}]" if worst.index else ""
    digits = telling(worst.got, worst.bound, 3)
    return (
        f"{worst.output}{place} is off by {worst.got:.{digits}g} (norm over the last axis); rounding may take it "
        f"{worst.bound:.{digits}g} away, ρ = {worst.rho:.{telling(worst.rho, 1.0, 3)}g}"
    )


def row_failure(got: Host, want: Expected, record: Record | None = None) -> None:
    """Raise `Failure` if a row is beyond its tolerance."""
    worst = row_worst(got, want, record)
    if worst is None:
        return
    if record is not None:
        record.rho = max(record.rho or 0.0, worst.rho)
    if worst.rho > 1:
        raise Failure(row_described(worst), worst)


def check_array(array: Any, shape: tuple[int, ...], arithmetic: Arithmetic, name: str) -> Host:
    """The array on the host; raises `Failure` for anything but a NumPy array of that shape in the dtype agreed on."""
    if not isinstance(array, np.ndarray):
        raise Failure(f"{name}: to_numpy gave {type(array).__name__}, not a NumPy array")
    if array.shape != shape:
        raise Failure(f"{name} has shape {array.shape}, expected {shape}")
    want = np.dtype(host_dtype(arithmetic.dtype))
    if array.dtype != want:
        raise Failure(f"{name}: to_numpy gave {array.dtype}, but {arithmetic.dtype} comes back as {want}")
    return array


def same_bits(a: Host, b: Host) -> bool:
    """Bitwise equality, any NaN equal to any NaN, and −0 unequal to 0."""
    return a.shape == b.shape and a.dtype == b.dtype and bool(alike(a, b).all())


def alike(a: Host, b: Host) -> Host:
    """Where two arrays of one shape have the same numbers, as `same_bits` takes them."""
    return np.asarray((a == b) & (np.signbit(a) == np.signbit(b)) | np.isnan(a) & np.isnan(b))
