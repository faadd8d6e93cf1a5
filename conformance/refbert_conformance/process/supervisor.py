"""Trying one property after the other on a backend in a process of its own, which is watched, and made again when it
dies: each property gets a verdict.

Everything that judges (Hypothesis, the reference, bounds, expected values, seeds) is here; the backend's process gets
inputs and handles over the wire protocol, and gives arrays.

Limits, all stated in the message of the property that meets them: what an example may compute; how long it may be
silent; how much memory it may use; how much may be printed during one property.

A busy machine makes everything slow, and is nobody's fault. What counts against a backend is therefore the time that
it computes (CPU seconds of its busiest thread), and only if it is beyond the limit twice. What gives no answer without
computing that long (it waits for something, or for a turn) is tried once more as well, and is then *inconclusive*.

A library may keep what it has compiled for every shape that it has met. So a process that reaches the limit of memory
after other properties is made again, which is said, and the property tried in a new one: what counts is what one
property takes.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Any, NoReturn

from refbert.backend import OPTIONAL, REQUIRED, registry
from refbert.errors import BackendUnavailable, InputError, RefbertError, RefbertWarning, one_line, printable
from refbert.wire import command
from refbert.wire.connection import Connection
from refbert.wire.remote import RemoteBackend
from refbert_conformance.engine import runner
from refbert_conformance.engine.conditions import Condition
from refbert_conformance.engine.measure import Failure, Stopped, words
from refbert_conformance.engine.subject import Subject
from refbert_conformance.engine.suspicion import TRIALS, Errors, measured
from refbert_conformance.failures.diagnosis import explain
from refbert_conformance.process.child import Child
from refbert_conformance.process.facts import described, versions
from refbert_conformance.process.keeper import LOST
from refbert_conformance.process.records import Diagnosis, Row, row_of
from refbert_conformance.properties.table import all_properties
from refbert_conformance.waivers import Waiver, concerning

# A backend that dies this often is not asked any more.
CRASHES = 20
DEATHS = 2  # of one op
# How often memory and processors are looked at, in seconds.
_LOOK = 0.2
# A process that gets less than this share of a processor waits; more, and it has this many times as long.
_WAITS, _PATIENCE = 0.05, 8.0
# Making a backend may mean importing and compiling a library: so many times as long as an example.
_MAKING = 4.0
# Operations of an example that has the limit's time; a larger one has more in proportion, since a slow kernel or an
# interpreted machine is not a wrong one.
_USUAL = 2**30
_KEPT_APART = "refbert's own numbers are computed in another process"


@dataclass(frozen=True)
class Limits:
    """seconds: for one example. memory: bytes of the backend's process and what it starts. output: bytes printed during
    one property."""

    seconds: float = 30.0
    memory: int = field(default_factory=lambda: int(0.75 * _machine_memory()))
    output: int = 64 << 20

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise InputError(f"the time that an example may take is a number of seconds above 0, not {self.seconds:g}")


@dataclass
class Run:
    """What is known so far. results: id -> row, in the order of the properties. offers: the contract's methods that are
    there. errors: what they are like together, where that was looked at."""

    backend: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    offers: list[str] = field(default_factory=list)
    results: dict[str, Row] = field(default_factory=dict)
    errors: Measured | None = None


@dataclass
class Measured:
    """What errors are like, output by output; ``not_measured``: op -> why."""

    errors: list[Errors] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)

    def add(self, other: Measured) -> None:
        """What another judge has measured."""
        self.errors += other.errors
        self.not_measured |= other.not_measured


Watch = Callable[[str, str], None]


class Supervisor:
    """A backend under trial. Leave it by ``with``, or `close` it: its process runs until then."""

    def __init__(
        self, job: Mapping[str, Any], limits: Limits, watch: Watch = lambda kind, id: None,
        needs: Mapping[str, Sequence[str]] | None = None,
    ) -> None:  # fmt: skip
        """``watch("start" | "try" | "result", id)`` is told as it goes. ``needs``: id -> ops; what needs an op that has
        killed its process twice is not tried any more.
        """
        self.run = Run()
        self._excuses: Mapping[str, Sequence[Waiver]] = {}
        self._job, self._limits, self._watch, self._needs = job, limits, watch, needs or {}
        self._properties = {p.id: p for p in all_properties(job.get("model"), job.get("lanes", ()))}
        self._printed, self._looked = 0, 0.0
        self._is_command = str(job["given"]).startswith(command.PREFIX)
        self._child: Child | None = None
        self._subject: Subject | None = None
        self._used = False  # whether this process has been asked about something else before
        self._clock: _Clock | None = None
        self._example = ""
        self._deaths: dict[str, list[tuple[str, str, str]]] = {}  # op -> (property, outcome, reason)

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self._end()

    def close(self) -> None:
        """Let the process end, and say so where it has left something running."""
        if self._child is not None:
            self._child.settle()
            self._end()

    def _end(self) -> None:
        child, self._child, self._subject = self._child, None, None
        if child is not None and (left := child.end()):
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

    def subject(self) -> Subject:
        """The backend, for one who asks by himself and calls `alive` before each question: what ends the process raises
        `Stopped`. Raises `BackendUnavailable` if the backend cannot be made."""
        self.make()
        return self._made()

    def alive(self, example: Any = None) -> None:
        """The next question begins, with the time and the output that one may take."""
        assert self._child is not None
        self._printed = self._child.printed
        self._trying(example)

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

    def measure(self, ids: Sequence[str]) -> Measured:
        """What errors are like of every op whose accuracy is among the ids, and has passed (see `engine.suspicion`).

        Nothing that happens here counts against the backend.
        """
        levels: dict[str, list[str]] = {}
        for id in ids:
            level, op, name = id.split("/", 2)
            row = self.run.results.get(id)
            if name == "accuracy" and op in TRIALS and row is not None and row.outcome == "passed":
                levels.setdefault(op, []).append(level)
        found = Measured()
        for op, of in levels.items():
            try:
                found.errors += self._twice(partial(self._errors, op, of))
            except Stopped as stopped:
                found.not_measured[op] = f"the backend {stopped.reason}"
            except Failure as failure:
                found.not_measured[op] = str(failure)
            except Exception as error:  # noqa: BLE001  (whatever a plugin raises is its own)
                found.not_measured[op] = words(error)
        return found

    def _errors(self, op: str, levels: Sequence[str]) -> list[Errors]:
        try:
            subject = self._made()
            self._trying(None)
            return measured(subject, op, levels, self._job["seed"])
        except Stopped:
            self._end()
            raise
        finally:
            self._used = True

    def _twice(self, attempt: Callable[[], Any]) -> Any:
        try:
            return attempt()
        except Stopped as stopped:
            if stopped.kind == "died":
                raise
            first = stopped.kind
            if first == "full":
                kept = "with what it keeps of earlier properties; it goes on in a new process"
                warnings.warn(f"the backend {stopped.reason}, {kept}", RefbertWarning, stacklevel=2)
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

    def _made(self) -> Subject:
        """The backend, in a process that runs; raises `BackendUnavailable` if it cannot be made, and `Stopped`."""
        if self._subject is not None:
            return self._subject
        given = self._job["given"]
        argv = command.words(given) if self._is_command else None
        if argv is not None and shutil.which(argv[0]) is None:
            why = f"{argv[0]} is not executable" if os.path.exists(argv[0]) else f"there is no program {argv[0]}"
            raise BackendUnavailable(f'backend "{given}" cannot be started: {why}')
        try:
            gone = partial(self._broken, "closed", "")
            suspect = {name: self._job[name] for name in ("plant", "environ") if name in self._job}
            child = self._child = Child(given, argv, self._look, gone, **suspect)
            self._clock, self._example = _Clock(child, _MAKING * self._limits.seconds), ""
            connection = Connection(child.stream, self._broken)
            new = partial(RemoteBackend, connection, dtype=self._job["dtype"], device=self._job["device"])
            subject = Subject(given, partial(registry.checked, given, new), self._job.get("arithmetic"))
        except Exception as error:  # noqa: BLE001  (whatever a plugin makes is its own)
            self._end()
            said = str(error) if isinstance(error, RefbertError) else f'backend "{given}": {words(error)}'
            raise BackendUnavailable(said) from None
        except BaseException:
            self._end()
            raise
        self.run.backend, self.run.versions = described(subject), versions()
        self.run.offers = [name for name in (*REQUIRED, *OPTIONAL) if subject.has(name)]
        self._subject, self._used = subject, False
        return subject

    def _asked(self, id: str) -> Row:
        subject = self._made()
        assert self._child is not None
        self._printed = self._child.printed
        excuses = [runner.Excuse(Condition(one.when), one.reason) for one in self._excuses.get(id, ()) if one.when]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = runner.run(
                    self._properties[id], subject, effort=self._job["effort"], seed_number=self._job["seed"],
                    trying=self._trying, excuses=excuses,
                    shrinking=self._job.get("shrinking", runner.SHRINKING_SECONDS),
                )  # fmt: skip
                row = row_of(result)
                if result.outcome == "failed" and self._job["explain"] and not (result.waived or result.stale):
                    row = self._explained(result, subject, row)
        except BaseException:
            self._end()
            raise
        self._used = True
        if mode := subject.mode:
            self.run.backend["note"] = f"the backend sets {mode} for its whole process; {_KEPT_APART}"
        return row

    def _explained(self, result: runner.Result, subject: Subject, row: Row) -> Row:
        op = row.op
        passed = [id for id, one in self.run.results.items() if one.outcome == "passed" and id.split("/")[1] == op]
        job = {**self._job, "passed": passed, "alive": lambda: self._trying(None)}
        assert row.failure is not None
        try:
            message, failure = explain(result, subject, job, row.failure)
        except Stopped:
            self._end()
            return row  # the verdict stands, without what could not be found out about it
        rho = row.rho
        if failure.worst is not None:  # the smallest case may be the worst
            rho = max(rho or 0.0, failure.worst.rho)
        return replace(row, message=message, failure=failure, rho=rho)

    def _trying(self, example: Any) -> None:
        assert self._child is not None
        self._clock = _Clock(self._child, self._limits.seconds * max(1.0, getattr(example, "operations", 0) / _USUAL))
        self._example = "" if example is None else printable(repr(example)[:2000])
        self._watch("try", "")

    def _look(self) -> None:
        """Raise `Stopped` where the process is beyond a limit."""
        child = self._child
        if child is None or self._clock is None:
            return
        if child.printed - self._printed > self._limits.output:
            raise Stopped("died", f"printed more than the limit of {self._limits.output >> 20} MiB", self._example)
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        self._clock.check(self._example)
        if child.memory(self._limits.memory) > self._limits.memory:
            limit = f"the limit of {self._limits.memory / 2**30:.1f} GiB"
            raise Stopped("full" if self._used else "died", f"used more memory than {limit}", self._example)

    def _broken(self, kind: str, why: str) -> NoReturn:
        """What it means that the backend's process does not speak the protocol any more."""
        child = self._child
        if kind == "closed" and child is not None:
            child.settle()
            raise Stopped(*_death(child, self._is_command), self._example)
        plain = kind == "forked" or self._is_command
        reason = why if plain else f"wrote where its results are sent: it {why}"
        raise Stopped("died", reason, self._example)


