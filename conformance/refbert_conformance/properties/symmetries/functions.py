"""Identities of functions: softmax of rows whose value is known, GELU and tanh at x and −x."""

from __future__ import annotations

import numpy as np

from refbert.backend import host_dtype
from refbert_conformance.cases.inputs import rounded
from refbert_conformance.cases.operations import OpCase
from refbert_conformance.engine.measure import Failure, Record
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.symmetries.common import call, equal, symmetry
from refbert_conformance.tolerances.bounds import Expected, expected


def properties() -> list[Property]:
    """softmax, GELU, tanh."""
    return [
        symmetry("forward", "softmax", "uniform rows",
                 "2ᵏ equal entries get exactly 2⁻ᵏ each, at any height.", _uniform),
        symmetry("forward", "softmax", "masked entries",
                 "An entry of −∞ gets exactly 0, the rest as if it were not there.", _minus_infinity),
        symmetry("forward", "gelu", "odd part", "GELU(x) − GELU(−x) = x.", _gelu_odd),
        symmetry("forward", "tanh", "odd", "tanh(−x) = −tanh x, bit for bit, and |tanh| ≤ 1.", _tanh_odd),
    ]  # fmt: skip


def _uniform(subject: Subject, seed: int, record: Record) -> None:
    n = 2 ** (seed % 8)
    height = rounded(np.asarray((0.0, 1, -1, 88, 700, -300, 5000, 30_000)[seed // 8 % 8]), subject.dtype)
    equal(
        call(subject, OpCase("softmax", (np.full((2, n), height),), {})),
        np.full((2, n), 1 / n),
        f"p of {n} entries {height:g}",
    )
    # e^{-5000} is 0 in every dtype.
    lower = np.full((2, 3), rounded(height - 5000, subject.dtype))
    equal(
        call(subject, OpCase("softmax", (np.concatenate([lower, np.full((2, n), height)], axis=1),), {})),
        np.repeat([[0, 1 / n]], [3, n], axis=1).repeat(2, axis=0),
        f"p of {n} entries {height:g} above three others",
    )


def _minus_infinity(subject: Subject, seed: int, record: Record) -> None:
    rng = np.random.default_rng(seed)
    n = 1 + seed % 9
    x = rounded(3 * rng.standard_normal((2, n)), subject.dtype)
    where = np.sort(rng.permutation(n + 3)[:n])
    padded = np.full((2, n + 3), -np.inf)
    padded[:, where] = x
    got = call(subject, OpCase("softmax", (padded,), {}))
    hidden = np.ones(n + 3, bool)
    hidden[where] = False
    equal(got[:, hidden], np.zeros((2, 3)), "p of −∞")
    (want,) = expected("softmax", (x,), {}, subject.arithmetic)
    record.compare(np.ascontiguousarray(got[:, where]), want)


def _gelu_odd(subject: Subject, seed: int, record: Record) -> None:
    """Both halves carry the bound of GELU; their difference is x."""
    rng = np.random.default_rng(seed)
    x = rounded(rng.standard_normal(20) * 10.0 ** rng.uniform(-4, 1, 20), subject.dtype)
    form = {"form": ("erf", "tanh")[seed % 2]}
    plus, minus = (call(subject, OpCase("gelu", (s * x,), form)).astype(float) for s in (1, -1))
    bounds = [expected("gelu", (s * x,), form, subject.arithmetic)[0].bound for s in (1, -1)]
    difference = (plus - minus).astype(host_dtype(subject.dtype))
    record.compare(difference, Expected("GELU(x) − GELU(−x)", x, bounds[0] + bounds[1] + subject.arithmetic.u * abs(x)))


def _tanh_odd(subject: Subject, seed: int, record: Record) -> None:
    rng = np.random.default_rng(seed)
    x = rounded(rng.standard_normal(20) * 10.0 ** rng.uniform(-4, 2, 20), subject.dtype)
    y = call(subject, OpCase("tanh", (x,), {}))
    equal(call(subject, OpCase("tanh", (-x,), {})), -y, "tanh(−x)")
    if not (abs(y) <= 1).all():
        raise Failure(f"|tanh x| is {abs(y).max()}, above 1")
