"""Level "contract": what refbert.backend promises beyond numbers.

Arrays go in and come out unharmed, whatever their layout; calls know nothing of each other; the same call gives the
same bits; what makes no sense is refused by the error that refbert.ops raises.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from refbert.backend import OPTIONAL, REQUIRED, Backend, FusedEncoderLayer, Objective, Optimizers, TokenMasking
from refbert_conformance.arithmetic import FORMATS
from refbert_conformance.bounds import ARRAYS, COPIES, Expected, expected
from refbert_conformance.cases import OpCase, Recipe, another, corpus, recipes
from refbert_conformance.inputs import REGIMES, fill, rounded
from refbert_conformance.measure import Failure, Record, Unsupported, check_array, same_bits
from refbert_conformance.numerics import built
from refbert_conformance.properties import Property
from refbert_conformance.subject import Host, Subject, backward, forward

_CALLS = 5  # how often a call is repeated: a fault in every second, third or fifth call shows
_RING = 40
_OFTEN = 150  # and once, for a small case: a fault in one call of fifty shows in 95% of runs


def properties() -> list[Property]:
    """The whole backend first, then every op."""
    found = [
        Property("contract", "backend", "attributes", "Name, library, device and dtypes.", check=_attributes),
        Property("contract", "backend", "required operations", "Every required op is there.", check=_required),
        Property("contract", "backend", "signatures", "Every op takes the contract's arguments.", check=_signatures),
        Property(
            "contract", "asarray", "round trip", "Numbers of the dtype survive asarray and to_numpy bit for bit.",
            check=_round_trip, draw=_host_arrays, corpus=lambda s: _BIG, needs=("asarray", "to_numpy"),
        ),
        Property(
            "contract", "asarray", "rounds to nearest", "Other numbers become the nearest of the dtype, ties to even.",
            check=_rounds, draw=lambda s: st.integers(0, 2**20), needs=("asarray", "to_numpy"),
        ),
        Property(
            "contract", "asarray", "any layout", "Strided, reversed, read-only, Fortran, big-endian: all alike.",
            check=_layouts, draw=_host_arrays, needs=("asarray", "to_numpy"),
        ),
        Property(
            "contract", "to_numpy", "stays", "What to_numpy gave does not change when the backend goes on.",
            check=_stays, draw=_host_arrays, needs=("asarray", "to_numpy", "add"),
        ),
    ]  # fmt: skip
    for op in ARRAYS:
        here: dict[str, Any] = {"needs": ("asarray", "to_numpy", op), "draw": _recipes(op), "cost": 2.0}
        found += [
            Property(
                "contract", op, "shapes and dtypes", "Results and cotangents have the shapes and dtype that are due.",
                check=_shapes, corpus=_corpus(op), **here,
            ),
            Property(
                "contract", op, "inputs unchanged", "Neither the op nor its pullback writes into what it is given.",
                check=_unchanged, corpus=_corpus(op, 4), **here,
            ),
            Property(
                "contract", op, "repeatable", "The same call gives the same bits, and so does the same pullback.",
                check=_repeatable, corpus=_corpus(op), **here,
            ),
            Property(
                "contract", op, "calls independent", "A later call changes nothing of an earlier one's results.",
                check=_independent, corpus=_corpus(op, 2), **here,
            ),
        ]  # fmt: skip
        found.append(
            Property(
                "contract", op, "calls forget", "An argument is known by its content, not by where it lies.",
                check=_forgets, **{**here, "cost": 6.0},
            )
        )  # fmt: skip
        found.append(
            Property(
                "contract", op, "any layout", "Arrays in any order of memory, the backend's own transposes among them.",
                check=_any_layout, corpus=_corpus(op, 2), draw=here["draw"], needs=here["needs"],
                cost=8.0,
            )
        )  # fmt: skip
        if op in _ALIKE:
            found.append(
                Property(
                    "contract", op, "same array", "One array may be several arguments at once.",
                    check=_same_array, **here,
                )
            )  # fmt: skip
        if op in _HOST_OPTIONS:
            found.append(
                Property(
                    "contract", op, "host arrays", f"{' and '.join(_HOST_OPTIONS[op])}: any integer type, any layout.",
                    check=_host_options, **here,
                )
            )  # fmt: skip
    for op in sorted({bad.op for bad in BAD}):
        found.append(
            Property(
                "contract", op, "errors", "What makes no sense raises what refbert.ops raises, and harms nothing.",
                check=_errors, corpus=_bad(op),
                needs=("asarray", "to_numpy", op),
            )
        )  # fmt: skip
    return found


def _recipes(op: str) -> Callable[[Subject], Any]:
    return lambda subject: recipes(op)


def _corpus(op: str, count: int | None = None) -> Callable[[Subject], tuple[Recipe, ...]]:
    return lambda subject: corpus(op)[:count]


def _bad(op: str) -> Callable[[Subject], tuple[Bad, ...]]:
    return lambda subject: tuple(bad for bad in BAD if bad.op == op)


# The backend as a whole


def _attributes(subject: Subject, example: Any, record: Record) -> None:
    backend = subject.backend
    for name in ("name", "library", "dtype", "device"):
        value = getattr(backend, name, None)
        if not isinstance(value, str) or not value:
            raise Failure(f"the attribute {name} must be a non-empty string, it is {value!r}")
    dtypes = getattr(backend, "dtypes", None)
    if not isinstance(dtypes, tuple) or backend.dtype not in dtypes:
        raise Failure(f"dtypes must be a tuple that holds the dtype {backend.dtype}, it is {dtypes!r}")
    unknown = [d for d in dtypes if d not in FORMATS]
    if unknown:
        raise Failure(f"dtypes names {', '.join(unknown)}; known: float64, float32, float16, bfloat16")


def _required(subject: Subject, example: Any, record: Record) -> None:
    lacks = [name for name in REQUIRED if not subject.has(name)]
    if lacks:
        raise Failure(f"the backend lacks {', '.join(lacks)}")


def _signatures(subject: Subject, example: Any, record: Record) -> None:
    for protocol in (Backend, FusedEncoderLayer, Objective, Optimizers, TokenMasking):
        for name in (*REQUIRED, *OPTIONAL):
            if not (name in vars(protocol) and subject.has(name)):
                continue
            theirs = list(inspect.signature(getattr(protocol, name)).parameters.values())[1:]
            try:
                ours = inspect.signature(getattr(subject.backend, name))
            except (TypeError, ValueError):
                continue  # compiled, with no signature to look at: the calls will tell
            by_position = [p for p in theirs if p.kind is not p.KEYWORD_ONLY]
            by_name = {p.name: None for p in theirs if p.kind is p.KEYWORD_ONLY}
            try:
                ours.bind(*[None] * len(by_position), **by_name)
                ours.bind(
                    *[None] * sum(p.default is p.empty for p in by_position),
                    **{p.name: None for p in theirs if p.kind is p.KEYWORD_ONLY and p.default is p.empty},
                )
            except TypeError as error:
                raise Failure(f"{name}{ours} cannot be called as the contract does: {error}") from None


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
            at = int(np.flatnonzero(~((got == x) & (np.signbit(got) == np.signbit(x)) | np.isnan(x)).reshape(-1))[0])
            raise Failure(f"{x.reshape(-1)[at]!r} came back as {got.reshape(-1)[at]!r}")
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
            raise Failure(
                f"{values[i]!r} became {got[i]!r}, the nearest {subject.dtype} is {rounded(values, subject.dtype)[i]!r}"
            )


def _variants(x: Host) -> dict[str, Host]:
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
    for kind, variant in _variants(x).items():
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
    for _ in range(_RING):
        subject.host(subject.op("add")(b, b)[0])
    if not same_bits(first, kept) or not same_bits(subject.host(a), kept):
        raise Failure("an array changed after another one had been made")
    if x.size and same_bits(second, kept) and not np.array_equal(rounded(x + 1, subject.dtype), x):
        raise Failure("two arrays have become one")


# Every op


def _run(subject: Subject, case: OpCase, backend: Any = None) -> tuple[Host, list[Host]]:
    """y and the cotangents on the host, copied."""
    backend = subject.backend if backend is None else backend
    arrays = [backend.asarray(a) for a in case.arrays]
    y, pullback = forward(subject, case.op, arrays, case.options, backend)
    cotangents = backward(pullback, backend.asarray(case.dy), len(arrays))
    return np.array(backend.to_numpy(y)), [np.array(backend.to_numpy(c)) for c in cotangents]


def _shapes(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    from refbert import ops

    case = built(subject, example)
    with np.errstate(all="ignore"):
        want, _ = getattr(ops, case.op)(*case.arrays, **case.options)
    arrays = [subject.device(a) for a in case.arrays]
    y, pullback = forward(subject, case.op, arrays, case.options)
    check_array(subject.host(y, want.shape, "y"), want.shape, subject.arithmetic, "y")
    got = backward(pullback, subject.device(case.dy), len(arrays))  # type: ignore[arg-type]
    for name, cotangent, x in zip(ARRAYS[case.op], got, case.arrays, strict=True):
        check_array(subject.host(cotangent, x.shape, f"d{name}"), x.shape, subject.arithmetic, f"d{name}")


def _unchanged(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    case = built(subject, example)
    hosts = {name: value for name, value in case.options.items() if isinstance(value, np.ndarray)}
    before = {name: value.copy() for name, value in hosts.items()}
    sources = [a.copy() for a in case.arrays]
    arrays = [subject.device(a) for a in sources]
    dy = np.array(case.dy)
    cotangent = subject.device(dy)
    y, pullback = forward(subject, case.op, arrays, case.options)
    kept = np.array(subject.host(y))
    backward(pullback, cotangent, len(arrays))
    names = (*ARRAYS[case.op], "dy")
    for name, device, source, x in zip(
        names, (*arrays, cotangent), (*sources, dy), (*case.arrays, case.dy), strict=True
    ):
        if not same_bits(subject.host(device).astype(np.float64), np.asarray(x)):
            raise Failure(f"{case.op} wrote into {name}")
        if not same_bits(source, np.asarray(x)):
            raise Failure(f"{case.op} wrote into the host array behind {name}")
    for name, value in hosts.items():
        if value.tobytes() != before[name].tobytes():
            raise Failure(f"{case.op} wrote into {name}")
    if not same_bits(np.array(subject.host(y)), kept):
        raise Failure(f"the pullback of {case.op} wrote into y")


def _repeatable(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    case = built(subject, example)
    if case.op in subject.arithmetic.nondeterministic:
        raise Unsupported(f"the backend declares {case.op} nondeterministic")
    first = _run(subject, case)
    often = isinstance(example, Recipe) and example == corpus(example.op)[1]
    for call in range(2, (_OFTEN if often else _CALLS) + 1):
        _same(case, first, _run(subject, case), f"call {call} differs from call 1")
    arrays = [subject.device(a) for a in case.arrays]
    _, pullback = forward(subject, case.op, arrays, case.options)
    for again in range(1, (_OFTEN if often else _CALLS) + 1):
        got = [np.array(subject.host(c)) for c in backward(pullback, subject.device(np.array(case.dy)), len(arrays))]
        _same(case, first, (first[0], got), f"call {again} of one pullback differs from the first")


def _same(case: OpCase, first: tuple[Host, list[Host]], again: tuple[Host, list[Host]], what: str) -> None:
    names = ("y", *(f"d{name}" for name in ARRAYS[case.op]))
    for name, a, b in zip(names, (first[0], *first[1]), (again[0], *again[1]), strict=True):
        if not same_bits(a, b):
            if a.shape != b.shape or a.dtype != b.dtype:
                raise Failure(f"{what}: {name} has another shape or dtype")
            at = tuple(
                int(i)
                for i in np.argwhere(~((a == b) & (np.signbit(a) == np.signbit(b)) | (np.isnan(a) & np.isnan(b))))[0]
            )
            raise Failure(f"{what}: {name}{list(at)} is {b[at]!r}, was {a[at]!r}")


def _independent(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    """One call, then others of the same shapes with other numbers, then look at the first again."""
    case = built(subject, example)
    if isinstance(example, Recipe):
        other = another(example).build(subject.dtype)
    else:
        other = OpCase(case.op, tuple(rounded(a + 1, subject.dtype) for a in case.arrays), case.options, case.dy)
    arrays = [subject.device(a) for a in case.arrays]
    y, pullback = forward(subject, case.op, arrays, case.options)
    y_host = subject.host(y)
    y_kept = y_host.copy()
    cotangents = backward(pullback, subject.device(np.array(case.dy)), len(arrays))
    hosts = [subject.host(c) for c in cotangents]
    kept = [h.copy() for h in hosts]
    # Results may live in a ring of buffers, which comes round.
    for _ in range(_RING if isinstance(example, Recipe) and example == corpus(example.op)[1] else 1):
        _run(subject, other)
    others = [subject.device(a) for a in other.arrays]
    _, other_pullback = forward(subject, case.op, others, other.options)
    twice = subject.device(np.array(other.dy))
    cotangent = OpCase(case.op, case.arrays, case.options, rounded(-2 * np.array(case.dy), subject.dtype))
    second = backward(pullback, subject.device(np.array(cotangent.dy)), len(arrays))
    seconds = [np.array(subject.host(c)) for c in second]
    backward(other_pullback, twice, len(arrays))
    free = case.op in subject.arithmetic.nondeterministic
    names = ("y", *(f"d{name}" for name in ARRAYS[case.op]))
    for name, device, host, was in zip(names, (y, *cotangents), (y_host, *hosts), (y_kept, *kept), strict=True):
        if not same_bits(np.array(subject.host(device)), was) or not same_bits(host, was):
            raise Failure(f"{name} changed when {case.op} was called again")
    if not free:
        got = [np.array(subject.host(c)) for c in backward(pullback, subject.device(np.array(case.dy)), len(arrays))]
        _same(case, (y_kept, kept), (y_kept, got), "after other calls the pullback gives something else")
        _same(case, _run(subject, cotangent), (y_kept, seconds), "a pullback's second cotangent gives something else")


def _forgets(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    """Calls on arguments that die after each, so that the next ones lie where they lay; then on host arrays whose
    content changes. Whoever remembers an argument by its address gives the old one's answer."""
    if not isinstance(example, Recipe) or example.op in subject.arithmetic.nondeterministic:
        return
    cases = [
        Recipe(example.op, example.sizes, example.regimes, example.seed + i, example.options).build(subject.dtype)
        for i in range(4)
    ]
    alive = []  # arguments that live on share no address
    wanted = []
    for case in cases:
        arrays, dy = [subject.device(a) for a in case.arrays], subject.device(np.array(case.dy))
        y, pullback = forward(subject, case.op, arrays, case.options)
        wanted.append(
            (np.array(subject.host(y)), [np.array(subject.host(c)) for c in backward(pullback, dy, len(arrays))])
        )
        alive.append((arrays, dy))
    buffers = {name: np.array(v) for name, v in cases[0].options.items() if isinstance(v, np.ndarray)}
    for case, want in zip(cases, wanted, strict=True):
        fresh = {name: np.array(v) if isinstance(v, np.ndarray) else v for name, v in case.options.items()}
        got = _run(subject, OpCase(case.op, case.arrays, fresh, case.dy))
        del fresh
        _same(case, want, got, "after calls whose arguments are gone")
        for name, buffer in buffers.items():
            buffer[...] = case.options[name]
        got = _run(subject, OpCase(case.op, case.arrays, {**case.options, **buffers}, case.dy))
        _same(case, want, got, "with other content in the same host arrays")


