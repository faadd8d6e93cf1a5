"""Levels "forward" and "backward": what must hold exactly, or without asking the truth at all.

A bound leaves room for rounding, and a small bug may hide in it. These do not: they compare the backend with itself bit
for bit, or use numbers whose arithmetic is exact in any order (sums of small integers, powers of two).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from refbert import ops
from refbert_conformance.arithmetic import FORMATS
from refbert_conformance.bounds import ARRAYS
from refbert_conformance.cases import MASKS, OpCase, Recipe, recipes
from refbert_conformance.inputs import rounded
from refbert_conformance.measure import Failure, Record, same_bits
from refbert_conformance.numerics import built
from refbert_conformance.properties import Property
from refbert_conformance.subject import Host, Subject, backward, forward

_BASIC = ("asarray", "to_numpy")
# Ops that only move entries.
_COPYING = ("reshape", "transpose", "embedding", "gather")
# Ops whose pullbacks only copy, or multiply once.
_STEPLESS = ("add", "reshape", "transpose", "relu")
# Ops that multiply the cotangent by an exponential, which may be of any smallness.
_UNDERFLOWING = ("attention", "attention_probabilities", "cross_entropy", "gelu", "softmax", "tanh")


def properties() -> list[Property]:
    """Exact properties, op by op."""
    found = []
    for op in ARRAYS:
        here: dict[str, Any] = {"draw": _recipes(op), "needs": (*_BASIC, op)}
        found.append(
            Property(
                "backward", op, "scales with the cotangent",
                "2 or 2¹⁶ times the cotangent gives exactly as many times the gradient, and none gives none.",
                check=_doubling, **here,
            )
        )  # fmt: skip
    probes = st.integers(0, 2**20)

    def add(level: str, op: str, name: str, says: str, check: Any, draw: Any = probes, **more: Any) -> None:
        found.append(Property(level, op, name, says, check=check, draw=lambda s: draw, needs=(*_BASIC, op), **more))

    sizes = st.builds(
        Probe, st.integers(0, 2**20), st.integers(1, 4), st.integers(1, 9),
        st.sampled_from([1, 2, 3, 8, 17, 33, 64, 100, 256]), st.integers(1, 9),
    )  # fmt: skip
    add(
        "forward",
        "linear",
        "exact integers",
        "Integers whose sums the dtype holds come out exactly.",
        _linear_integers,
        sizes,
        corpus=_probes,
    )
    add("backward", "linear", "exact integers", "So do the gradients.", _linear_integers_back, sizes, corpus=_probes)
    for op in ARRAYS:
        add("forward", op, "not a number", "Where the truth is not a number, neither is the result.", _not_a_number,
            recipes(op), cost=4.0)  # fmt: skip
        if op in _COPYING:
            add("forward", op, "copies", "Copied entries keep every bit: zeros of both signs, infinities, subnormals.",
                _copied, recipes(op))  # fmt: skip
        if not op.startswith("attention"):
            add("forward", op, "infinities", "∞ in the truth gives no finite number, a number there gives a number.",
                _infinite, recipes(op), cost=4.0)  # fmt: skip
        add("backward", op, "not a number", "What a cotangent's NaN has an influence on is not a number.",
            _not_a_number_back, recipes(op), cost=4.0)  # fmt: skip
    add("backward", "embedding", "exact integers", "Gradients of repeated ids add up; unused rows get exactly 0.",
        _embedding_integers, sizes)  # fmt: skip
    add("backward", "gather", "exact integers", "Gradients of repeated rows add up; others get exactly 0.",
        _gather_integers, sizes)  # fmt: skip
    add("forward", "softmax", "uniform rows", "2ᵏ equal entries get exactly 2⁻ᵏ each, at any height.", _uniform)
    add(
        "forward",
        "softmax",
        "masked entries",
        "An entry of −∞ gets exactly 0, the rest as if it were not there.",
        _minus_infinity,
    )
    add("forward", "gelu", "odd part", "GELU(x) − GELU(−x) = x.", _gelu_odd)
    add("forward", "tanh", "odd", "tanh(−x) = −tanh x, bit for bit, and |tanh| ≤ 1.", _tanh_odd)
    visible = st.builds(Seen, st.integers(0, 2**20), st.sampled_from(MASKS), st.integers(2, 7))
    add(
        "forward", "attention", "unseen keys", "The content of masked keys and values changes no bit.", _unseen, visible
    )
    add("backward", "attention", "unseen keys", "Masked keys and values get gradient exactly 0.", _unseen_back, visible)
    add("forward", "attention_probabilities", "mask value", "A finite mask value is added to the score, as it is.",
        _added, visible)  # fmt: skip
    add("forward", "attention_probabilities", "unseen keys", "Masked keys get probability exactly 0, at any score.",
        _unseen_probabilities, visible)  # fmt: skip
    add(
        "forward",
        "attention",
        "one key",
        "With one visible key, every query gets its value, bit for bit.",
        _one_key,
        visible,
    )
    add("forward", "attention", "equal scores", "Zero queries average the visible values exactly where 2ᵏ are visible.",
        _equal_scores, visible)  # fmt: skip
    add(
        "forward",
        "attention",
        "rows apart",
        "A sequence's result does not depend on its neighbours' content.",
        _rows_apart,
        visible,
    )
    add(
        "forward",
        "dropout",
        "dropped entries",
        "Dropped entries are exactly 0, and at rate 0 nothing changes.",
        _dropped,
    )
    add(
        "backward",
        "dropout",
        "same mask",
        "The pullback does to the cotangent what the op did to x, bit for bit.",
        _same_mask,
    )
    add(
        "backward",
        "cross_entropy",
        "ignored rows",
        "Rows labelled −100 get gradient exactly 0 and do not count.",
        _ignored,
    )
    add("backward", "relu", "kink", "The gradient at 0 and −0 is 0.", _kink)
    add("backward", "layer_norm", "flat cotangent", "A constant dy·γ gives no gradient beyond rounding.", _flat)
    add(
        "forward",
        "mask_tokens",
        "draws decide",
        "Tokens and labels are refbert.ops.mask_tokens', exactly.",
        _mask_tokens,
    )
    add("forward", "mask_tokens", "inputs unchanged", "Nothing is written into the arrays given.", _mask_tokens_pure)
    return found


def _recipes(op: str) -> Callable[[Subject], Any]:
    return lambda subject: recipes(op)


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


@dataclass(frozen=True)
class Seen:
    """A seed, a kind of mask, and a length."""

    seed: int
    mask: str = "ragged"
    S: int = 4

    def case(self, dtype: str, op: str = "attention", mask_value: float = -math.inf) -> OpCase:
        """Attention with that mask; some row always sees something."""
        recipe = Recipe(
            op,
            {"B": 2 + self.seed % 2, "S": self.S, "A": 1 + self.seed % 3, "D": 1 + self.seed % 5},
            ("normal", ("normal", "large", "huge", "offset")[self.seed % 4], "mixed", "normal"),
            self.seed,
            {"mask": self.mask, "mask_value": mask_value, "rate": None},
        )
        return recipe.build(dtype)


def _call(subject: Subject, case: OpCase) -> Host:
    y, _ = forward(subject, case.op, [subject.device(a) for a in case.arrays], case.options)
    return np.array(subject.host(y))


def _back(subject: Subject, case: OpCase, dy: Host) -> list[Host]:
    _, pullback = forward(subject, case.op, [subject.device(a) for a in case.arrays], case.options)
    return [np.array(subject.host(c)) for c in backward(pullback, subject.device(dy), len(case.arrays))]


def _equal(got: Host, want: Host, what: str) -> None:
    """Equality as numbers (0 and −0 are the same)."""
    if got.shape != want.shape:
        raise Failure(f"{what} has shape {got.shape}, expected {want.shape}")
    wrong = ~((got == want) | (np.isnan(got) & np.isnan(want)))
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise Failure(f"{what}{list(at)} is {got[at]!r}, must be exactly {want[at]!r}")


def _doubling(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    """Pullbacks are linear, and multiplying by 2 rounds nothing; so does every product and sum after it."""
    case = built(subject, example)
    assert case.dy is not None
    dy = rounded(case.dy, "float16" if subject.dtype == "float16" else "bfloat16")
    once = _back(subject, case, dy)
    # float16 is subnormal below 6e-5, which steps inside an op easily are: there 2 is exact only where there are none.
    sure_ops = _STEPLESS if subject.dtype == "float16" else tuple(ARRAYS)
    if case.op in sure_ops and case.op not in subject.arithmetic.nondeterministic:
        # 2¹⁶ is what mixed precision scales losses by; float16 has no room for it.
        for factor in (2.0,) if subject.dtype == "float16" else (2.0, 2.0**16):
            _scaled(subject, case, once, _back(subject, case, factor * dy), factor)
    for name, a in zip(ARRAYS[case.op], _back(subject, case, np.zeros_like(dy)), strict=True):
        if np.isfinite(a).all():
            _equal(a, np.zeros_like(a), f"for a zero cotangent, d{name}")


def _scaled(subject: Subject, case: OpCase, once: list[Host], more: list[Host], factor: float) -> None:
    for name, a, b in zip(ARRAYS[case.op], once, more, strict=True):
        # Far below 1 steps may be subnormal, near the top they may overflow: there powers of 2 are not exact.
        small, large = (2.0**-4, 2.0**12) if subject.dtype == "float16" else (2.0**-60, 2.0**60)
        sure = np.isfinite(a) & (abs(a) >= small) & (abs(a) <= large)
        if case.op in _UNDERFLOWING:  # a term that underflows only once may break a tie: one ULP of the largest
            close = abs(b / factor - a) <= 2 * subject.arithmetic.u * abs(a).max(initial=0)
            b = np.where(close, factor * a, b)
        if sure.any():
            _equal(np.where(sure, b, 0), np.where(sure, factor * a, 0), f"for {factor:g} times the cotangent, d{name}")


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
        _equal(_call(subject, case), want.astype(np.float32 if subject.dtype != "float64" else float), "y")


def _linear_integers_back(subject: Subject, probe: Probe, record: Record) -> None:
    case, dy = _linear_case(subject, probe)
    x, w, _ = case.arrays
    want = (dy @ w, dy.T @ x, dy.sum(axis=0))
    if _representable(subject, x, *want, abs(dy.T) @ abs(x)):
        for name, got, one in zip(ARRAYS["linear"], _back(subject, case, dy), want, strict=True):
            _equal(got, one, f"d{name}")


def _embedding_integers(subject: Subject, probe: Probe, record: Record) -> None:
    V = probe.o + 2
    ids = probe.rng.integers(0, V - 1, (probe.n, min(probe.k, 100)))
    dy = probe.rng.integers(-1, 2, (*ids.shape, probe.h)).astype(float)
    want = np.zeros((V, probe.h))
    np.add.at(want, ids, dy)
    case = OpCase("embedding", (np.ones((V, probe.h)),), {"ids": ids}, dy)
    _equal(_back(subject, case, dy)[0], want, "dtable")


def _gather_integers(subject: Subject, probe: Probe, record: Record) -> None:
    x = np.ones((probe.n, probe.o, probe.h))
    positions = probe.rng.integers(0, probe.n * probe.o, min(probe.k, 100))
    dy = probe.rng.integers(-1, 2, (len(positions), probe.h)).astype(float)
    want = np.zeros((probe.n * probe.o, probe.h))
    np.add.at(want, positions, dy)
    case = OpCase("gather", (x,), {"positions": positions}, dy)
    _equal(_back(subject, case, dy)[0], want.reshape(x.shape), "dx")


def _uniform(subject: Subject, seed: int, record: Record) -> None:
    n = 2 ** (seed % 8)
    height = rounded(np.asarray((0.0, 1, -1, 88, 700, -300, 5000, 30_000)[seed // 8 % 8]), subject.dtype)
    _equal(
        _call(subject, OpCase("softmax", (np.full((2, n), height),), {})),
        np.full((2, n), 1 / n),
        f"p of {n} entries {height:g}",
    )
    # e^{-5000} is 0 in every dtype.
    lower = np.full((2, 3), rounded(height - 5000, subject.dtype))
    _equal(
        _call(subject, OpCase("softmax", (np.concatenate([lower, np.full((2, n), height)], axis=1),), {})),
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
    got = _call(subject, OpCase("softmax", (padded,), {}))
    hidden = np.ones(n + 3, bool)
    hidden[where] = False
    _equal(got[:, hidden], np.zeros((2, 3)), "p of −∞")
    from refbert_conformance.bounds import expected

    (want,) = expected("softmax", (x,), {}, subject.arithmetic)
    record.compare(np.ascontiguousarray(got[:, where]), want)


def _gelu_odd(subject: Subject, seed: int, record: Record) -> None:
    """Both halves carry the bound of GELU; their difference is x."""
    from refbert_conformance.bounds import Expected, expected

    rng = np.random.default_rng(seed)
    x = rounded(rng.standard_normal(20) * 10.0 ** rng.uniform(-4, 1, 20), subject.dtype)
    form = {"form": ("erf", "tanh")[seed % 2]}
    plus, minus = (_call(subject, OpCase("gelu", (s * x,), form)).astype(float) for s in (1, -1))
    bounds = [expected("gelu", (s * x,), form, subject.arithmetic)[0].bound for s in (1, -1)]
    difference = (plus - minus).astype(np.float64 if subject.dtype == "float64" else np.float32)
    record.compare(difference, Expected("GELU(x) − GELU(−x)", x, bounds[0] + bounds[1] + subject.arithmetic.u * abs(x)))


def _tanh_odd(subject: Subject, seed: int, record: Record) -> None:
    rng = np.random.default_rng(seed)
    x = rounded(rng.standard_normal(20) * 10.0 ** rng.uniform(-4, 2, 20), subject.dtype)
    y = _call(subject, OpCase("tanh", (x,), {}))
    _equal(_call(subject, OpCase("tanh", (-x,), {})), -y, "tanh(−x)")
    if not (abs(y) <= 1).all():
        raise Failure(f"|tanh x| is {float(abs(y).max())!r}, above 1")


def _not_a_number(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    """A NaN that disappears hides that training has gone wrong. One entry of one input is NaN; in attention, a visible
    token is, in q, k and v alike, as a layer hands it on (who skips masked keys need not see theirs)."""
    case = built(subject, example)
    arrays = [np.array(a) for a in case.arrays]
    if not all(a.size for a in arrays):
        return
    which = int(np.random.default_rng(len(repr(example))).integers(len(arrays)))
    if case.op.startswith("attention"):
        visible = np.argwhere(case.options["mask"])
        for a in arrays if len(visible) else ():
            a[tuple(visible[-1])] = np.nan
    else:
        arrays[which].reshape(-1)[arrays[which].size // 2] = np.nan
    with np.errstate(all="ignore"):
        want, _ = getattr(ops, case.op)(*arrays, **case.options)
        got = _call(subject, OpCase(case.op, tuple(arrays), case.options))
    lost = np.isnan(want) & ~np.isnan(got)
    if lost.any():
        at = [int(i) for i in np.argwhere(lost)[0]]
        raise Failure(f"with NaN in the input, y{at} is {got[tuple(at)]!r}, must be NaN")


def _infinite(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    """One entry of one input is infinite. A result that is cut off at the largest number hides that something has
    overflowed; one that is NaN where a number is due (a class that is ruled out by −∞) spoils what was fine."""
    case = built(subject, example)
    arrays = [np.array(a) for a in case.arrays]
    if not all(a.size for a in arrays):
        return
    rng = np.random.default_rng(len(repr(example)))
    x = arrays[int(rng.integers(len(arrays)))].reshape(-1)
    # GELU at −∞ is −∞ · 0.
    x[rng.integers(x.size)] = math.inf if case.op == "gelu" else rng.choice([math.inf, -math.inf])
    with np.errstate(all="ignore"):
        want, _ = getattr(ops, case.op)(*arrays, **case.options)
        got = _call(subject, OpCase(case.op, tuple(arrays), case.options))
    # NaN for ∞ is poor but hides nothing: PyTorch's GELU gives it.
    wrong = np.isinf(want) & ~np.isnan(got) & (got != want)
    wrong |= (abs(want) < subject.arithmetic.largest / 2) & ~np.isfinite(got)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise Failure(f"with an infinity in the input, y{list(at)} is {got[at]!r}, must be {want[at]!r}")


def _not_a_number_back(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    """Where another number in that place of dy changes nothing (a dropped entry, a masked key), NaN need not show."""
    case = built(subject, example)
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
        got = _back(subject, case, cotangents[0])
    for name, g, n, a, b in zip(ARRAYS[case.op], got, lost, one, other, strict=True):
        # An influence far below rounding may be none.
        hidden = np.isnan(n) & (abs(a - b) > subject.arithmetic.u) & ~np.isnan(g)
        if hidden.any():
            where = tuple(int(i) for i in np.argwhere(hidden)[0])
            raise Failure(f"with NaN in the cotangent, d{name}{list(where)} is {g[where]!r}, must be NaN")


def _copied(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    case = built(subject, example)
    _, smallest, _ = FORMATS[subject.dtype]
    special = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0]
    if not subject.arithmetic.flush_to_zero:
        special += [2.0 ** (smallest - 1), -(2.0 ** (smallest - 2))]
    x = np.random.default_rng(len(repr(example))).choice(np.array(special), case.arrays[0].shape)
    want, _ = getattr(ops, case.op)(x, **case.options)
    got = _call(subject, OpCase(case.op, (x,), case.options)).astype(float)
    if not same_bits(got, np.array(want)):
        raise Failure(f"{case.op} does not copy all of 0, −0, ±∞, NaN and subnormal numbers as they are")


# Attention


def _other_content(case: OpCase, dtype: str, size: float = 100.0) -> OpCase:
    """The same case with other numbers in the masked keys and values (finite: 0 · ∞ is NaN everywhere)."""
    hidden = ~case.options["mask"].astype(bool)  # [B, S]
    rng = np.random.default_rng(1)
    arrays = list(case.arrays)
    for i in range(1, len(arrays)):
        other = rounded(size * rng.standard_normal(arrays[i].shape), dtype)
        arrays[i] = np.where(hidden[..., None], other, arrays[i])
    return OpCase(case.op, tuple(arrays), case.options, case.dy)


def _seeing(case: OpCase) -> Host:
    """Sequences with a visible key: [B]. In the others everything is seen, equally (−∞) or as it is (−10000)."""
    return np.asarray(case.options["mask"].astype(bool).any(axis=-1))


def _unseen(subject: Subject, example: Seen, record: Record) -> None:
    case = example.case(subject.dtype)
    seeing = _seeing(case)
    a, b = (_call(subject, c)[seeing] for c in (case, _other_content(case, subject.dtype)))
    if np.isfinite(a).all():
        _equal(b, a, "with other content in masked keys, y of the sequences that see something")


def _unseen_back(subject: Subject, example: Seen, record: Record) -> None:
    case = example.case(subject.dtype)
    assert case.dy is not None
    hidden = ~case.options["mask"].astype(bool) & _seeing(case)[:, None]
    _, dk, dv = _back(subject, case, case.dy)
    for name, d in (("dk", dk), ("dv", dv)):
        _equal(d[hidden], np.zeros_like(d[hidden]), f"{name} of masked keys")


def _added(subject: Subject, example: Seen, record: Record) -> None:
    """Scores that the mask value brings level with the others: 100 · 100 = 10,000. A value that is larger, or put in
    the score's place, or rounded another way than the score, tips the balance."""
    from refbert_conformance.bounds import expected

    case = example.case(subject.dtype, "attention_probabilities", -10000.0)
    B, S, _ = case.arrays[0].shape
    mask = case.options["mask"]
    # One head of one feature: the score is the product of two numbers.
    near = np.random.default_rng(example.seed).integers(-2, 3, (B, S, 1)) / 128
    k = np.where(mask[..., None].astype(bool), near, 100 + near * (subject.arithmetic.u < 2.0**-12))
    arrays = (np.full((B, S, 1), 100.0), k)
    options = {"mask": mask, "heads": 1, "mask_value": -10000.0}
    (want,) = expected("attention_probabilities", arrays, options, subject.arithmetic)
    record.compare(_call(subject, OpCase("attention_probabilities", arrays, options)), want)


