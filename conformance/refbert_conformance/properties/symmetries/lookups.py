"""embedding and gather: in the gradient, what is named twice adds up and what is not named gets nothing."""

from __future__ import annotations

import numpy as np

from refbert_conformance.cases.operations import OpCase
from refbert_conformance.engine.measure import Record
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.symmetries.common import SIZES, Probe, back, equal, symmetry


def properties() -> list[Property]:
    """On integers, which add up exactly."""
    return [
        symmetry("backward", "embedding", "exact integers",
                 "Gradients of repeated ids add up; unused rows get exactly 0.", _embedding_integers, SIZES),
        symmetry("backward", "gather", "exact integers",
                 "Gradients of repeated rows add up; others get exactly 0.", _gather_integers, SIZES),
    ]  # fmt: skip


def _embedding_integers(subject: Subject, probe: Probe, record: Record) -> None:
    V = probe.o + 2
    ids = probe.rng.integers(0, V - 1, (probe.n, min(probe.k, 100)))
    dy = probe.rng.integers(-1, 2, (*ids.shape, probe.h)).astype(float)
    want = np.zeros((V, probe.h))
    np.add.at(want, ids, dy)
    case = OpCase("embedding", (np.ones((V, probe.h)),), {"ids": ids}, dy)
    equal(back(subject, case, dy)[0], want, "dtable")


def _gather_integers(subject: Subject, probe: Probe, record: Record) -> None:
    x = np.ones((probe.n, probe.o, probe.h))
    positions = probe.rng.integers(0, probe.n * probe.o, min(probe.k, 100))
    dy = probe.rng.integers(-1, 2, (len(positions), probe.h)).astype(float)
    want = np.zeros((probe.n * probe.o, probe.h))
    np.add.at(want, positions, dy)
    case = OpCase("gather", (x,), {"positions": positions}, dy)
    equal(back(subject, case, dy)[0], want.reshape(x.shape), "dx")
