"""Making a failing case readable: fewer, rounder numbers that fail all the same.

Hypothesis shrinks shapes and choices; this goes through the arrays that came out, entry by entry (delta debugging:
Zeller & Hildebrandt 2002, with single entries as the smallest step).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np

from refbert.backend import Host
from refbert_conformance.cases.inputs import rounded
from refbert_conformance.cases.operations import OpCase

SECONDS = 3.0
_ENTRIES = 400


class Sized(Protocol):
    """An example whose sizes may be changed."""

    @property
    def axes(self) -> Mapping[str, int]:
        """The sizes, by name."""

    def resized(self, **axes: int) -> Any:
        """The same with other sizes."""


Example = TypeVar("Example", bound=Sized)


def shortened(example: Example, fails: Callable[[Example], bool]) -> Example:
    """The example with every size as small as it goes, one after the other, by bisection (a fault that begins at a
    size fails from there on)."""
    until = time.perf_counter() + SECONDS
    for letter, size in example.axes.items():
        passes, failing = 0, size
        while failing - passes > 1 and time.perf_counter() < until:
            middle = 1 if passes == 0 and failing == size else (passes + failing) // 2
            passes, failing = (passes, middle) if fails(example.resized(**{letter: middle})) else (middle, failing)
        example = example.resized(**{letter: failing})
    return example


def large(case: OpCase) -> bool:
    """Too much to go through entry by entry, or to print."""
    return sum(a.size for a in (*case.arrays, case.dy) if a is not None) > _ENTRIES


def minimised(case: OpCase, fails: Callable[[OpCase], bool], dtype: str) -> OpCase:
    """The case with as many entries as possible 0, 1 or short; at least as it came."""
    until = time.perf_counter() + SECONDS
    arrays: list[Any] = [*case.arrays, case.dy]
    if large(case):
        return case

    def made(arrays: list[Any]) -> OpCase:
        return replace(case, arrays=tuple(arrays[:-1]), dy=arrays[-1])

    def accept(i: int, candidate: Host) -> bool:
        if time.perf_counter() > until or np.array_equal(candidate, arrays[i]):
            return False
        tried = [*arrays]
        tried[i] = candidate
        if not fails(made(tried)):
            return False
        arrays[i] = candidate
        return True

    for i, array in enumerate(arrays):
        if array is None:
            continue
        for whole in (np.zeros_like(array), np.ones_like(array), rounded(np.round(array), dtype)):
            if accept(i, whole):
                break
    for i, array in enumerate(arrays):
        if array is None:
            continue
        for at in np.ndindex(*array.shape):
            for value in _simpler(float(arrays[i][at]), dtype):
                candidate = arrays[i].copy()
                candidate[at] = value
                if accept(i, candidate):
                    break
    return made(arrays)


def _simpler(x: float, dtype: str) -> list[float]:
    """Candidates, simplest first, up to x itself."""
    found = [0.0, 1.0, float(np.round(x))]
    if np.isfinite(x) and x != 0:
        found += [float(f"{x:.{digits}g}") for digits in (1, 2)]
    return [float(rounded(np.asarray(v), dtype)) for v in found if abs(v) <= max(abs(x), 1)]
