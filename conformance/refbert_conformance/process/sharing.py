"""Several judges side by side, each with a process of the backend's own, so that all processors are used."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from refbert.errors import RefbertError, RefbertWarning
from refbert_conformance.engine.property import EXAMPLES, Property
from refbert_conformance.process.records import Row
from refbert_conformance.process.supervisor import Limits, Measured, Run, Supervisor, Watch
from refbert_conformance.properties.table import all_properties
from refbert_conformance.waivers import Waiver

# Starting another judge takes as long as some of the properties.
_WORTH, _MOST = 40, 8


def supervise(
    job: Mapping[str, Any], ids: Sequence[str], limits: Limits, watch: Watch = lambda kind, id: None,
    needs: Mapping[str, Sequence[str]] | None = None, waived: Sequence[Waiver] = (), jobs: int | None = 1,
) -> Run:  # fmt: skip
    """Try every property in a process of the backend's own; for ``watch`` and ``needs`` see `Supervisor`. ``waived``:
    those with a condition count here, the others in the report. ``jobs``: how many judges; None: one for each processor
    if the backend is on the CPU, else one.

    Raises `BackendUnavailable` if the backend cannot be made.
    """
    with Supervisor(job, limits, watch, needs) as supervisor:
        run = supervisor.make()
        supervisor.excuse(waived)
        jobs = usual(run.backend["device"], len(ids)) if jobs is None else jobs
        mine, *others = shares(ids, jobs, job)
        limits = replace(limits, memory=limits.memory // jobs)
        with _judged_elsewhere((job, limits, needs, waived), others, watch) as (rows, measured):
            for id in mine:
                supervisor.judge(id)
            run.errors = found = supervisor.measure(mine)
        run.results |= rows
        left = [id for id in ids if id not in run.results]  # that judge could not go on
        for id in left:
            supervisor.judge(id)
        for one in (*measured, supervisor.measure(left)):
            found.add(one)
    run.results = {id: run.results[id] for id in ids}
    return run


def usual(device: str, count: int) -> int:
    """How many judges so many properties have: another device may be one process's alone."""
    if device != "cpu":
        return 1
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(processors, _MOST, count // _WORTH))


def shares(ids: Sequence[str], count: int, job: Mapping[str, Any]) -> list[list[str]]:
    """The ids in ``count`` parts that take about as long; whatever is about one op is in one of them, since what is
    known of it counts there."""
    known = {p.id: p for p in all_properties(job.get("model"), job.get("lanes", ()))}
    by_op: dict[str, list[str]] = {}
    for id in ids:
        by_op.setdefault(id.split("/")[1], []).append(id)
    weights = {op: sum(weight(known[id], job["effort"]) for id in of) for op, of in by_op.items()}
    found: list[list[str]] = [[] for _ in range(count)]
    loads = [0.0] * count
    for op in sorted(by_op, key=lambda op: -weights[op]):
        least = loads.index(min(loads))
        found[least] += by_op[op]
        loads[least] += weights[op]
    order = {id: number for number, id in enumerate(ids)}
    return [sorted(part, key=order.__getitem__) for part in found]


def weight(one: Property, effort: str) -> float:
    """Roughly the time that it takes, in ordinary examples: what is drawn, and what always runs."""
    reached = (one.corpus, one.larger, one.largest)[: tuple(EXAMPLES).index(effort) + 1]
    fixed = sum(20 if callable(some) else len(some) for some in reached)
    return one.cost * (one.examples(effort) + fixed)


@contextlib.contextmanager
def _judged_elsewhere(
    given: tuple[Any, ...], parts: Sequence[Sequence[str]], watch: Watch
) -> Iterator[tuple[dict[str, Row], list[Measured]]]:  # fmt: skip
    """Judge each part in a process of its own while the body runs; what came of it is there when it has ended."""
    rows: dict[str, Row] = {}
    measured: list[Measured] = []
    context = get_context("spawn")
    running = []
    for part in filter(None, parts):
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_judge, args=(given, part, theirs), daemon=True)
        with _uninterrupted():
            process.start()
        theirs.close()
        reader = threading.Thread(target=_collect, args=(mine, rows, measured, watch), daemon=True)
        reader.start()
        running.append((process, reader))
    try:
        yield rows, measured
        for _, reader in running:
            reader.join()
    finally:
        for process, _ in running:
            process.terminate()
            process.join()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """What is started here leaves Ctrl-C to this process, which ends it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _collect(pipe: Connection, rows: dict[str, Row], measured: list[Measured], watch: Watch) -> None:
    with contextlib.suppress(EOFError):
        while True:
            one = pipe.recv()
            if isinstance(one, str):
                warnings.warn(one, RefbertWarning, stacklevel=1)
            elif isinstance(one, Measured):
                measured.append(one)
            else:
                rows[one.id] = one
                watch("result", one.id)


def _judge(given: tuple[Any, ...], ids: Sequence[str], pipe: Connection) -> None:
    """What each of these processes does."""
    job, limits, needs, waived = given
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError, RefbertError), warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: pipe.send(str(message))
        with Supervisor(job, limits, needs=needs) as supervisor:
            supervisor.make()
            supervisor.excuse(waived)
            for id in ids:
                pipe.send(supervisor.judge(id))
            pipe.send(supervisor.measure(ids))