# Host arrays among the options of an op, and what else they may come as.
_HOST_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "embedding": ("ids",),
    "gather": ("positions",),
    "attention_probabilities": ("mask",),
    "attention": ("mask", "keep"),
    "dropout": ("keep",),
    "cross_entropy": ("labels",),
    "mean_squared_error": ("targets",),
}


def _host_options(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    case = built(subject, example)
    nondeterministic = case.op in subject.arithmetic.nondeterministic
    first = _run(subject, case)
    for name in _HOST_OPTIONS[case.op]:
        value = case.options.get(name)
        if value is None:
            continue
        kinds: tuple[Any, ...] = (np.int32, np.int16)
        if name in ("ids", "positions", "labels") and int(abs(value).max(initial=0)) < 128:
            kinds = (*kinds, np.int8)
        if name in ("mask", "keep"):
            kinds = (np.bool_, np.int64, np.int32, np.uint8, np.float32, np.float64)
        elif name == "targets":
            kinds = (np.float64,)
        elif value.size and int(value.min()) >= 0:
            kinds = (*kinds, np.uint8, np.uint16, np.uint32, np.uint64) if int(value.max()) < 256 else kinds
        for kind in kinds:
            converted = value.astype(kind)
            for layout, variant in {"plain": converted, **_variants(converted)}.items():
                if layout == "broadcast" or (layout != "plain" and kind is not kinds[0]):
                    continue
                got = _run(subject, OpCase(case.op, case.arrays, {**case.options, name: variant}, case.dy))
                if not nondeterministic:
                    _same(case, first, got, f"with {name} as {layout} {np.dtype(kind)}")


# Ops whose array arguments may all have one shape.
_ALIKE = ("add", "attention", "attention_probabilities")


def _within(subject: Subject, case: OpCase, arrays: list[Any], dy: Any, want: list[Expected], record: Record) -> None:
    y, pullback = forward(subject, case.op, arrays, case.options)
    for got, one in zip((y, *backward(pullback, dy, len(arrays))), want, strict=True):
        record.compare(subject.host(got, one.y.shape, one.name), one)


def _any_layout(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    """Within the bounds and not bit for bit: a matrix product may take another order of summation."""
    case = built(subject, example)
    want = expected(case.op, case.arrays, case.options, subject.arithmetic, case.dy)
    inputs = [np.asarray(x) for x in (*case.arrays, case.dy)]
    plain = [subject.device(x) for x in inputs]
    try:
        _within(subject, case, plain[:-1], plain[-1], want, Record(subject.arithmetic))
    except Failure:
        return  # not the layout's fault: the accuracy properties will tell
    laid = {kind: [subject.device(_variants(x).get(kind, x)) for x in inputs] for kind in _ORDERS}
    if subject.has("transpose"):
        transpose = subject.op("transpose")
        turned = [subject.device(np.array(x.T, order="C")) for x in inputs]
        laid["transposed"] = [transpose(x, tuple(range(len(x.shape)))[::-1])[0] for x in turned]
    for kind, (*arrays, dy) in laid.items():
        try:
            _within(subject, case, arrays, dy, want, record)
        except Failure as failure:
            raise Failure(f"with {kind} arrays: {failure}", failure.worst) from None


_ORDERS = ("Fortran order", "negative strides", "every other entry")


def _same_array(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    case = built(subject, example)
    x = case.arrays[0]
    case = OpCase(case.op, (x,) * len(case.arrays), case.options, case.dy)
    want = expected(case.op, case.arrays, case.options, subject.arithmetic, case.dy)
    _within(subject, case, [subject.device(x)] * len(case.arrays), subject.device(np.array(case.dy)), want, record)


# What must be refused


@dataclass(frozen=True)
class Bad:
    """A call that makes no sense; shapes of its arrays, its options, and what refbert.ops raises."""

    op: str
    shapes: tuple[tuple[int, ...], ...]
    options: Mapping[str, Any]
    error: type[Exception]
    why: str


def _attention_options(**more: Any) -> dict[str, Any]:
    return {"mask": np.ones((1, 2), np.int64), "heads": 1, "mask_value": -math.inf} | more


_LABELS = {"denominator": 2.0}
_RULE = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0.0}
BAD: tuple[Bad, ...] = (
    Bad("embedding", ((4, 3),), {"ids": np.array([0, 4])}, IndexError, "an id of V"),
    Bad("embedding", ((4, 3),), {"ids": np.array([[-1], [2]])}, IndexError, "a negative id"),
    Bad("embedding", ((4, 3),), {"ids": np.array([2**31 + 1])}, IndexError, "an id that 32 bits would wrap"),
    Bad("gather", ((2, 2, 3),), {"positions": np.array([4])}, IndexError, "a position of B·S"),
    Bad("gather", ((2, 2, 3),), {"positions": np.array([1, -1])}, IndexError, "a negative position"),
    Bad("cross_entropy", ((2, 3),), _LABELS | {"labels": np.array([0, 3])}, IndexError, "a label of C"),
    Bad("cross_entropy", ((2, 3),), _LABELS | {"labels": np.array([0, -1])}, IndexError, "a label of −1"),
    Bad("cross_entropy", ((2, 3),), _LABELS | {"labels": np.array([-101, 1])}, IndexError, "a label of −101"),
    Bad("gelu", ((2, 3),), {"form": "fast"}, ValueError, "an unknown form"),
    Bad("add", ((2, 3), (3,)), {}, ValueError, "shapes that would broadcast"),
    Bad("add", ((2, 3), (2, 1)), {}, ValueError, "shapes that would broadcast"),
    Bad("dropout", ((2, 3),), {"keep": np.ones(3, bool), "rate": 0.1}, ValueError, "a mask of another shape"),
    Bad("dropout", ((2, 3),), {"keep": np.ones((2, 3), bool), "rate": 1.0}, ValueError, "rate 1"),
    Bad("dropout", ((2, 3),), {"keep": np.ones((2, 3), bool), "rate": -0.1}, ValueError, "a negative rate"),
    Bad(
        "attention",
        ((2, 2, 4),) * 3,
        {
            "mask": np.ones((2, 2)),
            "heads": 2,
            "mask_value": -math.inf,
            "keep": np.ones((2, 1, 2, 2), bool),
            "rate": 0.1,
        },
        ValueError,
        "a keep mask for one head of two",
    ),
    Bad(
        "mean_squared_error", ((2, 3),), {"targets": np.ones(3), "denominator": 1.0}, ValueError, "targets to broadcast"
    ),
    Bad("attention", ((1, 2, 3),) * 3, _attention_options(heads=2), ValueError, "3 features for 2 heads"),
    Bad("attention_probabilities", ((1, 2, 3),) * 2, _attention_options(heads=2), ValueError, "3 features for 2 heads"),
    Bad("reshape", ((2, 3),), {"shape": (4, 2)}, (Exception), "more entries than there are"),
    Bad("reshape", ((2, 3),), {"shape": (2, 2)}, (Exception), "fewer entries than there are"),
    Bad("embedding", ((4, 3),), {"ids": np.array([1.5])}, (Exception), "an id that is no integer"),
    Bad("transpose", ((2, 3),), {"axes": (0, 0)}, (Exception), "axes that are no permutation"),
    Bad("linear", ((2, 3), (4, 5), (4,)), {}, (Exception), "an inner dimension that does not fit"),
    Bad("adamw", ((2,),) * 4, _RULE | {"step": 0}, ValueError, "step 0"),
    Bad("lamb", ((2,),) * 4, _RULE | {"step": 0}, ValueError, "step 0"),
)


def _errors(subject: Subject, bad: Bad, record: Record) -> None:
    arrays = [subject.device(np.ones(shape)) for shape in bad.shapes]
    good = corpus(bad.op)[1].build(subject.dtype) if bad.op in ARRAYS else None
    before = _run(subject, good) if good is not None else None
    try:
        subject.op(bad.op)(*arrays, **bad.options)
    except bad.error:
        pass
    except Exception as error:  # noqa: BLE001
        raise Failure(f"{bad.why} raised {type(error).__name__}, refbert.ops raises {bad.error.__name__}") from None
    else:
        raise Failure(f"{bad.why} was accepted; refbert.ops raises {bad.error.__name__}")
    for x, shape in zip(arrays, bad.shapes, strict=True):
        if not np.array_equal(subject.host(x), np.ones(shape)):
            raise Failure(f"{bad.why} was refused, but an argument has changed")
    if good is not None and before is not None and bad.op not in subject.arithmetic.nondeterministic:
        _same(good, before, _run(subject, good), f"after {bad.why} was refused")


__all__ = ["BAD", "COPIES", "properties"]
