"""Every op at the sizes of models, where kernels have other code than for small arrays.

What is expensive about a large call is not the backend but the truth and its bound. So a large input consists of the
parts of a small one, over and over: each row, head or entry is the same as in the small case, whose bound is known, and
every place is looked at. Sums over all rows get cotangents that are 0 but for a few rows, which add up as in a small
case. Products are of integers, whose result is checked without computing it again.

Source   R. Freivalds 1977, "Probabilistic machines can use less running time": y = x wᵀ holds if y r = x (wᵀ r) for a
         random r; with integers both sides are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from refbert import ops
from refbert_conformance.bounds import ARRAYS, Expected, expected
from refbert_conformance.cases import COUNT, OpCase, Recipe, recipe
from refbert_conformance.inputs import rounded
from refbert_conformance.measure import Failure, Record, described, same_bits
from refbert_conformance.properties import Property
from refbert_conformance.subject import Host, Subject, backward, forward


@dataclass(frozen=True)
class Large:
    """An op, the sizes of its axes by letter, its options, and the seed of its numbers."""

    op: str
    sizes: Mapping[str, int]
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def axes(self) -> Mapping[str, int]:
        """What may be shrunk, by name."""
        return self.sizes

    def resized(self, **axes: int) -> Large:
        """The same with other sizes."""
        return replace(self, sizes={**self.sizes, **axes})

    @property
    def rng(self) -> np.random.Generator:
        """The numbers of this example."""
        return np.random.default_rng((self.seed, 77))


def properties() -> list[Property]:
    """Forward and backward of every op."""
    found = []
    for op in ARRAYS:
        here: dict[str, Any] = {
            "needs": ("asarray", "to_numpy", op), "cost": 20.0, "draw": _drawn(op), "corpus": _fixed(_SMALLER, op),
            "larger": _fixed(_LARGER, op), "largest": _fixed(_LARGEST, op),
        }  # fmt: skip
        found += [
            Property(
                "forward", op, "real sizes", "At the sizes of models, too, the result is within its bound.",
                check=_forward, **here,
            ),
            Property(
                "backward", op, "real sizes", "At the sizes of models, too, every cotangent is within its bound.",
                check=_backward, **here,
            ),
        ]  # fmt: skip
    return found


# What is tried. Numbers of rows are seldom multiples of a tile, and some are; widths are those of published models and
# the neighbours of powers of two; what is counted in 16 bits, or as a float32, ends at 2¹⁶ and 2²⁴.

_WIDTHS = (64, 128, 256, 312, 384, 512, 768, 1024, 2048, 3072, 4096)
_EDGES = tuple(2**k + d for k in range(5, 13) for d in (-1, 0, 1))
_WIDTH = st.one_of(st.integers(1, 200), st.sampled_from(_WIDTHS), st.sampled_from(_EDGES))
_LENGTH = st.one_of(st.integers(10, 200), st.sampled_from([127, 128, 129, 255, 256, 257, 300, 384]))
_BATCH = st.integers(1, 9)
# How many entries (products: multiplications) a drawn example may have; S gives way first, then B.
_ROOM = 2**19
_PRODUCTS = 2**26

_ELEMENTWISE = ("add", "dropout", "gelu", "relu", "tanh")
_BY_ROWS = ("layer_norm", "softmax", "cross_entropy", "mean_squared_error")
_ATTENTIONS = ("attention", "attention_probabilities")


def _fitting(op: str, sizes: Mapping[str, int], options: Mapping[str, Any], seed: int) -> Large:
    """The example, with no more rows than there is room for."""
    found, room = dict(sizes), _PRODUCTS if op == "linear" else _ROOM
    if op in _ATTENTIONS:  # one head and one sequence are what costs: S²
        found["B"] = max(1, min(found["B"], room * 8 // (found["A"] * found["S"] ** 2)))
        return Large(op, found, options, seed)
    if op == "embedding":
        found["H"] = min(found["H"], 2**22 // found["V"])
    for letter in ("S", "B"):
        if letter in found:
            others = math.prod(size for name, size in found.items() if name not in (letter, "V", "P"))
            found[letter] = max(1, min(found[letter], room // others))
    return Large(op, found, options, seed)


def _drawn(op: str) -> Callable[[Subject], Any]:
    sizes: dict[str, Any] = {letter: _AXES[letter] for letter in _letters(op)}
    strategy = st.builds(
        _fitting, st.just(op), st.fixed_dictionaries(sizes), st.sampled_from(_options(op)), st.integers(0, 2**20)
    )
    return lambda subject: strategy


_AXES: Mapping[str, Any] = {
    "B": _BATCH, "S": _LENGTH, "H": _WIDTH, "I": _WIDTH, "O": st.one_of(_WIDTH, st.sampled_from([30_522, 28_996])),
    "A": st.sampled_from([12, 16, 8, 2, 3]), "D": st.sampled_from([64, 32, 48]), "C": _WIDTH, "P": st.integers(1, 900),
    "V": st.sampled_from([30_522, 119_547, 512, 2]), "E": st.integers(2, 12),
}  # fmt: skip


def _letters(op: str) -> str:
    if op in _ATTENTIONS:
        return "BSAD"
    return {"linear": "BSIO", "embedding": "BSVH", "gather": "BSPH", "cross_entropy": "BSC", "transpose": "BSEH",
            "mean_squared_error": "BH"}.get(op, "BSH")  # fmt: skip


def _options(op: str) -> tuple[dict[str, Any], ...]:
    if op in _ATTENTIONS:
        kinds = (("ragged", 0.1), ("holes", None), ("all", 0.1), ("ragged", None), ("holes", 0.1))
        return tuple(
            {"mask": mask, "mask_value": value} | ({"rate": rate, "kept": "rate"} if op == "attention" else {})
            for value in (-math.inf, -10000.0) for mask, rate in kinds
        )  # fmt: skip
    return _OPTIONS.get(op, ({},))


_OPTIONS: Mapping[str, tuple[dict[str, Any], ...]] = {
    "gelu": ({"form": "erf"}, {"form": "tanh"}),
    "layer_norm": ({"eps": 1e-12}, {"eps": 1e-5}),
    "dropout": ({"rate": 0.1},),
    "cross_entropy": ({"over": "mean", "ignored": 0.3},),
    "mean_squared_error": ({"over": "mean"},),
    "transpose": tuple({"axes": axes} for axes in ((0, 2, 1, 3), (0, 2, 3, 1), (1, 0, 2, 3), (0, 1, 3, 2))),
    "reshape": tuple({"to": to} for to in ("merge", "split", "flat")),
}


def _fixed(table: Mapping[str, tuple[tuple[int, ...], ...]], op: str) -> Callable[[Subject], tuple[Large, ...]]:
    """The examples of a table of sizes: the options in turn."""
    options = _options(op)
    rows = table.get(op, table["others"] if op in (*_ELEMENTWISE, "reshape") else ())
    found = tuple(
        Large(op, dict(zip(_letters(op), row, strict=True)), options[i % len(options)], i) for i, row in enumerate(rows)
    )
    return lambda subject: found


_SMALLER: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "others": ((3, 67, 257),),
    "linear": ((3, 67, 129, 131), (5, 43, 768, 770), (4, 64, 128, 256)),
    "layer_norm": ((5, 211, 17), (3, 67, 768)),
    "softmax": ((5, 211, 17), (3, 67, 259)),
    "cross_entropy": ((5, 211, 17), (1, 11, 30_522)),
    "mean_squared_error": ((515, 5),),
    "attention": ((5, 70, 12, 64), (3, 133, 2, 64)),
    "attention_probabilities": ((3, 133, 2, 64),),
    "embedding": ((3, 171, 30_522, 12),),
    "gather": ((3, 171, 515, 33),),
    "transpose": ((3, 67, 12, 64),),
}
_LARGER: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "others": ((4, 131, 3072), (1, 1, 2**20 + 5), (2, 33_001, 3)),
    "gelu": ((4, 131, 3072), (4, 131, 3072), (1, 1, 2**22 + 5), (2, 33_001, 3)),
    "linear": (
        (7, 29, 768, 3072), (7, 29, 3072, 768), (5, 131, 768, 768), (8, 128, 768, 768), (1, 67, 1024, 4096),
        (1, 67, 4096, 1024), (1, 41, 768, 30_522), (1, 9, 128, 119_547), (2, 33_001, 8, 16), (1, 131_101, 3, 2),
        (1, 3, 70_001, 5), (2, 275, 16, 30_522), (1, 1, 768, 768), (1, 2, 768, 2), (4, 256, 256, 256), (9, 57, 64, 64),
    ),
    "layer_norm": ((5, 211, 768), (3, 171, 1024), (2, 33_001, 8), (8, 128, 768), (1, 5, 4099)),
    "softmax": ((2, 33_001, 5), (3, 343, 515), (8, 128, 512), (2, 12, 30_522)),
    "cross_entropy": ((2, 33_001, 3), (1, 77, 30_522), (1, 9, 119_547), (1, 161, 30_522), (8, 128, 2)),
    "mean_squared_error": ((66_003, 1), (1029, 5)),
    "attention": (
        (2, 259, 12, 64), (7, 131, 3, 64), (1, 515, 2, 64), (2, 512, 1, 64), (70, 17, 2, 64), (8, 128, 12, 64),
        (3, 129, 16, 64),
    ),
    "attention_probabilities": ((2, 259, 12, 64), (1, 515, 2, 64), (8, 128, 2, 64), (70, 17, 2, 32)),
    "embedding": (
        (2, 33_001, 2, 3), (5, 131, 30_522, 64), (8, 128, 119_547, 8), (4, 515, 512, 64), (1, 131_101, 30_522, 1),
    ),
    "gather": ((2, 33_001, 66_003, 3), (5, 131, 77, 768), (8, 128, 1024, 64)),
    "transpose": ((5, 131, 12, 64), (2, 515, 16, 64), (3, 12, 131, 67), (8, 128, 12, 64)),
}  # fmt: skip
_LARGEST: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "others": ((1, 1, 2**24 + 17), (1, 1, 2**22), (8, 512, 3072)),
    "linear": (
        (1, 2051, 768, 3072), (1, 2051, 3072, 768), (4, 515, 1024, 4096), (8, 512, 768, 768), (1, 131, 1024, 30_522),
        (1, 33, 768, 119_547), (1, 70_001, 64, 96), (1, 17, 2**17 + 3, 9), (1, 2**18 + 7, 9, 5),
    ),
    "layer_norm": ((4, 515, 1024), (1, 131_101, 9), (1, 2**18 + 7, 3), (8, 512, 768)),
    "softmax": ((1, 131_101, 9), (4, 515, 1024), (1, 40, 119_547)),
    "cross_entropy": ((1, 131_101, 9), (2, 260, 30_522), (1, 33, 119_547)),
    "attention": ((8, 512, 12, 64), (4, 515, 16, 64), (3, 257, 12, 64), (2, 1027, 1, 64), (260, 9, 2, 32)),
    "attention_probabilities": ((8, 512, 12, 64), (3, 257, 16, 64)),
    "embedding": ((8, 512, 30_522, 768), (1, 2**18 + 7, 119_547, 3)),
    "gather": ((8, 512, 700, 768), (1, 2**18 + 7, 2**18 + 9, 3)),
    "transpose": ((8, 512, 12, 64), (4, 515, 16, 64)),
}  # fmt: skip


# How an op's large case is made and judged.


def _forward(subject: Subject, large: Large, record: Record) -> None:
    _JUDGES.get(large.op, _repeated)(subject, large, record, False)


def _backward(subject: Subject, large: Large, record: Record) -> None:
    _JUDGES.get(large.op, _repeated)(subject, large, record, True)


def _called(
    subject: Subject, case: OpCase, dys: Sequence[Host | None], shapes: Sequence[tuple[int, ...]]
) -> list[list[Host]]:
    """Per cotangent of ``dys`` (None: the result itself) what comes out, on the host. A later call has been made in
    between, of the same shapes with other numbers, and what was given is as it was."""
    arrays = [subject.device(a) for a in case.arrays]
    y, pullback = forward(subject, case.op, arrays, case.options)
    found = []
    for dy in dys:
        got = [y] if dy is None else backward(pullback, subject.device(dy), len(arrays))
        names = ["y"] if dy is None else [f"d{name}" for name in ARRAYS[case.op]]
        found.append([subject.host(g, shape, n) for g, shape, n in zip(got, shapes, names, strict=True)])
    kept = [np.array(x) for x in found[-1]]
    others = [subject.device(np.roll(a, 1, axis=0) if a.ndim else a + 1) for a in case.arrays]
    _, other = forward(subject, case.op, others, case.options)
    if dys[-1] is not None:
        backward(other, subject.device(np.asarray(dys[-1]) * 2), len(arrays))
    for one, was in zip(found[-1], kept, strict=True):
        if not same_bits(one, was):
            raise Failure("a later call changed an earlier one's result")
    for name, device, array in zip(ARRAYS[case.op], arrays, case.arrays, strict=True):
        if not np.array_equal(subject.host(device), array):
            raise Failure(f"{case.op} wrote into {name}")
    return found


def _compare(
    got: Host, want: Expected, index: Host, record: Record, place: Callable[[int, int], tuple[int, ...]]
) -> None:
    """got [N, n] against rows ``index`` [N] of want [R, n]: of all that are due the same, the least and the greatest.

    place(row, column) is where an entry of got stands in the result.
    """
    order = np.argsort(index, kind="stable")
    rows, starts = np.unique(index[order], return_index=True)
    each = Expected(want.name, want.y[rows], want.bound[rows])
    for extreme in (np.minimum, np.maximum):
        try:
            record.compare(extreme.reduceat(got[order], starts, axis=0), each)
        except Failure as failure:
            if failure.worst is None:
                raise
            row, column = failure.worst.index
            mine = np.flatnonzero(index == rows[row])
            off = np.nan_to_num(abs(got[mine, column] - failure.worst.expected), nan=np.inf)
            worst = replace(failure.worst, index=place(int(mine[int(off.argmax())]), column))
            raise Failure(described(worst), worst) from None


def _exactly(got: Host, want: Host, what: str) -> None:
    if not np.array_equal(got, want):
        at = tuple(int(i) for i in np.argwhere(~(got == want))[0])
        raise Failure(f"{what}{list(at)} is {got[at]}, must be exactly {want[at]}")


# Which arrays and options have one row for each row of the result.
_OF_ROWS: Mapping[str, tuple[int, ...]] = {"add": (0, 1)}
_ROW_OPTIONS = ("keep", "labels", "targets")


def _repeated(subject: Subject, large: Large, record: Record, back: bool) -> None:
    """Ops that treat every row (or every entry) by itself, and the sums that losses and LayerNorm's pullback make."""
    entries = large.op in _ELEMENTWISE or large.op == "mean_squared_error"
    shape = tuple(large.sizes.values())
    lead, width = (shape, 1) if entries else (shape[:-1], shape[-1])
    N = math.prod(lead)
    R = min(N, 4099 if entries else max(2, min(61, 2**17 // width)))
    few = _compact(large, R, width)
    case = few.build(subject.dtype)
    index = np.arange(N) % R
    loss = large.op in ("cross_entropy", "mean_squared_error")
    if loss:  # of all rows, which a sum over R rows is not: the denominator is that of N
        case = replace(case, options={**case.options, "denominator": float(N)})
    big = _expanded(case, index, shape if not entries else lead)

    def place(row: int, column: int) -> tuple[int, ...]:
        at = tuple(int(i) for i in np.unravel_index(row, lead))
        return at if entries else (*at, column)

    if not back:
        if loss:
            _losses(subject, big, large, record)
            return
        ((y,),) = _called(subject, big, [None], [big.arrays[0].shape])
        (want,) = expected(case.op, case.arrays, case.options, subject.arithmetic)
        _compare(y.reshape(N, -1), _in_rows(want, R), index, record, place)
        return
    dy = case.dy if loss else case.dy.reshape(R, -1)[index].reshape(big.arrays[0].shape)  # type: ignore[union-attr]
    shapes = [a.shape for a in big.arrays]
    (got,) = _called(subject, big, [dy], shapes)
    wanted = expected(case.op, case.arrays, case.options, subject.arithmetic, case.dy)[1:]
    for i in _OF_ROWS.get(large.op, (0,)):
        _compare(got[i].reshape(N, -1), _in_rows(wanted[i], R), index, record, place)
    if large.op == "layer_norm":
        _gain_and_bias(subject, big, large, record)


def _compact(large: Large, R: int, width: int) -> Recipe:
    letter = "C" if large.op == "cross_entropy" else "H"
    axes = {"axes": 2 if large.op == "mean_squared_error" else 1}
    sizes = {"S": R, "B": R, letter: width}
    return recipe(large.op, sizes, ("normal",) * (COUNT[large.op] + 1), large.seed, {**large.options, **axes})


def _expanded(case: OpCase, index: Host, shape: tuple[int, ...]) -> OpCase:
    of_rows = _OF_ROWS.get(case.op, (0,))
    arrays = tuple(a[index].reshape(shape) if i in of_rows else a for i, a in enumerate(case.arrays))
    lead = shape[:-1] if case.op == "cross_entropy" else shape
    options = {n: v[index].reshape(lead) if n in _ROW_OPTIONS else v for n, v in case.options.items()}
    return replace(case, arrays=arrays, options=options, dy=None)


def _in_rows(want: Expected, R: int) -> Expected:
    return Expected(want.name, want.y.reshape(R, -1), want.bound.reshape(R, -1))


def _few(large: Large, N: int) -> Host:
    """A handful of the N rows, the first and the last among them."""
    return np.unique(np.concatenate([[0, N - 1], large.rng.integers(0, N, 10)]))


def _losses(subject: Subject, big: OpCase, large: Large, record: Record) -> None:
    """A few rows count, wherever they are; the others are ignored, or exactly what they should be."""
    (x,) = big.arrays
    rows = x.reshape(-1, x.shape[-1] if large.op == "cross_entropy" else 1)
    few = _few(large, len(rows))
    name = "labels" if large.op == "cross_entropy" else "targets"
    given = big.options[name].reshape(-1)
    counted = given.copy() if large.op == "mean_squared_error" else np.where(given == ops.IGNORE, 0, given)
    every = np.full_like(given, ops.IGNORE) if large.op == "cross_entropy" else rows[:, 0].copy()
    every[few] = counted[few]
    case = replace(big, options={**big.options, name: every.reshape(big.options[name].shape)})
    ((loss,),) = _called(subject, case, [None], [()])
    small = {**big.options, name: counted[few]}
    some = rows[few] if large.op == "cross_entropy" else rows[few, 0]
    (want,) = expected(big.op, (some,), small, subject.arithmetic)
    record.compare(loss, want)


def _gain_and_bias(subject: Subject, big: OpCase, large: Large, record: Record) -> None:
    """dγ and dβ of a cotangent that is 0 but for a few rows: no rounding hides what is left out or added twice."""
    x, gamma, beta = big.arrays
    rows = x.reshape(-1, x.shape[-1])
    few = _few(large, len(rows))
    dy = np.zeros_like(rows)
    dy[few] = rounded(large.rng.standard_normal((len(few), rows.shape[1])), subject.dtype)
    (got,) = _called(subject, big, [dy.reshape(x.shape)], [x.shape, gamma.shape, beta.shape])
    want = expected(big.op, (rows[few], gamma, beta), big.options, subject.arithmetic, dy[few])
    for i in (2, 3):
        record.compare(got[i - 1], want[i])
    _exactly(np.delete(got[0].reshape(rows.shape), few, axis=0), 0 * np.delete(rows, few, axis=0), "dx")


def _heads(subject: Subject, large: Large, record: Record, back: bool) -> None:
    """Attention: every pair of a sequence and a head is one of four, each with its mask and its dropout."""
    B, S, A, D = (large.sizes[letter] for letter in "BSAD")
    masks, kinds = min(B, 2), min(A, 2 if S <= 140 else 1)
    sizes = {"B": masks, "S": S, "A": kinds, "D": D}
    case = recipe(large.op, sizes, ("normal",) * (COUNT[large.op] + 1), large.seed, large.options).build(subject.dtype)
    sequence = np.append(np.arange(masks), large.rng.integers(0, masks, B - masks))
    head = np.append(np.arange(kinds), large.rng.integers(0, kinds, A - kinds))
    index = (sequence[:, None] * kinds + head).reshape(-1)  # [B A]

    def spread(x: Host) -> Host:
        """[masks, S, kinds D] -> [B, S, A D]."""
        return np.ascontiguousarray(x.reshape(masks, S, kinds, D)[sequence][:, :, head]).reshape(B, S, A * D)

    options = {**case.options, "mask": case.options["mask"][sequence], "heads": A}
    if case.options.get("keep") is not None:
        options["keep"] = np.ascontiguousarray(case.options["keep"][sequence][:, head])
    big = OpCase(large.op, tuple(spread(a) for a in case.arrays), options)
    maps = large.op == "attention_probabilities"  # y is [B, A, S, S]

    def apart(x: Host, b: int, a: int, is_map: bool) -> Host:
        """[b a, …]: what each head has."""
        return x.reshape(b * a, -1) if is_map else x.reshape(b, S, a, D).swapaxes(1, 2).reshape(b * a, -1)

    dy = case.dy
    assert dy is not None
    shapes = [big.arrays[0].shape] * len(big.arrays)
    if back:
        wide = np.ascontiguousarray(dy[sequence][:, head]) if maps else spread(dy)
        (got,) = _called(subject, big, [wide], shapes)
        wanted = expected(case.op, case.arrays, case.options, subject.arithmetic, dy)[1:]
    else:
        (got,) = _called(subject, big, [None], [(B, A, S, S) if maps else shapes[0]])
        wanted = expected(case.op, case.arrays, case.options, subject.arithmetic)
    for one, want in zip(got, wanted, strict=True):
        is_map = maps and not back
        y, bound = (apart(x, masks, kinds, is_map) for x in (want.y, want.bound))
        place = partial(_in_head, A, S, D, is_map)
        _compare(apart(one, B, A, is_map), Expected(want.name, y, bound), index, record, place)


def _in_head(A: int, S: int, D: int, is_map: bool, row: int, column: int) -> tuple[int, ...]:
    """Where column i of head ``row`` is: in [B, A, S, S] or in [B, S, A D]."""
    (b, a), (i, j) = divmod(row, A), divmod(column, S if is_map else D)
    return (b, a, i, j) if is_map else (b, i, a * D + j)


def _copies(subject: Subject, large: Large, record: Record, back: bool) -> None:
    """reshape and transpose: the same numbers, each in its place."""
    shape = tuple(large.sizes.values())
    x = rounded(large.rng.standard_normal(shape), subject.dtype)
    if large.op == "transpose":
        options: dict[str, Any] = {"axes": large.options["axes"]}
    else:
        B, S, H = shape
        options = {"shape": {"merge": (B * S, H), "split": (B, S, H, 1), "flat": (B * S * H,)}[large.options["to"]]}
    y, pullback = getattr(ops, large.op)(x, **options)
    dy = rounded(large.rng.standard_normal(y.shape), subject.dtype)
    ((got,),) = _called(subject, OpCase(large.op, (x,), options), [dy if back else None], [shape if back else y.shape])
    _exactly(got, pullback(dy)[0] if back else y, "dx" if back else "y")


def _lookups(subject: Subject, large: Large, record: Record, back: bool) -> None:
    """embedding and gather: rows are copied; integers add up exactly."""
    table, name, ids = _looked_up(large)
    table = rounded(table, subject.dtype)
    room = 1 / max(subject.arithmetic.u, subject.arithmetic.u_accumulation, subject.arithmetic.u_step)
    y_shape = (*ids.shape, table.shape[-1])
    if not back:
        ((y,),) = _called(subject, OpCase(large.op, (table,), {name: ids}), [None], [y_shape])
        _exactly(y, table.reshape(-1, table.shape[-1])[ids], "y")
        return
    most = max(1, int(np.bincount(ids.reshape(-1)).max()))
    dy = large.rng.integers(-2, 3, y_shape) * (large.rng.random(y_shape) < room / (8 * most))
    want = np.zeros((math.prod(table.shape[:-1]), table.shape[-1]))
    np.add.at(want, ids, dy)
    ((got,),) = _called(subject, OpCase(large.op, (table,), {name: ids}), [dy.astype(float)], [table.shape])
    _exactly(got, want.reshape(table.shape), "dtable" if large.op == "embedding" else "dx")


def _looked_up(large: Large) -> tuple[Host, str, Host]:
    B, S, H = (large.sizes[letter] for letter in "BSH")
    rng = large.rng
    if large.op == "embedding":
        V = large.sizes["V"]
        ids = rng.integers(0, V, (B, S))
        ids[-1, -1], ids[0, 0] = V - 1, 0
        return rng.standard_normal((V, H)), "ids", ids
    positions = rng.integers(0, B * S, large.sizes["P"])
    positions[-1] = B * S - 1
    return rng.standard_normal((B, S, H)), "positions", positions


def _product(subject: Subject, large: Large, record: Record, back: bool) -> None:
    """linear: x of odd integers with as many bits as the sums leave room for, w and dy of small ones, often 0."""
    B, S, n_in, n_out = (large.sizes[letter] for letter in "BSIO")
    rows, rng, a = B * S, large.rng, subject.arithmetic
    room = 1 / max(a.u, a.u_accumulation)  # integers up to here are exact
    bits = int(min(2**12, 1 / max(a.u, a.u_matmul), max(2.0, room / 4 / min(n_in, 512))))
    dtype = np.float64 if subject.dtype == "float64" else np.float32
    x = _integers(2 * rng.integers(-bits // 2, bits // 2, _POOL) + 1, (rows, n_in), dtype)
    w = _integers(_sparse(rng, min(room / 2 / bits / n_in, room / 4 / n_out)), (n_out, n_in), dtype)
    b = rng.integers(-2, 3, n_out).astype(dtype)
    case = OpCase("linear", (x.reshape(B, S, n_in), w, b), {})
    if not back:
        ((y,),) = _called(subject, case, [None], [(B, S, n_out)])
        _freivalds(y.reshape(rows, n_out), x, w.T, b, rng, "y")
        return
    dy = _integers(_sparse(rng, min(room / 2 / bits / rows, room / 4 / n_out)), (rows, n_out), dtype)
    (got,) = _called(subject, case, [dy.reshape(B, S, n_out)], [(B, S, n_in), w.shape, b.shape])
    dx, dw, db = got
    none = np.zeros(n_in, dtype)
    _freivalds(dx.reshape(rows, n_in), dy, w, none, rng, "dx")
    _freivalds(dw, dy.T, x, none, rng, "dw")
    _exactly(db, dy.sum(axis=0), "db")


# Large matrices repeat this many numbers: a prime, so that no two rows or columns of a matrix are alike.
_POOL = 99_991


def _integers(pool: Host, shape: tuple[int, int], dtype: Any) -> Host:
    return np.resize(pool.astype(dtype), shape)


def _sparse(rng: np.random.Generator, share: float) -> Host:
    """Numbers from −2 to 2, 1.2 on average, of which the share (of what sums have room for) is not 0."""
    return rng.integers(-2, 3, _POOL) * (rng.random(_POOL) < share / 2)


def _freivalds(y: Host, x: Host, z: Host, b: Host, rng: np.random.Generator, name: str) -> None:
    """y [N, O] = x [N, K] z [K, O] + b, exactly: both sides times a random r, and where they differ, the row itself.

    r has no zero, so a single wrong entry always shows; several show but for a chance of 1 in 126.
    """
    r = rng.integers(1, 64, y.shape[1]) * rng.choice([-1.0, 1.0], y.shape[1])
    with np.errstate(all="ignore"):
        left = _times(y, r)
    wrong = np.flatnonzero(left != _times(x, _times(z, r)) + b @ r)
    if wrong.size:
        row = int(wrong[0])
        _exactly(y[row], x[row].astype(float) @ z + b, f"{name}[{row}]")
        raise Failure(f"{name}[{row}] does not add up")


def _times(a: Host, r: Host) -> Host:
    """a r in float64, without a copy of all of a at once."""
    return np.concatenate([np.asarray(part, np.float64) @ r for part in np.array_split(a, 1 + a.size // 2**21)])


_JUDGES: Mapping[str, Callable[[Subject, Large, Record, bool], None]] = {
    **dict.fromkeys(_ATTENTIONS, _heads),
    **dict.fromkeys(("reshape", "transpose"), _copies),
    **dict.fromkeys(("embedding", "gather"), _lookups),
    "linear": _product,
}
