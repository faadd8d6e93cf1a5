"""Products and sums alone: pullbacks scale exactly with the cotangent, and linear is exact on integers."""

from __future__ import annotations

import numpy as np

from refbert.backend import Host
from refbert_conformance.cases.inputs import rounded
from refbert_conformance.cases.operations import OpCase, Recipe, recipes
from refbert_conformance.engine.measure import Record
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.symmetries.common import SIZES, Probe, back, call, equal, symmetry
from refbert_conformance.tolerances.bounds import ARRAYS

# Ops whose pullbacks only copy, or multiply once.
_STEPLESS = ("add", "reshape", "transpose", "relu")
# Ops that multiply the cotangent by an exponential, which may be of any smallness.
_UNDERFLOWING = ("attention", "attention_probabilities", "cross_entropy", "gelu", "softmax", "tanh")


def properties() -> list[Property]:
    """Every op with a pullback, then linear."""
    said = "2 or 2¹⁶ times the cotangent gives exactly as many times the gradient, and none gives none."
    return [
        *(symmetry("backward", op, "scales with the cotangent", said, _doubling, recipes(op)) for op in ARRAYS),
        symmetry("forward", "linear", "exact integers", "Integers whose sums the dtype holds come out exactly.",
                 _linear_integers, SIZES, corpus=_probes),
        symmetry("backward", "linear", "exact integers", "So do the gradients.",
                 _linear_integers_back, SIZES, corpus=_probes),
    ]  # fmt: skip


def _doubling(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    """Pullbacks are linear, and multiplying by 2 rounds nothing; so does every product and sum after it."""
    case = example.build(subject.dtype)
    assert case.dy is not None
    dy = rounded(case.dy, "float16" if subject.dtype == "float16" else "bfloat16")
    once = back(subject, case, dy)
    # float16 is subnormal below 6e-5, which steps inside an op easily are: there 2 is exact only where there are none.
    sure_ops = _STEPLESS if subject.dtype == "float16" else tuple(ARRAYS)
    if case.op in sure_ops and case.op not in subject.arithmetic.nondeterministic:
        # 2¹⁶ is what mixed precision scales losses by; float16 has no room for it.
        for factor in (2.0,) if subject.dtype == "float16" else (2.0, 2.0**16):
            _scaled(subject, case, once, back(subject, case, factor * dy), factor)
    for name, a in zip(ARRAYS[case.op], back(subject, case, np.zeros_like(dy)), strict=True):
        if np.isfinite(a).all():
            equal(a, np.zeros_like(a), f"for a zero cotangent, d{name}")


def _scaled(subject: Subject, case: OpCase, once: list[Host], more: list[Host], factor: float) -> None:
    for name, a, b in zip(ARRAYS[case.op], once, more, strict=True):
        # Far below 1 steps may be subnormal, near the top they may overflow: there powers of 2 are not exact.
        small, large = (2.0**-4, 2.0**12) if subject.dtype == "float16" else (2.0**-60, 2.0**60)
        sure = np.isfinite(a) & (abs(a) >= small) & (abs(a) <= large)
        if case.op in _UNDERFLOWING:  # a term that underflows only once may break a tie: one ULP of the largest
            close = abs(b / factor - a) <= 2 * subject.arithmetic.u * abs(a).max(initial=0)
            b = np.where(close, factor * a, b)
        if sure.any():
            equal(np.where(sure, b, 0), np.where(sure, factor * a, 0), f"for {factor:g} times the cotangent, d{name}")


def _exact_integers(probe: Probe, subject: Subject, shape: tuple[int, ...], terms: int, other: int) -> Host:
    """Odd integers, as large as lets ``terms`` products with numbers up to ``other`` add up exactly in any order.

    Sums stay below 1/u of the accumulation and results below 1/u of the dtype, so nothing is ever rounded; a TF32 or
    half-precision product, or a term left out or added twice, shows. Source: Ozaki et al. 2012, §2 (error-free
    products).
    """
    a = subject.arithmetic
    room = 1 / max(a.u, a.u_accumulation)  # integers up to here are exact
    most = int(min(2**13, 1 / max(a.u, a.u_matmul), room // (terms * other)))
    return 2 * probe.rng.integers(-max(most, 2) // 2, max(most, 2) // 2, shape) + 1.0


def _probes(subject: Subject) -> tuple[Probe, ...]:
    """Long sums, and sizes that are multiples of what tensor cores take: kernels of another precision step in there."""
    return (Probe(1, 2, 3, 1024), Probe(2, 8, 8, 512), Probe(3, 8, 8, 64), Probe(4, 64, 64, 64), Probe(5, 32, 16, 32))


def _linear_case(subject: Subject, probe: Probe) -> tuple[OpCase, Host]:
    other = 2
    x = _exact_integers(probe, subject, (probe.n, probe.k), max(probe.k, probe.n) + 1, other)
    rng = np.random.default_rng(probe.seed + 1)
    w = rng.integers(-other, other + 1, (probe.o, probe.k)).astype(float)
    b = rng.integers(-other, other + 1, probe.o).astype(float)
    dy = rng.integers(-other, other + 1, (probe.n, probe.o)).astype(float)
    return OpCase("linear", (x, w, b), {}, dy), dy


def _representable(subject: Subject, *arrays: Host) -> bool:
    return all(np.array_equal(rounded(a, subject.dtype), a) for a in arrays)


def _linear_integers(subject: Subject, probe: Probe, record: Record) -> None:
    case, _ = _linear_case(subject, probe)
    x, w, b = case.arrays
    want = x @ w.T + b
    if _representable(subject, x, want, abs(x) @ abs(w.T) + abs(b)):
        equal(call(subject, case), want.astype(np.float32 if subject.dtype != "float64" else float), "y")


def _linear_integers_back(subject: Subject, probe: Probe, record: Record) -> None:
    case, dy = _linear_case(subject, probe)
    x, w, _ = case.arrays
    want = (dy @ w, dy.T @ x, dy.sum(axis=0))
    if _representable(subject, x, *want, abs(dy.T) @ abs(x)):
        for name, got, one in zip(ARRAYS["linear"], back(subject, case, dy), want, strict=True):
            equal(got, one, f"d{name}")
