"""Asking a worker about one property after the other, watching it, and going on when it dies: each gets a verdict.

Limits, all stated in the message of the property that meets them: what an example may compute; how long it may be
silent; how much memory it may use; how much may be printed during one property.

A busy machine makes everything slow, and is nobody's fault. What counts against a backend is therefore the time that
it computes (CPU seconds of its busiest thread), and only if it is beyond the limit twice. What gives no answer without
computing that long (it waits for something, or for a turn) is tried once more as well, and is then *inconclusive*.
"""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from refbert.errors import BackendUnavailable, InputError, RefbertWarning, one_line
from refbert_conformance.process import channel
from refbert_conformance.process.child import Worker
from refbert_conformance.process.records import Diagnosis, Row, Wrong
from refbert_conformance.process.worker import LOST
from refbert_conformance.waivers import Waiver, concerning

# A backend that dies this often is not asked any more.
CRASHES = 20
DEATHS = 2  # of one op
# How often a process is looked at, in seconds.
_POLL = 0.2
# A process that gets less than this share of a processor waits; more, and it has this many times as long.
_WAITS, _PATIENCE = 0.05, 8.0
# Lines that a worker may send before its answer: a thorough property with all that explains it has some thousands.
_TELLS = 50_000
# Making a backend may mean importing and compiling a library: so many times as long as an example.
_MAKING = 4.0


@dataclass(frozen=True)
class Limits:
    """seconds: for one example. memory: bytes of the worker and what it starts. output: bytes printed during one
    property."""

    seconds: float = 30.0
    memory: int = field(default_factory=lambda: int(0.75 * _machine_memory()))
    output: int = 64 << 20

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise InputError(f"the time that an example may take is a number of seconds above 0, not {self.seconds:g}")


@dataclass
class Run:
    """What is known so far. results: id -> row, in the order of the properties. backend, versions, offers (the
    contract's methods that are there): from the worker."""

    backend: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    offers: list[str] = field(default_factory=list)
    results: dict[str, Row] = field(default_factory=dict)


class Stopped(Exception):
    """A worker had to end. reason: what is said of it, after "the backend". kind: "slow" if it gave no answer without
    computing for long, "hung" if it computed too long, "killed" by a signal that the system sends too, else "died".
    example: what was tried."""

    def __init__(self, kind: str, reason: str, example: str = "") -> None:
        super().__init__(reason)
        self.kind, self.reason, self.example = kind, reason, example


Watch = Callable[[str, str], None]