def _unseen_probabilities(subject: Subject, example: Seen, record: Record) -> None:
    case = example.case(subject.dtype, "attention_probabilities")
    p = _call(subject, case)  # [B, A, S, S]
    hidden = ~case.options["mask"].astype(bool) & _seeing(case)[:, None]
    at = np.broadcast_to(hidden[:, None, None, :], p.shape)
    _equal(p[at], np.zeros_like(p[at]), "p of masked keys")
    # Scores up to 10¹² (float16 ends at 65504): no finite number stands for −∞.
    size = 1e3 if subject.dtype == "float16" else (100.0, 1e10)[example.seed % 2]
    other = _call(subject, _other_content(case, subject.dtype, size))
    seeing = _seeing(case)
    _equal(other[seeing], p[seeing], "with other content in masked keys, p")


def _one_key(subject: Subject, example: Seen, record: Record) -> None:
    case = Seen(example.seed, "one", example.S).case(subject.dtype)
    v = case.arrays[2]
    chosen = case.options["mask"].argmax(axis=1)
    want = np.broadcast_to(v[np.arange(len(v)), chosen][:, None, :], v.shape)
    _equal(_call(subject, case), want, "y")


def _equal_scores(subject: Subject, example: Seen, record: Record) -> None:
    rng = np.random.default_rng(example.seed)
    B, S, A, D = 2, 8, 1 + example.seed % 3, 2
    mask = np.zeros((B, S), np.int64)
    for row in mask:
        row[rng.permutation(S)[: 2 ** rng.integers(0, 4)]] = 1
    k, v = rounded(rng.standard_normal((B, S, A * D)), subject.dtype), rng.integers(-8, 9, (B, S, A * D)).astype(float)
    case = OpCase("attention", (np.zeros_like(k), k, v), {"mask": mask, "heads": A, "mask_value": -math.inf})
    want = (v * mask[..., None]).sum(axis=1, keepdims=True) / mask.sum(axis=1)[:, None, None]
    _equal(_call(subject, case), np.broadcast_to(want, v.shape), "y")


