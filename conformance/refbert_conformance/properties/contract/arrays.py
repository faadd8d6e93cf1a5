"""Arrays of the host's on their way in and out: asarray and to_numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from hypothesis import strategies as st

from refbert.backend import Host
from refbert_conformance.cases.inputs import REGIMES, fill, rounded
from refbert_conformance.engine.measure import Failure, Record, alike, check_array, same_bits
from refbert_conformance.engine.property import Property
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.contract.common import RING
from refbert_conformance.tolerances.arithmetic import FORMATS


def properties() -> list[Property]:
    """Numbers, rounding, layouts, and what has come out already."""
    of = partial(Property, "contract", "asarray", needs=("asarray", "to_numpy"))
    return [
        of("round trip", "Numbers of the dtype survive asarray and to_numpy bit for bit.", _round_trip,
           _host_arrays, _BIG),
        of("rounds to nearest", "Other numbers become the nearest of the dtype, ties to even.", _rounds,
           st.integers(0, 2**20)),
        of("any layout", "Strided, reversed, read-only, Fortran, big-endian: all alike.", _layouts, _host_arrays),
        Property("contract", "to_numpy", "stays", "What to_numpy gave does not change when the backend goes on.",
                 _stays, _host_arrays, needs=("asarray", "to_numpy", "add")),
    ]  # fmt: skip


@dataclass(frozen=True)
class HostArray:
    """An array of the host's, as drawn."""

    shape: tuple[int, ...]
    regime: str
    seed: int

    def build(self, dtype: str) -> Host:
        """The numbers, exact in the dtype."""
        return fill(self.shape, self.regime, self.seed, dtype)


def _host_arrays(subject: Subject) -> st.SearchStrategy[HostArray]:
    shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
    return st.builds(HostArray, shapes, st.sampled_from(tuple(REGIMES)), st.integers(0, 2**20))


_BIG = (HostArray((3, 70_001), "normal", 0),)


def _special(dtype: str) -> Host:
    """The ends of the dtype's range, both zeros, the infinities, NaN, and its neighbours of 1."""
    u, smallest, above = FORMATS[dtype]
    normal, largest = 2.0**smallest, (1 - u) * 2.0 ** (above - 1) * 2
    values = [0.0, -0.0, 1.0, 1 + 2 * u, 1 - u, normal, largest, -largest, math.inf, -math.inf, math.nan]
    return np.array(values)


def _round_trip(subject: Subject, example: HostArray, record: Record) -> None:
    for x in (example.build(subject.dtype), _special(subject.dtype), *_subnormal(subject)):
        before = x.copy()
        got = check_array(
            subject.host(subject.device(x), x.shape, "asarray(x)"), x.shape, subject.arithmetic, "to_numpy"
        )
        if not same_bits(got.astype(np.float64), x):
            at = int(np.flatnonzero(~alike(got, x))[0])
            raise Failure(f"{x.reshape(-1)[at]} came back as {got.reshape(-1)[at]}")
        if not same_bits(before, x):
            raise Failure("asarray or to_numpy wrote into the host array")
    exact = int(1 / subject.arithmetic.u)  # integers up to here are numbers of the dtype
    for host in (np.float32, np.float16, np.int64, np.int32, np.bool_):
        most = (
            1 if host is np.bool_ else min(exact, 2048 if host is np.float16 else 2**31 if host is np.int32 else exact)
        )
        x = np.array([0, 1, 1, 0, 1, most - 1, most // 2 + most % 2], host)
        if not np.array_equal(subject.host(subject.device(x), (7,)), x.astype(float)):
            raise Failure(f"an array of {np.dtype(host)} did not keep its numbers")


def _subnormal(subject: Subject) -> tuple[Host, ...]:
    if subject.arithmetic.flush_to_zero:
        return ()
    u, smallest, _ = FORMATS[subject.dtype]
    return (np.array([2.0**smallest * 2 * u, -(2.0**smallest) / 2]),)


def _rounds(subject: Subject, example: int, record: Record) -> None:
    u = subject.arithmetic.u
    rng = np.random.default_rng(example)
    x = rng.standard_normal(40) * 10.0 ** rng.uniform(-3, 3, 40)
    ties = 1 + u * np.arange(1, 16, 2)  # exactly between two numbers
    for values in (x, ties, -ties):
        got = subject.host(subject.device(values), values.shape).astype(np.float64)
        # PyTorch goes to bfloat16 by way of float32: twice to nearest, which differs where the first meets a tie.
        twice = rounded(values.astype(np.float32), subject.dtype)
        wrong = (got != rounded(values, subject.dtype)) & (got != twice)
        if wrong.any():
            i = int(wrong.argmax())
            nearest = rounded(values, subject.dtype)[i]
            raise Failure(f"{values[i]} became {got[i]}, the nearest {subject.dtype} is {nearest}")


def variants(x: Host) -> dict[str, Host]:
    """The same numbers in other memory."""
    frozen = x.copy()
    frozen.flags.writeable = False
    found = {
        "read-only": frozen,
        "Fortran order": np.array(x, order="F"),
        "big-endian": x.astype(x.dtype.newbyteorder(">")),
    }
    if x.ndim:
        found["negative strides"] = np.flip(np.flip(x).copy())
        found["every other entry"] = np.repeat(x, 2, axis=-1)[..., ::2]
        found["broadcast"] = np.broadcast_to(x[:1], x.shape) if x.shape[0] > 1 else x
        found["offset"] = np.concatenate([x.reshape(-1)[:1], x.reshape(-1)])[1:].reshape(x.shape) if x.size else x
    return found


def _layouts(subject: Subject, example: HostArray, record: Record) -> None:
    x = example.build(subject.dtype)
    for kind, variant in variants(x).items():
        got = subject.host(subject.device(variant), x.shape, f"asarray of a {kind} array")
        if not same_bits(got.astype(np.float64), np.ascontiguousarray(variant).astype(np.float64).reshape(x.shape)):
            raise Failure(f"asarray reads a {kind} array wrongly")


def _stays(subject: Subject, example: HostArray, record: Record) -> None:
    x = example.build(subject.dtype)
    a = subject.device(x)
    first = subject.host(a)
    kept = first.copy()
    b = subject.device(rounded(x + 1, subject.dtype))
    second = subject.host(b)
    for _ in range(RING):
        subject.host(subject.op("add")(b, b)[0])
    subject.again(first, second)
    if not same_bits(first, kept) or not same_bits(subject.host(a), kept):
        raise Failure("an array changed after another one had been made")
    if x.size and same_bits(second, kept) and not np.array_equal(rounded(x + 1, subject.dtype), x):
        raise Failure("two arrays have become one")
