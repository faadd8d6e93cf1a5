"""What must come to nothing: dropped entries, ignored rows, the gradient at relu's kink and of a flat row."""

from __future__ import annotations

import numpy as np

from refbert import ops
from refbert_conformance.cases.inputs import rounded
from refbert_conformance.cases.operations import OpCase
from refbert_conformance.engine.measure import Record
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.symmetries.common import back, call, equal, symmetry
from refbert_conformance.tolerances.arithmetic import FORMATS
from refbert_conformance.tolerances.bounds import expected


def properties() -> list[Property]:
    """dropout, cross_entropy, relu, layer_norm."""
    return [
        symmetry("forward", "dropout", "dropped entries",
                 "Dropped entries are exactly 0, and at rate 0 nothing changes.", _dropped),
        symmetry("backward", "dropout", "same mask",
                 "The pullback does to the cotangent what the op did to x, bit for bit.", _same_mask),
        symmetry("backward", "cross_entropy", "ignored rows",
                 "Rows labelled −100 get gradient exactly 0 and do not count.", _ignored),
        symmetry("backward", "relu", "kink", "The gradient at 0 and −0 is 0.", _kink),
        symmetry("backward", "layer_norm", "flat cotangent",
                 "A constant dy·γ gives no gradient beyond rounding.", _flat),
    ]  # fmt: skip


def _dropped(subject: Subject, seed: int, record: Record) -> None:
    rng = np.random.default_rng(seed)
    x = rounded(rng.standard_normal((3, 7)), subject.dtype)
    rate = (0.1, 0.3, 0.9)[seed % 3]
    keep = rng.random(x.shape) >= rate
    y = call(subject, OpCase("dropout", (x,), {"keep": keep, "rate": rate}))
    equal(y[~keep], np.zeros(int((~keep).sum())), "a dropped entry")
    equal(call(subject, OpCase("dropout", (x,), {"keep": np.ones_like(keep), "rate": 0.0})), x, "at rate 0, y")
    equal(
        call(subject, OpCase("dropout", (x,), {"keep": keep, "rate": 0.5})), np.where(keep, 2 * x, 0), "at rate 0.5, y"
    )


def _same_mask(subject: Subject, seed: int, record: Record) -> None:
    rng = np.random.default_rng(seed)
    x = rounded(rng.standard_normal((3, 7)), subject.dtype)
    rate = (0.1, 0.3, 0.9)[seed % 3]
    case = OpCase("dropout", (x,), {"keep": rng.random(x.shape) >= rate, "rate": rate})
    equal(back(subject, case, x)[0], call(subject, case), "dx for dy = x: dx")


def _ignored(subject: Subject, seed: int, record: Record) -> None:
    rng = np.random.default_rng(seed)
    N, C = 2 + seed % 5, 2 + seed % 7
    z = rounded(2 * rng.standard_normal((N, C)), subject.dtype)
    labels = rng.integers(0, C, N)
    labels[rng.permutation(N)[: 1 + seed % N]] = ops.IGNORE
    options = {"labels": labels, "denominator": 3.0}
    dy = rounded(rng.normal(1, 2, ()), subject.dtype)
    (dz,) = back(subject, OpCase("cross_entropy", (z,), options), dy)
    unlabelled = labels == ops.IGNORE
    equal(dz[unlabelled], np.zeros_like(dz[unlabelled]), "dlogits of an ignored row")
    other = np.where(unlabelled[:, None], rounded(10 * rng.standard_normal(z.shape), subject.dtype), z)
    plain, changed = (call(subject, OpCase("cross_entropy", (x,), options)) for x in (z, other))
    equal(changed, plain, "with other logits in ignored rows, the loss")


def _kink(subject: Subject, seed: int, record: Record) -> None:
    rng = np.random.default_rng(seed)
    least = 2.0 ** FORMATS[subject.dtype][1]
    x = rng.choice(np.array([0.0, -0.0, 1.0, -1.0, least, -least]), (2, 5))
    dy = rounded(rng.standard_normal(x.shape), subject.dtype)
    equal(back(subject, OpCase("relu", (x,), {}), dy)[0], np.where(x > 0, dy, 0), "dx")


def _flat(subject: Subject, seed: int, record: Record) -> None:
    """q = dy γ constant is removed with the mean: Σ over rounding only; γ a power of two makes dy γ exact."""
    rng = np.random.default_rng(seed)
    H = 2 + seed % 9
    gamma = 2.0 ** rng.integers(-2, 3, H)
    x = rounded(rng.standard_normal((3, H)), subject.dtype)
    dy = np.broadcast_to(1 / gamma, (3, H)).copy()
    case = OpCase("layer_norm", (x, gamma, np.zeros(H)), {"eps": (1e-12, 1e-5, 0.5)[seed % 3]})
    want = expected("layer_norm", case.arrays, case.options, subject.arithmetic, dy)[1]
    record.compare(back(subject, case, dy)[0], want)