def _rows_apart(subject: Subject, example: Seen, record: Record) -> None:
    case = example.case(subject.dtype)
    rng = np.random.default_rng(2)
    arrays = [a.copy() for a in case.arrays]
    for a in arrays:
        a[1:] = rounded(5 * rng.standard_normal(a[1:].shape), subject.dtype)
    other = OpCase(case.op, tuple(arrays), case.options)
    _equal(_call(subject, other)[:1], _call(subject, case)[:1], "with other neighbours, y of sequence 0: y")


# The rest


def _dropped(subject: Subject, seed: int, record: Record) -> None:
    rng = np.random.default_rng(seed)
    x = rounded(rng.standard_normal((3, 7)), subject.dtype)
    rate = (0.1, 0.3, 0.9)[seed % 3]
    keep = rng.random(x.shape) >= rate
    y = _call(subject, OpCase("dropout", (x,), {"keep": keep, "rate": rate}))
    _equal(y[~keep], np.zeros(int((~keep).sum())), "a dropped entry")
    _equal(_call(subject, OpCase("dropout", (x,), {"keep": np.ones_like(keep), "rate": 0.0})), x, "at rate 0, y")
    _equal(
        _call(subject, OpCase("dropout", (x,), {"keep": keep, "rate": 0.5})), np.where(keep, 2 * x, 0), "at rate 0.5, y"
    )