class _Clock:
    """How long an example has taken, and what the backend has computed meanwhile."""

    def __init__(self, child: Child, seconds: float) -> None:
        self._child, self._seconds, self._since = child, seconds, time.monotonic()
        self._before: dict[str, float] | None = None
        self._next = _LOOK

    def check(self, example: str) -> None:
        """Raise `Stopped` if the limit is reached."""
        wall = time.monotonic() - self._since
        if wall < self._next:
            return
        now = self._child.computing()
        if self._before is None:  # not at every example: most are over before anybody could look
            self._before = now
        self._next = wall + min(1.0, self._seconds / 4)
        spent = {thread: used - self._before.get(thread, 0.0) for thread, used in now.items()}
        together = spent.pop("all", 0.0)
        busiest = max([*spent.values(), together / (os.cpu_count() or 1)], default=0.0)
        if wall > self._seconds and self._child.stream.unfinished and together < _WAITS * wall:
            raise Stopped("died", f"stopped in the middle of a message, {self._child.stream.unfinished}", example)
        limit = f"within the limit of {self._seconds:g} seconds"
        if busiest > self._seconds:
            raise Stopped("hung", f"hung: no answer {limit}, all of them spent computing", example)
        if wall > self._seconds and (together < _WAITS * wall or wall > _PATIENCE * self._seconds):
            raise Stopped("slow", f"gave no answer in {wall:.0f} seconds, of which it computed {busiest:.1f}", example)


def _death(child: Child, is_command: bool) -> tuple[str, str]:
    lines = child.said.decode("utf-8", "replace").strip().splitlines()
    said = f" (it said: {one_line(lines[-1])[:200]})" if lines else ""
    status, it = child.ended, "" if is_command else "the interpreter "
    if child.keeper_gone:
        return "died", f"killed its parent process{said}"
    if status is None or (status == LOST and not is_command):
        return "died", f"closed a file that is not its own, over which results are sent{said}"
    if status < 0:
        return "killed" if -status == signal.SIGKILL else "died", f"crashed {it}({_named(-status)}){said}"
    return "died", f"ended {it}with status {status}{said}"


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
