"""NaN, infinities, zeros of both signs and subnormal numbers: none may disappear, appear or change."""

from __future__ import annotations

import math

import numpy as np

from refbert import ops
from refbert.backend import Host
from refbert_conformance.cases.operations import OpCase, Recipe, recipes
from refbert_conformance.engine.measure import Failure, Record, same_bits
from refbert_conformance.engine.property import Property, about
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.symmetries.common import back, call, must
from refbert_conformance.tolerances.arithmetic import FORMATS
from refbert_conformance.tolerances.bounds import ARRAYS, expected

# Ops that only move entries.
_COPYING = ("reshape", "transpose", "embedding", "gather")


def properties() -> list[Property]:
    """Every op with a pullback."""
    found = []
    for op in ARRAYS:
        forward, backward = (about(level, op, draw=recipes(op)) for level in ("forward", "backward"))
        found.append(forward("not a number", "Where the reference is not a number, neither is the result.",
                             _not_a_number, cost=4.0, corpus=_NOTHING_TO_DIVIDE_BY.get(op, ())))  # fmt: skip
        if op in _COPYING:
            said = "Copied entries keep every bit: zeros of both signs, infinities, subnormals."
            found.append(forward("copies", said, _copied))
        if not op.startswith("attention"):
            said = "∞ in the reference gives no finite number, a number there gives a number."
            found.append(forward("infinities", said, _infinite, cost=4.0))
        found.append(backward("not a number", "What a cotangent's NaN has an influence on is not a number.",
                              _not_a_number_back, cost=4.0))  # fmt: skip
    return found


# A denominator of 0 multiplies by 0, which keeps NaN: who returns 0 without a look has lost it.
_NOTHING_TO_DIVIDE_BY = {
    "cross_entropy": (OpCase("cross_entropy", (np.ones((1, 2)),), {"labels": np.array([1]), "denominator": 0.0}),),
    "mean_squared_error": (
        OpCase("mean_squared_error", (np.ones((1, 2)),), {"targets": np.ones((1, 2)), "denominator": 0.0}),
    ),
}


def _not_a_number(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    """A NaN that disappears hides that training has gone wrong. One entry of one input is NaN; in attention, a visible
    token is, in q, k and v alike, as a layer hands it on (who skips masked keys need not see theirs)."""
    case = example.build(subject.dtype)
    arrays = [np.array(a) for a in case.arrays]
    if not all(a.size for a in arrays):
        return
    which = int(np.random.default_rng(len(repr(example))).integers(len(arrays)))
    if case.op.startswith("attention"):
        visible = np.argwhere(case.options["mask"])
        for a in arrays if len(visible) else ():
            a[tuple(visible[-1])] = np.nan
        where = f"{', '.join(ARRAYS[case.op])}{visible[-1].tolist() if len(visible) else ''}"
    else:
        where = _place(ARRAYS[case.op][which], arrays[which], arrays[which].size // 2)
        arrays[which].reshape(-1)[arrays[which].size // 2] = np.nan
    with np.errstate(all="ignore"):
        want, _ = getattr(ops, case.op)(*arrays, **case.options)
        got = call(subject, OpCase(case.op, tuple(arrays), case.options))
    must(~np.isnan(want) | np.isnan(got), got, f"with NaN at {where}, y", lambda at: "NaN")


def _infinite(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    """One entry of one input is infinite. A result that is cut off at the largest number hides that something has
    overflowed; one that is NaN where a number is due (a class that is ruled out by −∞) spoils what was fine."""
    case = example.build(subject.dtype)
    arrays = [np.array(a) for a in case.arrays]
    if not all(a.size for a in arrays):
        return
    rng = np.random.default_rng(len(repr(example)))
    which = int(rng.integers(len(arrays)))
    x, name = arrays[which].reshape(-1), ARRAYS[case.op][which]
    place = int(rng.integers(x.size))
    # GELU at −∞ is −∞ · 0.
    x[place] = math.inf if case.op == "gelu" else rng.choice([math.inf, -math.inf])
    with np.errstate(all="ignore"):
        want, _ = getattr(ops, case.op)(*arrays, **case.options)
        got = call(subject, OpCase(case.op, tuple(arrays), case.options))
    # NaN for ∞ is poor but hides nothing: PyTorch's GELU gives it.
    wrong = np.isinf(want) & ~np.isnan(got) & (got != want)
    wrong |= (abs(want) < subject.arithmetic.largest / 2) & ~np.isfinite(got)
    if case.op == "layer_norm" and name == "gamma":
        wrong &= ~(np.isinf(got) & np.isinf(want) & _of_either_sign(subject, arrays[0], case.options["eps"]))
    must(~wrong, got, f"with {x[place]} at {_place(name, arrays[which], place)}, y", lambda at: f"{want[at]}")


def _of_either_sign(subject: Subject, x: Host, eps: float) -> Host:
    """Where x̂ is 0 up to rounding, so that rounding decides the sign of ∞ · x̂."""
    features = x.shape[-1]
    (xhat,) = expected("layer_norm", (x, np.ones(features), np.zeros(features)), {"eps": eps}, subject.arithmetic)
    return np.asarray(abs(xhat.y) <= xhat.bound)


def _not_a_number_back(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    """Where another number in that place of dy changes nothing (a dropped entry, a masked key), NaN need not show."""
    case = example.build(subject.dtype)
    assert case.dy is not None
    if not case.dy.size:
        return
    at = int(np.random.default_rng(len(repr(example))).integers(case.dy.size))
    cotangents = []
    for value in (math.nan, 1.0, 3.0):
        dy = np.array(case.dy)
        dy.reshape(-1)[at] = value
        cotangents.append(dy)
    with np.errstate(all="ignore"):
        _, pullback = getattr(ops, case.op)(*case.arrays, **case.options)
        lost, one, other = (pullback(dy) for dy in cotangents)
        got = back(subject, case, cotangents[0])
    for name, g, n, a, b in zip(ARRAYS[case.op], got, lost, one, other, strict=True):
        # An influence far below rounding may be none.
        hidden = np.isnan(n) & (abs(a - b) > subject.arithmetic.u) & ~np.isnan(g)
        must(~hidden, g, f"with NaN at {_place('dy', case.dy, at)}, d{name}", lambda at: "NaN")


def _place(name: str, x: Host, at: int) -> str:
    """An entry by its name: what the case that is shown does not have in it."""
    return f"{name}{[int(i) for i in np.unravel_index(at, x.shape)] if x.ndim else ''}"


def _copied(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    case = example.build(subject.dtype)
    _, smallest, _ = FORMATS[subject.dtype]
    special = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0]
    if not subject.arithmetic.flush_to_zero:
        special += [2.0 ** (smallest - 1), -(2.0 ** (smallest - 2))]
    x = np.random.default_rng(len(repr(example))).choice(np.array(special), case.arrays[0].shape)
    want, _ = getattr(ops, case.op)(x, **case.options)
    got = call(subject, OpCase(case.op, (x,), case.options)).astype(float)
    if not same_bits(got, np.array(want)):
        raise Failure(f"{case.op} does not copy all of 0, −0, ±∞, NaN and subnormal numbers as they are")
