"""A backend's process as the operating system sees it: started, listened to, measured, and ended with all it started.

What a backend may do to its process is done here to one that is meant for it. The process has a keeper as its parent
(`keeper.main`), in a session of their own; whatever descends from either is found again by its ancestors, by the
session or by a mark in its environment, and is gone when the backend is.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from refbert.wire.frames import Stream

# Seconds. GRACE: for a process to go that is about to. _KILLING: until what does not die is left alone. _POLL: between
# two looks at a process that gives no answer.
GRACE = 2.0
_KILLING = 10.0
_POLL = 0.2
_MARK = "REFBERT_CONFORMANCE_WORKER"
_PROC = Path("/proc")
# Not `python -m`, which looks into the current directory before everywhere else: a file named json.py may lie there.
_START = "import sys; sys.path[:] = {path!r}; from refbert_conformance.process.keeper import main; main()"


@dataclass(frozen=True)
class Process:
    """One process: its parent, its session, when it started (in ticks), what it is called, whether it is a zombie."""

    pid: int
    parent: int
    session: int
    started: int
    name: str
    dead: bool


class Child:
    """A backend's process, started.

    stream: the wire protocol with it. printed, said: how many bytes it has printed, and the last few. ended: its exit
    status as `os.waitstatus_to_exitcode` has it, None while it runs. keeper_gone: somebody killed the keeper.

    ``host``: the Python backend to be hosted; ``command``: the command to be run instead; ``plant``: the arguments of
    `planting.plant`, where the backend is to find a module with an error in it; ``environ``: what its environment has
    besides this process's. ``look`` is called while somebody waits for the process, to raise if that has to end;
    ``gone`` where it cannot answer any more.
    """

    def __init__(
        self, host: str, command: Sequence[str] | None, look: Callable[[], None], gone: Callable[[], None],
        plant: Sequence[str] | None = None, environ: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._look, self._gone = look, gone
        self._mark = secrets.token_hex(16)
        self._status, status = os.pipe()
        self._screen, screen = os.pipe()
        self._incoming, answers = os.pipe()
        requests, self._outgoing = os.pipe()
        job = {"host": host, "command": command, "plant": plant, "ends": [requests, answers],
               "status": status}  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START.format(path=[p for p in sys.path if p]), json.dumps(job)],
            stdin=subprocess.DEVNULL, stdout=screen, stderr=screen, pass_fds=(requests, answers, status),
            start_new_session=True,
            env={**os.environ, **(environ or {}), _MARK: self._mark, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        for fd in (status, screen, answers, requests):
            os.close(fd)
        self._own: tuple[int, ...] = (self._status, self._screen, self._incoming, self._outgoing)
        for fd in self._own:
            os.set_blocking(fd, False)
        self.stream = Stream(self._incoming, self._outgoing, self._wait)
        self._watched, self._reading = {self._screen, self._status}, threading.Lock()
        self._polls = threading.local()
        self._known: dict[int, Process] = {}
        self.printed, self.said = 0, b""
        self.ended: int | None = None
        self.keeper_gone = False

    def _wait(self, fd: int, writing: bool) -> None:
        """Until the descriptor is ready, or nothing can come of it."""
        event = select.POLLOUT if writing else select.POLLIN
        while not self._listen(fd, event, _POLL):
            if (self.ended is not None or self.keeper_gone) and not self._listen(fd, event, 0.0):
                self._gone()
            self._look()

    def _listen(self, fd: int | None, event: int, seconds: float) -> bool:
        """Take what has been printed, and how the process ended; whether the descriptor is ready."""
        ready = [one for one, _ in self._poll(fd, event).poll(seconds * 1000)]
        if ready == [fd]:
            return True
        with self._reading:
            for one in self._watched.intersection(ready):
                self._read(one)
        return fd in ready

    def _poll(self, fd: int | None, event: int) -> select.poll:
        """What waits for the descriptor and for those that are watched: made once for each thread, for every message
        needs it."""
        known: dict[tuple[int | None, int], tuple[tuple[int, ...], select.poll]]
        watched, known = tuple(self._watched), self._polls.__dict__.setdefault("known", {})
        before, poll = known.get((fd, event), ((), None))
        if poll is None or before != watched:
            poll = select.poll()
            for one in watched:
                poll.register(one, select.POLLIN)
            if fd is not None:
                poll.register(fd, event)
            known[fd, event] = watched, poll
        return poll

    def _read(self, fd: int) -> None:
        try:
            chunk = os.read(fd, 1 << 16)
        except BlockingIOError:  # another thread has read it
            return
        if not chunk:
            self._watched.discard(fd)
            self.keeper_gone |= fd == self._status and self.ended is None
        elif fd == self._screen:
            self.printed += len(chunk)
            self.said = (self.said + chunk)[-4096:]
        else:
            self.ended = int(chunk)

    def settle(self) -> None:
        """Wait a little for a process that is about to end, so that its status is known. It is asked nothing more."""
        self._close(self._outgoing)
        self._wake()
        until = time.monotonic() + GRACE
        while self.ended is None and not self.keeper_gone and (left := until - time.monotonic()) > 0:
            self._listen(None, 0, left)
        before = -1
        while before != self.printed:  # what it said last may lie in the pipe
            before = self.printed
            self._listen(None, 0, 0.0)

    def _close(self, *fds: int) -> None:
        for fd in set(fds).intersection(self._own):
            os.close(fd)
        self._own = tuple(set(self._own).difference(fds))

    def computing(self) -> dict[str, float]:
        """CPU seconds so far of every thread of the process and of what it has started, and of all together ("all",
        what has ended included), where the system says so."""
        found: dict[str, float] = {}
        ticks = os.sysconf("SC_CLK_TCK")
        for one in self._family():
            with contextlib.suppress(OSError, ValueError, IndexError):
                found["all"] = found.get("all", 0.0) + sum(map(int, _fields(f"{one.pid}")[11:15])) / ticks
                for thread in os.listdir(_PROC / str(one.pid) / "task"):
                    used = sum(map(int, _fields(f"{one.pid}/task/{thread}")[11:13])) / ticks
                    found[f"{one.pid}/{thread}"] = used
        return found

    def memory(self, limit: int) -> int:
        """Bytes that the process and what it has started hold, shared ones once; 0 where the system does not say.

        ``limit``: only beyond it are shared pages told apart, which takes the system a while.
        """
        family = self._family()
        total = sum(resident(one.pid) for one in family)
        return sum(_proportional(one.pid) for one in family) if total > limit and len(family) > 1 else total

    def _family(self, *, marked: bool = False) -> list[Process]:
        """What descends from the keeper, itself left out. ``marked``: also what only its environment gives away."""
        running = {one.pid: one for one in _processes()}
        keeper = self._process.pid
        self._known = {pid: one for pid, one in self._known.items() if running.get(pid) and
                       running[pid].started == one.started}  # fmt: skip
        for one in running.values():
            up: Process | None = one
            while up is not None and up.pid != keeper and up.pid not in self._known and up.session != keeper:
                up = running.get(up.parent)
            if one.pid != keeper and (up is not None or (marked and self._marked(one.pid))):
                self._known[one.pid] = one
        return [running[pid] for pid in self._known if not running[pid].dead]

    def _marked(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            return f"{_MARK}={self._mark}".encode() in (_PROC / str(pid) / "environ").read_bytes()
        return False

    def end(self) -> list[str]:
        """End the process, its keeper and all that they have started; the names of what it had left behind."""
        self._close(self._outgoing)
        left: list[str] = []
        if self.ended == 0:  # it went of its own will: what is still there in a moment was left behind
            self._until(lambda: not self._family(marked=True), GRACE / 4)
            left = [one.name for one in self._family(marked=True)]
        self._kill()
        self._close(*self._own)
        self.stream.close()
        return left

    def _until(self, met: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while not met() and time.monotonic() < until:
            time.sleep(0.01)

    def _wake(self) -> None:
        """A backend may have stopped its keeper, which says how it has ended, and reaps what it has left."""
        with contextlib.suppress(OSError):
            os.kill(self._process.pid, signal.SIGCONT)

    def _kill(self) -> None:
        self._wake()
        until = time.monotonic() + _KILLING
        while (family := self._family(marked=True)) and time.monotonic() < until:
            for one in family:
                with contextlib.suppress(OSError):
                    os.kill(one.pid, signal.SIGKILL)
            time.sleep(0.005)
        if not _PROC.is_dir():
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE / 4)  # it ends once it has reaped all of them
        self._process.kill()
        self._process.wait()


def _processes() -> Iterator[Process]:
    with contextlib.suppress(OSError):
        for entry in os.listdir(_PROC):
            if entry.isdecimal():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    state, parent, _, session, *rest = _fields(entry)
                    name = (_PROC / entry / "comm").read_text(encoding="utf-8", errors="replace").strip()
                    yield Process(int(entry), int(parent), int(session), int(rest[15]), name, state in "ZX")


def _fields(of: str) -> list[str]:
    """The fields of a process's or thread's stat file behind its name, which may hold anything."""
    return (_PROC / of / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def resident(pid: int) -> int:
    """Resident memory of a process in bytes; 0 where the system does not say."""
    try:
        pages = int((_PROC / str(pid) / "statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _proportional(pid: int) -> int:
    try:
        rollup = (_PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii", errors="replace")
        return next(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return resident(pid)
