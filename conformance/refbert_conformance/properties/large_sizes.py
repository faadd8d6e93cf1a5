"""Every op beyond the sizes of models: the lane ``--sizes large``.

Where counters end and kernels switch: 2²⁰ in a row, more rows than 2²³, heads of every width in use, a vocabulary of
250,002, all small numbers of rows; and arrays of more than 2³¹ bytes, whose far end has an offset that no 32-bit number
holds. Judged as in `real_sizes`, the last kind by what repeats in it.
"""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path

import numpy as np

from refbert.backend import Host, host_dtype
from refbert_conformance.cases.inputs import rounded
from refbert_conformance.cases.large import BEYOND, fixed
from refbert_conformance.cases.operations import COUNT, recipe
from refbert_conformance.engine.measure import Failure, Record, Unavailable
from refbert_conformance.engine.property import Property, about
from refbert_conformance.engine.subject import Subject, backward, forward
from refbert_conformance.properties.real_sizes import judged
from refbert_conformance.tolerances.bounds import ARRAYS, Expected, expected

# Rows or entries after which the numbers of a vast array repeat: a prime.
_PERIOD = 4099
# Entries: more than 2³¹ bytes of float32, as a table of 250,002 rows that are so wide has.
_VAST, _WIDTH = 2**29 + 17, 2304
_ENTRIES = ("add", "gelu", "relu", "tanh")


def properties() -> list[Property]:
    """Forward and backward of every op."""
    directions = (("forward", "the result", False), ("backward", "every cotangent", True))
    found = [
        about(level, op)(
            "large sizes", f"Beyond the sizes of models, too, {what} is within its bound.", partial(judged, back),
            corpus=fixed(BEYOND, op),
        )
        for op in ARRAYS
        for level, what, back in directions
    ]  # fmt: skip
    checks = {**dict.fromkeys(_ENTRIES, _entries), "linear": _rows, "embedding": _table}
    return found + [
        about(level, op)(
            "beyond 2 GiB", f"At the far end of arrays of more than 2³¹ bytes, too, {what} is right.",
            partial(check, op, back),
        )
        for op, check in checks.items()
        for level, what, back in directions
    ]  # fmt: skip


def _require(arrays: int, dtype: str) -> None:
    """Raise `Unavailable` without memory for so many vast arrays, here and in the backend's process."""
    needed = arrays * _VAST * (8 if dtype == "float64" else 4)
    there = _free()
    if needed > there:
        raise Unavailable(f"needs about {needed / 2**30:.0f} GiB of memory, {there / 2**30:.0f} are free")


def _free() -> int:
    """Bytes of memory that a process may still have, of the machine's and of its container's."""
    return min(_machine(), *_container(Path("/sys/fs/cgroup")))


