"""What the symmetries share: a property in one line, a probe and its sizes, one call of the backend, equality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from refbert.backend import Host
from refbert_conformance.cases.operations import OpCase
from refbert_conformance.engine.measure import Failure
from refbert_conformance.engine.property import Property, about
from refbert_conformance.engine.subject import Subject, backward, forward


@dataclass(frozen=True)
class Probe:
    """A seed and three sizes."""

    seed: int
    n: int = 2
    o: int = 3
    k: int = 8
    h: int = 4

    @property
    def rng(self) -> np.random.Generator:
        """The numbers of this probe."""
        return np.random.default_rng(self.seed)


PROBES = st.integers(0, 2**20)
SIZES = st.builds(
    Probe, st.integers(0, 2**20), st.integers(1, 4), st.integers(1, 9),
    st.sampled_from([1, 2, 3, 8, 17, 33, 64, 100, 256]), st.integers(1, 9),
)  # fmt: skip


def symmetry(level: str, op: str, name: str, says: str, check: Any, draw: Any = PROBES, **more: Any) -> Property:
    """A property of one op; its examples are seeds unless ``draw`` is another strategy."""
    return about(level, op)(name, says, check, draw, **more)


def call(subject: Subject, case: OpCase) -> Host:
    """y on the host, copied."""
    y, _ = forward(subject, case.op, subject.devices(case.arrays), case.options)
    return np.array(subject.host(y))


def back(subject: Subject, case: OpCase, dy: Host) -> list[Host]:
    """The cotangents for dy on the host, copied."""
    _, pullback = forward(subject, case.op, subject.devices(case.arrays), case.options)
    return [np.array(one) for one in subject.hosts(backward(pullback, subject.device(dy), len(case.arrays)))]


def equal(got: Host, want: Host, what: str) -> None:
    """Equality as numbers (0 and −0 are the same)."""
    if got.shape != want.shape:
        raise Failure(f"{what} has shape {got.shape}, expected {want.shape}")
    right = (got == want) | (np.isnan(got) & np.isnan(want))
    must(right, got, what, lambda at: f"exactly {want[at]}")


def must(right: Host, got: Host, what: str, due: Callable[[tuple[int, ...]], str]) -> None:
    """Raise `Failure` for the first place that is not right; due(place): what it must be."""
    if not right.all():
        at = tuple(int(i) for i in np.argwhere(~right)[0])
        raise Failure(f"{what}{list(at)} is {got[at]}, must be {due(at)}")