class Supervisor:
    """A backend under trial. Leave it by ``with``, or `close` it: a worker runs until then."""

    def __init__(
        self, job: Mapping[str, Any], limits: Limits, watch: Watch = lambda kind, id: None,
        needs: Mapping[str, Sequence[str]] | None = None,
    ) -> None:  # fmt: skip
        """``watch("start" | "try" | "result", id)`` is told as it goes. ``needs``: id -> ops; what needs an op that has
        killed its worker twice is not tried any more.
        """
        self.run = Run()
        self._excuses: Mapping[str, Sequence[Waiver]] = {}
        self._job, self._limits, self._watch, self._needs = job, limits, watch, needs or {}
        self._worker: Worker | None = None
        self._deaths: dict[str, list[tuple[str, str, str]]] = {}  # op -> (property, outcome, reason)

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self._end()

    def close(self) -> None:
        """Let the worker end, and say so where it has left something running."""
        if self._worker is not None:
            self._worker.settle()
            self._end()

    def _end(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None and (left := worker.end()):
            names = ", ".join(sorted({one_line(name) for name in left}))
            warnings.warn(
                f"the backend left {len(left)} process{'es' * (len(left) > 1)} running ({names}); "
                f"{'they were' if len(left) > 1 else 'it was'} ended", RefbertWarning, stacklevel=2,
            )  # fmt: skip

    def make(self) -> Run:
        """Make the backend, so that it is known what it is; raises `BackendUnavailable` if that cannot be."""
        if not self.run.backend:
            try:
                self._twice(self._made)
            except Stopped as stopped:
                raise BackendUnavailable(
                    f'backend "{self._job["given"]}" {stopped.reason} while it was being made'
                ) from None
        return self.run

    def excuse(self, waived: Sequence[Waiver]) -> dict[str, str]:
        """From now on cases that meet a waiver's condition may fail; returns id -> reason of what is waived whole."""
        whole, self._excuses = concerning(waived, self.run.backend["dtype"], self._job["effort"])
        return whole

    def judge(self, id: str) -> Row:
        """Try one property, and once more what ended in a way that a busy machine may bring about."""
        row = self._not_tried(id)
        if row is None:
            self.make()
            self._watch("start", id)
            try:
                row = self._twice(lambda: self._asked(id))
            except Stopped as stopped:
                row = self._stopped(id, stopped)
            except BackendUnavailable as error:  # now; it has been there before
                row = self._stopped(id, Stopped("slow", f"could not be made again: {error}"))
        self.run.results[id] = row
        self._watch("result", id)
        return row

    def _twice(self, attempt: Callable[[], Any]) -> Any:
        try:
            return attempt()
        except Stopped as stopped:
            if stopped.kind == "died":
                raise
            first = stopped.kind
        try:
            return attempt()
        except Stopped as again:
            if first == "slow" and again.kind != "died":
                again.kind = "slow"
            raise

    def _not_tried(self, id: str) -> Row | None:
        deaths = [death for of in self._deaths.values() for death in of]
        if len(deaths) >= CRASHES:
            return _untried(id, f"the backend has died {len(deaths)} times", deaths)
        needs = self._needs.get(id, ())
        for op, deaths in self._deaths.items():
            if len(deaths) >= DEATHS and op in needs and set(needs) <= set(self.run.offers):
                of = " and in ".join(one for one, _, _ in deaths[:DEATHS])
                return _untried(id, f"{op} {deaths[-1][2]} in {of}", deaths)
        return None

    def _stopped(self, id: str, stopped: Stopped) -> Row:
        if stopped.kind == "slow":
            row = _row(id, "inconclusive", f"the backend {stopped.reason}; so it was when it was tried once more")
        else:
            row = _row(id, "failed", f"the backend {stopped.reason}", Diagnosis(stopped.example))
        self._deaths.setdefault(id.split("/")[1], []).append((id, row.outcome, stopped.reason))
        return row

    def _made(self) -> None:
        """A worker whose backend is made."""
        if self._worker is not None:
            return
        self._worker = Worker(self._job)
        event = self._answer(("ready", "unavailable"), self._limits.seconds * _MAKING)
        if event["event"] == "unavailable":
            self._end()
            raise BackendUnavailable(event["message"])
        self.run.backend, self.run.versions, self.run.offers = event["backend"], event["versions"], event["offers"]

    def _asked(self, id: str) -> Row:
        self._made()
        assert self._worker is not None
        passed = [one for one, row in self.run.results.items() if row.outcome == "passed"]
        self._worker.ask({
            "id": id, "passed": [one for one in passed if one.split("/")[1] == id.split("/")[1]],
            "excuses": [{"when": one.when, "reason": one.reason} for one in self._excuses.get(id, ())],
        })  # fmt: skip
        row: Row = self._answer(("result",), self._limits.seconds, id)["row"]
        try:
            while (event := self._answer(("detail", "over"), self._limits.seconds, id))["event"] == "detail":
                row = replace(row, message=event["message"], failure=event["failure"])
                worst = event["failure"].worst
                if worst is not None:  # the smallest case may be the worst
                    row = replace(row, rho=max(row.rho or 0.0, worst.rho))
        except Stopped:
            pass  # the verdict stands, without what could not be found out about it
        return row

    def _answer(self, kinds: Sequence[str], seconds: float, id: str = "") -> dict[str, Any]:
        """The next event of those kinds, about the property of that id; raises `Stopped` if it does not come, when the
        worker has been ended."""
        assert self._worker is not None
        try:
            return self._listen(self._worker, kinds, seconds, id)
        except BaseException:
            self._end()
            raise

    def _listen(self, worker: Worker, kinds: Sequence[str], seconds: float, id: str) -> dict[str, Any]:
        clock, trying, printed, told = _Clock(worker, seconds), "", worker.printed, 0
        looked = time.monotonic()
        while True:
            line = worker.line(_POLL)
            if line is not None:
                try:
                    event = channel.read(line)
                except Wrong as wrong:
                    said = f"{wrong}: {channel.excerpt(line)}"
                    raise Stopped("died", f"wrote where its results are sent, {said}", trying) from None
                if event["event"] in kinds and event.get("id", id) == id:
                    return event
                if event["event"] == "forked":
                    raise Stopped("died", "forked, and its child came back into the caller", trying)
                told += 1
                if event["event"] not in ("note", "try") or told > _TELLS:
                    turn = f"out of turn, as line {told:,} of one property"
                    raise Stopped("died", f"wrote where its results are sent, {turn}: {channel.excerpt(line)}", trying)
                if event["event"] == "note":
                    self.run.backend["note"] = event["message"]
                else:
                    clock, trying = _Clock(worker, seconds), event["example"]
                    self._watch("try", id)
            elif worker.over:
                worker.settle()
                raise Stopped(*_death(worker), trying)
            if worker.printed - printed > self._limits.output:
                raise Stopped("died", f"printed more than the limit of {self._limits.output >> 20} MiB", trying)
            clock.check(trying)
            if time.monotonic() - looked > _POLL:
                looked = time.monotonic()
                if worker.memory(self._limits.memory) > self._limits.memory:
                    limit = f"the limit of {self._limits.memory / 2**30:.1f} GiB"
                    raise Stopped("died", f"used more memory than {limit}", trying)


class _Clock:
    """How long a worker has been silent, and what it has computed meanwhile."""

    def __init__(self, worker: Worker, seconds: float) -> None:
        self._worker, self._seconds, self._since = worker, seconds, time.monotonic()
        self._before: dict[str, float] | None = None
        self._next = _POLL

    def check(self, example: str) -> None:
        """Raise `Stopped` if the limit is reached."""
        wall = time.monotonic() - self._since
        if wall < self._next:
            return
        now = self._worker.computing()
        if self._before is None:  # not at every example: most are over before anybody could look
            self._before = now
        self._next = wall + min(1.0, self._seconds / 4)
        spent = {thread: used - self._before.get(thread, 0.0) for thread, used in now.items()}
        together = spent.pop("all", 0.0)
        busiest = max([*spent.values(), together / (os.cpu_count() or 1)], default=0.0)
        limit = f"within the limit of {self._seconds:g} seconds"
        if busiest > self._seconds:
            raise Stopped("hung", f"hung: no answer {limit}, all of them spent computing", example)
        if wall > self._seconds and (together < _WAITS * wall or wall > _PATIENCE * self._seconds):
            raise Stopped("slow", f"gave no answer in {wall:.0f} seconds, of which it computed {busiest:.1f}", example)


def supervise(
    job: Mapping[str, Any], ids: Sequence[str], limits: Limits, watch: Watch = lambda kind, id: None,
    needs: Mapping[str, Sequence[str]] | None = None, waived: Sequence[Waiver] = (),
) -> Run:  # fmt: skip
    """Try every property in a process of the backend's own; for ``watch`` and ``needs`` see `Supervisor`. ``waived``:
    those with a condition count here, the others in the report.

    Raises `BackendUnavailable` if the backend cannot be made.
    """
    with Supervisor(job, limits, watch, needs) as supervisor:
        supervisor.make()
        supervisor.excuse(waived)
        for id in ids:
            supervisor.judge(id)
    return supervisor.run


def _death(worker: Worker) -> tuple[str, str]:
    lines = worker.said.decode("utf-8", "replace").strip().splitlines()
    words = f" (it said: {one_line(lines[-1])[:200]})" if lines else ""
    status = worker.ended
    if worker.keeper_gone:
        return "died", f"killed its parent process{words}"
    if status in (None, LOST):
        return "died", f"closed a file that is not its own, over which results are sent{words}"
    if status is not None and status < 0:
        return "killed" if -status == signal.SIGKILL else "died", f"crashed the interpreter ({_named(-status)}){words}"
    return "died", f"ended the interpreter with status {status}{words}"


def _named(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _row(id: str, outcome: str, message: str, failure: Diagnosis | None = None) -> Row:
    """Of what the worker did not live to report."""
    level, op, *_ = id.split("/")
    return Row(
        id=id, level=level, op=op, says="", outcome=outcome, examples=0, seconds=0.0, rho=None, ulps=None,
        unchecked=0.0, message=message, waived=None, failure=failure,
    )  # fmt: skip


def _untried(id: str, reason: str, deaths: Sequence[tuple[str, str, str]]) -> Row:
    said = f"not tried: {reason}"
    sure = any(outcome == "failed" for _, outcome, _ in deaths)
    return _row(id, "failed", said, Diagnosis("")) if sure else _row(id, "inconclusive", said)


def _machine_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 16 << 30