def _container(groups: Path) -> list[int]:
    """What is left of its limit, if it has one: control groups of either version. Files that are cached can be given
    up."""
    found = []
    for of, limit, used, cached in (
        (groups, "memory.max", "memory.current", "inactive_file"),
        (groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            most, now = (int((of / name).read_text(encoding="ascii")) for name in (limit, used))
            stat = dict(line.split() for line in (of / "memory.stat").read_text(encoding="ascii").splitlines())
            found.append(most - now + int(stat.get(cached, 0)))
    return found


def _machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _entries(op: str, back: bool, subject: Subject, example: None, record: Record) -> None:
    count = COUNT[op]
    _require((2 + back) * (count + 2), subject.dtype)
    options = {"axes": 1} | ({"form": "erf"} if op == "gelu" else {})
    few = recipe(op, {"S": _PERIOD, "B": 1, "H": 1}, ("normal",) * (count + 1), 0, options).build(subject.dtype)
    wanted = expected(op, few.arrays, few.options, subject.arithmetic, few.dy if back else None)

    def vast(x: Host | None) -> Host:
        return np.resize(np.asarray(x, host_dtype(subject.dtype)).reshape(-1), _VAST)

    y, pullback = forward(subject, op, subject.devices(map(vast, few.arrays)), few.options)
    got = backward(pullback, subject.device(vast(few.dy)), count) if back else (y,)
    for one, want in zip(got, wanted[back:] if back else wanted, strict=True):
        flat = Expected(want.name, want.y.reshape(-1), want.bound.reshape(-1))
        _repeating(subject.host(one, (_VAST,), want.name), flat, record)


def _repeating(got: Host, want: Expected, record: Record) -> None:
    """Every entry against that of its place in the period: of all that are due the same, the least and the greatest."""
    whole = len(got) // _PERIOD * _PERIOD
    for extreme in (np.minimum, np.maximum):
        record.compare(extreme.reduce(got[:whole].reshape(-1, _PERIOD), axis=0), want, "over all periods, ")
    rest = len(got) - whole
    record.compare(got[whole:], Expected(want.name, want.y[:rest], want.bound[:rest]), "at the far end, ")


def _rows(op: str, back: bool, subject: Subject, example: None, record: Record) -> None:
    """Two numbers a row: small integers, so that y and dx are exact, and dw and db of a few rows at either end."""
    _require(5 + 3 * back, subject.dtype)
    rows, dtype, rng = _VAST // 2, host_dtype(subject.dtype), np.random.default_rng(0)
    x = np.resize(rng.integers(-4, 5, (_PERIOD, 2)).astype(dtype), (rows, 2))
    w, b = rng.integers(-2, 3, (2, 2)).astype(dtype), np.array([1, -2], dtype)
    y, pullback = forward(subject, "linear", subject.devices([x, w, b]), {})
    if not back:
        due = x[:_PERIOD] @ w.T + b
        _exact(subject.host(y, (rows, 2), "y"), due, "y")
        return
    dy = np.zeros((rows, 2), dtype)
    ends = np.r_[0:3, rows - 3 : rows]
    dy[ends] = rng.integers(1, 3, (6, 2))
    dx, dw, db = backward(pullback, subject.device(dy), 3)
    sums = {"dw": (dw, dy[ends].T @ x[ends]), "db": (db, dy[ends].sum(axis=0))}
    for name, (got, due) in sums.items():
        if not np.array_equal(subject.host(got, due.shape, name), due):
            raise Failure(f"{name} is not the sum of the rows at either end")
    found = subject.host(dx, x.shape, "dx")
    if not np.array_equal(found[ends], dy[ends] @ w) or np.count_nonzero(found) > 12:
        raise Failure("dx is not 0 but for the rows at either end")


def _exact(got: Host, due: Host, name: str) -> None:
    whole = len(got) // len(due) * len(due)
    periods = got[:whole].reshape(-1, *due.shape)
    if not (np.array_equal(periods.min(axis=0), due) and np.array_equal(periods.max(axis=0), due)):
        raise Failure(f"{name} is not what every {len(due)} rows should be")
    if not np.array_equal(got[whole:], due[: len(got) - whole]):
        raise Failure(f"{name} is wrong at its far end")


def _table(op: str, back: bool, subject: Subject, example: None, record: Record) -> None:
    """The last rows of a table of 250,002."""
    _require(4 + 3 * back, subject.dtype)
    V, dtype, rng = 250_002, host_dtype(subject.dtype), np.random.default_rng(0)
    few = rounded(rng.standard_normal((61, _WIDTH)), subject.dtype).astype(dtype)
    table = np.resize(few, (V, _WIDTH))
    ids = np.array([V - 1, 0, V - 2, V // 2, V - 1])
    y, pullback = forward(subject, "embedding", [subject.device(table)], {"ids": ids})
    if not back:
        if not np.array_equal(subject.host(y, (5, _WIDTH), "y"), table[ids]):
            raise Failure("y is not the rows of the table")
        return
    dy = rng.integers(-3, 4, (5, _WIDTH)).astype(dtype)
    due = np.zeros((V, _WIDTH), dtype)
    np.add.at(due, ids, dy)
    (got,) = backward(pullback, subject.device(dy), 1)
    if not np.array_equal(subject.host(got, due.shape, "dtable"), due):
        raise Failure("dtable is not dy in the rows that were looked up")