def _same_mask(subject: Subject, seed: int, record: Record) -> None:
    rng = np.random.default_rng(seed)
    x = rounded(rng.standard_normal((3, 7)), subject.dtype)
    rate = (0.1, 0.3, 0.9)[seed % 3]
    case = OpCase("dropout", (x,), {"keep": rng.random(x.shape) >= rate, "rate": rate})
    _equal(_back(subject, case, x)[0], _call(subject, case), "dx for dy = x: dx")


def _ignored(subject: Subject, seed: int, record: Record) -> None:
    rng = np.random.default_rng(seed)
    N, C = 2 + seed % 5, 2 + seed % 7
    z = rounded(2 * rng.standard_normal((N, C)), subject.dtype)
    labels = rng.integers(0, C, N)
    labels[rng.permutation(N)[: 1 + seed % N]] = ops.IGNORE
    options = {"labels": labels, "denominator": 3.0}
    dy = rounded(rng.normal(1, 2, ()), subject.dtype)
    (dz,) = _back(subject, OpCase("cross_entropy", (z,), options), dy)
    unlabelled = labels == ops.IGNORE
    _equal(dz[unlabelled], np.zeros_like(dz[unlabelled]), "dlogits of an ignored row")
    other = np.where(unlabelled[:, None], rounded(10 * rng.standard_normal(z.shape), subject.dtype), z)
    plain, changed = (_call(subject, OpCase("cross_entropy", (x,), options)) for x in (z, other))
    _equal(changed, plain, "with other logits in ignored rows, the loss")


