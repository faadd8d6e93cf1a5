"""Calls of one op: what comes out, what stays as it was, and what one call may know of another."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from refbert import ops
from refbert_conformance.cases.corpus import corpus
from refbert_conformance.cases.inputs import rounded
from refbert_conformance.cases.operations import OpCase, Recipe, another, recipes
from refbert_conformance.engine.measure import Failure, Record, Unsupported, check_array, same_bits
from refbert_conformance.engine.property import FIRST, Property, about
from refbert_conformance.engine.subject import Subject, backward_if_any, forward
from refbert_conformance.properties.contract.common import RING, copied, cotangents, run, same
from refbert_conformance.tolerances.bounds import ARRAYS, OUTPUTS, expected

_CALLS = 5  # how often a call is repeated: a fault in every second, third or fifth call shows
# And of a small case: a fault in one call of 50, and in one of 300, shows in 95% of runs.
_OFTEN, _MORE_OFTEN = 150, 900
# And of a size that is worth sharing out among threads, on a busy machine, at each effort.
_UNDER_LOAD = ((6,), (54,), (440,))
_BUSY = {"B": 3, "S": 33, "H": 192, "I": 192, "O": 192, "V": 512, "C": 192, "A": 4, "D": 48, "P": 99}
_ROUND = 30  # so many results are alive at a time


def properties(op: str) -> list[Property]:
    """Of an op with a pullback."""
    basic, drawn = about("contract", op), about("contract", op, draw=recipes(op), cost=2.0)
    return [
        basic("first call", FIRST, _first, corpus=corpus(op)[1:2]),  # before any other: the first of the process, too
        drawn("shapes and dtypes", "Results and cotangents have the shapes and dtype that are due.", _shapes,
              corpus=corpus(op)),
        drawn("inputs unchanged", "Neither the op nor its pullback writes into what it is given.", _unchanged,
              corpus=corpus(op)[:4]),
        drawn("repeatable", "The same call gives the same bits, and so does the same pullback.", _repeatable,
              corpus=corpus(op)),
        basic("repeatable often", "So do many calls, one after the other.", partial(_often, op),
              corpus=(_OFTEN,), larger=(_MORE_OFTEN,)),
        basic("repeatable under load", "So do many larger calls on a busy machine, with caches cold and warm.",
              partial(_loaded, op), **dict(zip(("corpus", "larger", "largest"), _UNDER_LOAD, strict=True))),
        drawn("calls independent", "A later call changes nothing of an earlier one's results.", _independent,
              corpus=corpus(op)[:2]),
        drawn("calls forget", "An argument is known by its content, not by where it lies.", _forgets, cost=6.0),
    ]  # fmt: skip


def _first(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    """What is as wrong in the second call is no matter of the first."""
    case, fresh = example.build(subject.dtype), subject.fresh()
    first = run(fresh, case)
    wanted = expected(case.op, case.arrays, case.options, subject.arithmetic, case.dy)
    try:
        record.compare_all([first[0], *first[1]], wanted[: 1 + len(first[1])])
    except Failure as failure:
        with contextlib.suppress(Failure):
            same(case, first, run(fresh, case), "")
            return
        raise failure from None


def _shapes(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    case = example.build(subject.dtype)
    with np.errstate(all="ignore"):
        want, _ = getattr(ops, case.op)(*case.arrays, **case.options)
    arrays = subject.devices(case.arrays)
    y, pullback = forward(subject, case.op, arrays, case.options)
    check_array(subject.host(y, want.shape, "y"), want.shape, subject.arithmetic, "y")
    got = backward_if_any(subject, pullback, subject.device(case.dy), len(arrays))  # type: ignore[arg-type]
    for name, cotangent, x in zip(ARRAYS[case.op], got, case.arrays, strict=False):
        check_array(subject.host(cotangent, x.shape, f"d{name}"), x.shape, subject.arithmetic, f"d{name}")


def _unchanged(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    case = example.build(subject.dtype)
    hosts = {name: value for name, value in case.options.items() if isinstance(value, np.ndarray)}
    before = {name: value.copy() for name, value in hosts.items()}
    sources = [a.copy() for a in case.arrays]
    dy = np.array(case.dy)
    *arrays, cotangent = subject.devices((*sources, dy))
    y, pullback = forward(subject, case.op, arrays, case.options)
    kept = np.array(subject.host(y))
    backward_if_any(subject, pullback, cotangent, len(arrays))
    names = (*ARRAYS[case.op], "dy")
    found = subject.hosts((*arrays, cotangent))
    for name, host, source, x in zip(names, found, (*sources, dy), (*case.arrays, case.dy), strict=True):
        if not same_bits(host.astype(np.float64), np.asarray(x)):
            raise Failure(f"{case.op} wrote into {name}")
        if not same_bits(source, np.asarray(x)):
            raise Failure(f"{case.op} wrote into the host array behind {name}")
    for name, value in hosts.items():
        if value.tobytes() != before[name].tobytes():
            raise Failure(f"{case.op} wrote into {name}")
    if not same_bits(np.array(subject.host(y)), kept):
        raise Failure(f"the pullback of {case.op} wrote into y")


def _repeatable(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    _repeat(subject, example.build(subject.dtype), _CALLS)


def _often(op: str, subject: Subject, calls: int, record: Record) -> None:
    _repeat(subject, corpus(op)[1].build(subject.dtype), calls)


def _loaded(op: str, subject: Subject, calls: int, record: Record) -> None:
    """A race shows in some calls only, and where threads lose their turn: in one of twenty, the 60 calls of the default
    effort see it in 95 % of runs; in one of a hundred, the 500 of a thorough one in 99 %."""
    plain = corpus(op)[1]
    sizes = {letter: _BUSY.get(letter, n) for letter, n in plain.sizes.items()}
    with _busy():
        _repeat(subject, replace(plain, sizes=sizes).build(subject.dtype), calls)


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    """As many threads as processors have something to do, and take what lies in caches that processors share."""
    over, x = threading.Event(), np.ones((512, 512), np.float32)

    def work() -> None:
        while not over.is_set():
            np.matmul(x, x)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(os.cpu_count() or 1)]
    for one in threads:
        one.start()
    try:
        yield
    finally:
        over.set()
        for one in threads:
            one.join()


def _repeat(subject: Subject, case: OpCase, calls: int) -> None:
    if case.op in subject.arithmetic.nondeterministic:
        raise Unsupported(f"the backend declares {case.op} nondeterministic")
    first = run(subject, case)
    given = (*case.arrays, case.dy)
    arrays = subject.devices(case.arrays)
    _, pullback = forward(subject, case.op, arrays, case.options)
    for begin in range(2, calls + 1, _ROUND):
        numbers = range(begin, min(begin + _ROUND, calls + 1))
        device, found = iter(subject.devices(np.array(a) for _ in numbers for a in given)), []
        for _ in numbers:
            *own, dy = itertools.islice(device, len(given))
            y, back = forward(subject, case.op, own, case.options)
            found += [y, *backward_if_any(subject, back, dy, len(arrays))]
            found += backward_if_any(subject, pullback, dy, len(arrays))
        host, n = iter(subject.hosts(found)), len(first[1])
        for number in numbers:
            y, *got = itertools.islice(host, 1 + n)
            same(case, first, (y, got), f"call {number} differs from call 1")
            again = list(itertools.islice(host, n))
            same(case, first, (first[0], again), f"call {number - 1} of one pullback differs from the first")


def _independent(subject: Subject, example: Recipe | OpCase, record: Record) -> None:
    """One call, then others of the same shapes with other numbers, then look at the first again."""
    case = example.build(subject.dtype)
    if isinstance(example, Recipe):
        other = another(example).build(subject.dtype)
    else:
        other = OpCase(case.op, tuple(rounded(a + 1, subject.dtype) for a in case.arrays), case.options, case.dy)
    arrays = subject.devices(case.arrays)
    y, pullback = forward(subject, case.op, arrays, case.options)
    y_host = subject.host(y)
    y_kept = y_host.copy()
    first = backward_if_any(subject, pullback, subject.device(np.array(case.dy)), len(arrays))
    hosts = [subject.host(c) for c in first]
    kept = [h.copy() for h in hosts]
    # Results may live in a ring of buffers, which comes round.
    for _ in range(RING if isinstance(example, Recipe) and example == corpus(example.op)[1] else 1):
        run(subject, other)
    others = subject.devices(other.arrays)
    _, other_pullback = forward(subject, case.op, others, other.options)
    twice = subject.device(np.array(other.dy))
    cotangent = OpCase(case.op, case.arrays, case.options, rounded(-2 * np.array(case.dy), subject.dtype))
    seconds = cotangents(subject, pullback, cotangent)
    backward_if_any(subject, other_pullback, twice, len(arrays))
    free = case.op in subject.arithmetic.nondeterministic
    subject.again(y_host, *hosts)
    now = subject.hosts((y, *first))
    for name, found, host, was in zip(OUTPUTS[case.op], now, (y_host, *hosts), (y_kept, *kept), strict=False):
        if not same_bits(found, was) or not same_bits(host, was):
            raise Failure(f"{name} changed when {case.op} was called again")
    if not free:
        got = cotangents(subject, pullback, case)
        same(case, (y_kept, kept), (y_kept, got), "after other calls the pullback gives something else")
        same(case, run(subject, cotangent), (y_kept, seconds), "a pullback's second cotangent gives something else")


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
        *arrays, dy = subject.devices((*case.arrays, np.array(case.dy)))
        y, pullback = forward(subject, case.op, arrays, case.options)
        wanted.append(copied(subject.backend, y, backward_if_any(subject, pullback, dy, len(arrays))))
        alive.append((arrays, dy))
    buffers = {name: np.array(v) for name, v in cases[0].options.items() if isinstance(v, np.ndarray)}
    for case, want in zip(cases, wanted, strict=True):
        fresh = {name: np.array(v) if isinstance(v, np.ndarray) else v for name, v in case.options.items()}
        got = run(subject, OpCase(case.op, case.arrays, fresh, case.dy))
        del fresh
        same(case, want, got, "after calls whose arguments are gone")
        for name, buffer in buffers.items():
            buffer[...] = case.options[name]
        got = run(subject, OpCase(case.op, case.arrays, {**case.options, **buffers}, case.dy))
        same(case, want, got, "with other content in the same host arrays")
