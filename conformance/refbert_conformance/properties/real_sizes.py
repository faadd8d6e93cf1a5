"""Every op at the sizes of models, where kernels have other code than for small arrays.

What is expensive about a large call is not the backend but the reference and its bound. So a large input consists of
the parts of a small one, over and over: each row, head or entry is that of the small case, whose bound is known, and
every place is looked at. Sums over all rows get cotangents that are 0 but for a few rows, which add up as in a small
case. Products are of integers, whose result is checked without computing it again.

Source   R. Freivalds 1977, "Probabilistic machines can use less running time": y = x wᵀ holds if y r = x (wᵀ r) for a
         random r; with integers both sides are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from refbert import ops
from refbert.backend import Host, host_dtype
from refbert_conformance.cases.inputs import rounded
from refbert_conformance.cases.large import ATTENTIONS, ELEMENTWISE, LARGER, LARGEST, SMALLER, Large, drawn, fixed
from refbert_conformance.cases.operations import COUNT, OpCase, Recipe, recipe
from refbert_conformance.engine.measure import Failure, Record, described, same_bits
from refbert_conformance.engine.property import Property, about
from refbert_conformance.engine.subject import Subject, backward, forward
from refbert_conformance.tolerances.bounds import ARRAYS, OUTPUTS, Expected, expected, settled


def properties() -> list[Property]:
    """Forward and backward of every op."""
    return [
        about(level, op, draw=drawn(op), cost=20.0)(
            "real sizes", f"At the sizes of models, too, {what} is within its bound.", partial(judged, back),
            corpus=fixed(SMALLER, op), larger=fixed(LARGER, op), largest=fixed(LARGEST, op),
        )
        for op in ARRAYS
        for level, what, back in (("forward", "the result", False), ("backward", "every cotangent", True))
    ]  # fmt: skip


def judged(back: bool, subject: Subject, large: Large, record: Record) -> None:
    """Hold one call of that size, or its gradient, to its bound."""
    _JUDGES.get(large.op, _repeated)(subject, large, record, back)


def _called(subject: Subject, case: OpCase, dy: Host | None, shapes: Sequence[tuple[int, ...]]) -> list[Host]:
    """What comes out on the host: the cotangents for ``dy``, or for None the result. A later call has been made in
    between, of the same shapes with other numbers, and what was given is as it was."""
    arrays = subject.devices(case.arrays)
    y, pullback = forward(subject, case.op, arrays, case.options)
    got = [y] if dy is None else backward(pullback, subject.device(dy), len(arrays))
    names = OUTPUTS[case.op][:1] if dy is None else OUTPUTS[case.op][1:]
    found = [subject.host(g, shape, n) for g, shape, n in zip(got, shapes, names, strict=True)]
    kept = [np.array(x) for x in found]
    others = subject.devices(np.roll(a, 1, axis=0) if a.ndim else a + 1 for a in case.arrays)
    _, other = forward(subject, case.op, others, case.options)
    if dy is not None:
        backward(other, subject.device(np.asarray(dy) * 2), len(arrays))
    for one, was in zip(found, kept, strict=True):
        if not same_bits(one, was):
            raise Failure("a later call changed an earlier one's result")
    for name, now, array in zip(ARRAYS[case.op], subject.hosts(arrays), case.arrays, strict=True):
        if not np.array_equal(now, array):
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
    entries = large.op in ELEMENTWISE or large.op == "mean_squared_error"
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
        (y,) = _called(subject, big, None, [big.arrays[0].shape])
        (want,) = expected(case.op, case.arrays, case.options, subject.arithmetic)
        _compare(y.reshape(N, -1), _in_rows(want, R), index, record, place)
        return
    dy = case.dy if loss else case.dy.reshape(R, -1)[index].reshape(big.arrays[0].shape)  # type: ignore[union-attr]
    shapes = [a.shape for a in big.arrays]
    got = _called(subject, big, dy, shapes)
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
    (loss,) = _called(subject, case, None, [()])
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
    got = _called(subject, big, dy.reshape(x.shape), [x.shape, gamma.shape, beta.shape])
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
        got = _called(subject, big, wide, shapes)
        wanted = expected(case.op, case.arrays, case.options, subject.arithmetic, dy)[1:]
    else:
        got = _called(subject, big, None, [(B, A, S, S) if maps else shapes[0]])
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
    (got,) = _called(subject, OpCase(large.op, (x,), options), dy if back else None, [shape if back else y.shape])
    _exactly(got, pullback(dy)[0] if back else y, "dx" if back else "y")


def _lookups(subject: Subject, large: Large, record: Record, back: bool) -> None:
    """embedding and gather: rows are copied; integers add up exactly, and the sum is rounded once."""
    table, name, ids = _looked_up(large)
    table = rounded(table, subject.dtype)
    a = subject.arithmetic
    room = min(1 / a.u_accumulation, a.largest)  # sums up to here are exact, and in the dtype's range
    y_shape = (*ids.shape, table.shape[-1])
    if not back:
        (y,) = _called(subject, OpCase(large.op, (table,), {name: ids}), None, [y_shape])
        _exactly(y, table.reshape(-1, table.shape[-1])[ids], "y")
        return
    most = max(1, int(np.bincount(ids.reshape(-1)).max()))
    # 0.5 on average: many of them pass 256 and 2048, where a sum in bfloat16 and one in float16 lose them.
    dy = large.rng.integers(-1, 3, y_shape) * (large.rng.random(y_shape) < room / (8 * most))
    want = np.zeros((math.prod(table.shape[:-1]), table.shape[-1]))
    np.add.at(want, ids, dy)
    (got,) = _called(subject, OpCase(large.op, (table,), {name: ids}), dy.astype(float), [table.shape])
    what, due = "dtable" if large.op == "embedding" else "dx", want.reshape(table.shape)
    small = abs(due) <= 1 / a.u
    _exactly(np.where(small, got, 0), np.where(small, due, 0), what)
    record.compare(got, Expected(what, due, settled(due, np.zeros_like(due), a)))


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
    dtype = host_dtype(subject.dtype)
    x = _integers(2 * rng.integers(-bits // 2, bits // 2, _POOL) + 1, (rows, n_in), dtype)
    w = _integers(_sparse(rng, min(room / 2 / bits / n_in, room / 4 / n_out)), (n_out, n_in), dtype)
    w = _adding_up(w, (room - 2) / bits, 1)  # and 2 for b
    b = rng.integers(-2, 3, n_out).astype(dtype)
    case = OpCase("linear", (x.reshape(B, S, n_in), w, b), {})
    if not back:
        (y,) = _called(subject, case, None, [(B, S, n_out)])
        _freivalds(y.reshape(rows, n_out), x, w.T, b, rng, "y")
        return
    dy = _integers(_sparse(rng, min(room / 2 / bits / rows, room / 4 / n_out)), (rows, n_out), dtype)
    dy = _adding_up(_adding_up(dy, room / bits, 0), room / 2, 1)  # against x, and against w, which is 2 at most
    got = _called(subject, case, dy.reshape(B, S, n_out), [(B, S, n_in), w.shape, b.shape])
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


def _adding_up(x: Host, most: float, axis: int) -> Host:
    """x with 0 where the magnitudes along the axis come to more: no sum of them, in any order, is then any larger."""
    return np.where(np.cumsum(abs(x), axis=axis) <= most, x, 0)


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
    **dict.fromkeys(ATTENTIONS, _heads),
    **dict.fromkeys(("reshape", "transpose"), _copies),
    **dict.fromkeys(("embedding", "gather"), _lookups),
    "linear": _product,
}