def _kink(subject: Subject, seed: int, record: Record) -> None:
    rng = np.random.default_rng(seed)
    least = 2.0 ** FORMATS[subject.dtype][1]
    x = rng.choice(np.array([0.0, -0.0, 1.0, -1.0, least, -least]), (2, 5))
    dy = rounded(rng.standard_normal(x.shape), subject.dtype)
    _equal(_back(subject, OpCase("relu", (x,), {}), dy)[0], np.where(x > 0, dy, 0), "dx")


def _flat(subject: Subject, seed: int, record: Record) -> None:
    """q = dy γ constant is removed with the mean: Σ over rounding only; γ a power of two makes dy γ exact."""
    from refbert_conformance.bounds import expected

    rng = np.random.default_rng(seed)
    H = 2 + seed % 9
    gamma = 2.0 ** rng.integers(-2, 3, H)
    x = rounded(rng.standard_normal((3, H)), subject.dtype)
    dy = np.broadcast_to(1 / gamma, (3, H)).copy()
    case = OpCase("layer_norm", (x, gamma, np.zeros(H)), {"eps": (1e-12, 1e-5, 0.5)[seed % 3]})
    want = expected("layer_norm", case.arrays, case.options, subject.arithmetic, dy)[1]
    record.compare(_back(subject, case, dy)[0], want)


# Masked-LM data


@dataclass(frozen=True)
class Draws:
    """Tokens and the numbers that decide about them."""

    seed: int
    arrays: Mapping[str, Any] = field(default_factory=dict)


def _draws(seed: int) -> tuple[tuple[Host, Host], dict[str, Any]]:
    rng = np.random.default_rng(seed)
    shape = (1 + seed % 3, (40, 7, 200, 513)[seed // 3 % 4])
    rate = (0.15, 0.15, 0.5, 1.0)[seed % 4]
    # The edges of every interval, where < and ≤ differ.
    select = np.where(rng.random(shape) < 0.2, rate, rng.random(shape))
    action = np.where(rng.random(shape) < 0.3, rng.choice([0.0, 0.8, 0.9, 0.1, 0.2], shape), rng.random(shape))
    ids = rng.integers(5, 1000, shape)
    special = rng.random(shape) < 0.2
    options = {
        "select": select, "action": action, "random_ids": rng.integers(0, 1000, shape), "rate": rate,
        "mask_id": (103, 4, 0)[seed % 3],
    }  # fmt: skip
    return (ids, special), options


def _mask_tokens(subject: Subject, seed: int, record: Record) -> None:
    arrays, options = _draws(seed)
    want = ops.mask_tokens(*arrays, **options)
    got = subject.op("mask_tokens")(*arrays, **options)
    if not isinstance(got, tuple) or len(got) != 2:
        raise Failure("mask_tokens must return (input_ids, labels)")
    for name, a, b in zip(("input_ids", "labels"), got, want, strict=True):
        if np.asarray(a).dtype.kind not in "iu":
            raise Failure(f"{name} must be integers, they are {np.asarray(a).dtype}")
        _equal(np.asarray(a), b, name)


def _mask_tokens_pure(subject: Subject, seed: int, record: Record) -> None:
    arrays, options = _draws(seed)
    every = {**options, "input_ids": arrays[0], "special": arrays[1]}
    before = {name: np.array(value) for name, value in every.items()}
    first = [np.array(x) for x in subject.op("mask_tokens")(*arrays, **options)]
    for name, value in every.items():
        _equal(np.asarray(value), before[name], f"after the call, {name}")
    for a, b in zip(first, subject.op("mask_tokens")(*arrays, **options), strict=True):
        _equal(np.asarray(b), a, "called again, the result")


__all__ = ["properties", "same_bits"]
