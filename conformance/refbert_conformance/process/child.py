"""A worker as the operating system sees it: started, listened to, measured, and ended with all that it has started.

What a backend may do to its process is done here to one that is meant for it. The worker has a keeper as its parent
(`worker.main`), in a session of their own; whatever descends from either is found again by its ancestors, by the
session or by a mark in its environment, and is gone when the worker is.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from refbert_conformance.process.channel import LONGEST

# Seconds. GRACE: for a process to go that is about to. _KILLING: until what does not die is left alone.
GRACE = 2.0
_KILLING = 10.0
_MARK = "REFBERT_CONFORMANCE_WORKER"
_PROC = Path("/proc")
# Not `python -m`, which looks into the current directory before everywhere else: a file named json.py may lie there.
_START = "import sys; sys.path[:] = {path!r}; from refbert_conformance.process.worker import main; main()"


@dataclass(frozen=True)
class Process:
    """One process: its parent, its session, when it started (in ticks), what it is called, whether it is a zombie."""

    pid: int
    parent: int
    session: int
    started: int
    name: str
    dead: bool


class Worker:
    """A started worker. printed, said: how many bytes it has printed, and the last few. ended: its exit status as
    `os.waitstatus_to_exitcode` has it, None while it runs. keeper_gone: somebody killed the keeper."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._mark = secrets.token_hex(16)
        status, status_end = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START.format(path=[p for p in sys.path if p]),
             json.dumps({**job, "status": status_end})],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=(status_end,),
            start_new_session=True, env={**os.environ, _MARK: self._mark, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        os.close(status_end)
        assert self._process.stdin
        assert self._process.stdout
        assert self._process.stderr
        self._requests: IO[bytes] = self._process.stdin
        self._channel, self._stderr = self._process.stdout.fileno(), self._process.stderr.fileno()
        self._status = status
        self._selector = selectors.DefaultSelector()
        for fd in (self._channel, self._stderr, status):
            os.set_blocking(fd, False)
            self._selector.register(fd, selectors.EVENT_READ)
        self._lines: collections.deque[bytes] = collections.deque()
        self._unread = b""
        self._known: dict[int, Process] = {}
        self.printed, self.said = 0, b""
        self.ended: int | None = None
        self.keeper_gone = self.channel_closed = False

    def ask(self, request: Mapping[str, Any]) -> None:
        """Send one request; that the worker has gone shows when it is listened to."""
        with contextlib.suppress(OSError):
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()

    def line(self, seconds: float) -> bytes | None:
        """The next line, or None if none has come whole after waiting up to ``seconds`` for something. A line that has
        grown beyond `LONGEST` comes without its end."""
        if not self._lines:
            self._listen(seconds)
        return self._lines.popleft() if self._lines else None

    def _listen(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            self._read(key.fd)
        if self.ended is not None or self.keeper_gone:  # what was sent before may lie in the pipe
            while self._channel in self._selector.get_map() and self._read(self._channel):
                pass
        *lines, self._unread = self._unread.split(b"\n")
        self._lines += lines
        if len(self._unread) > LONGEST:
            self._lines.append(self._unread)
            self._unread = b""

    @property
    def over(self) -> bool:
        """Whether nothing more can come."""
        return not self._lines and (self.ended is not None or self.keeper_gone or self.channel_closed)

    def _read(self, fd: int) -> bool:
        try:
            chunk = os.read(fd, 1 << 16)
        except BlockingIOError:
            return False
        if not chunk:
            self._selector.unregister(fd)
            self.channel_closed |= fd == self._channel
            self.keeper_gone |= fd == self._status and self.ended is None
        elif fd == self._channel:
            self._unread += chunk
        elif fd == self._stderr:
            self.printed += len(chunk)
            self.said = (self.said + chunk)[-4096:]
        else:
            self.ended = int(chunk)
        return bool(chunk)

    def settle(self) -> None:
        """Wait a little for a worker that is about to end, so that its status is known. No requests come any more."""
        with contextlib.suppress(OSError):
            self._requests.close()
        self._wake()
        until = time.monotonic() + GRACE
        while self.ended is None and not self.keeper_gone and (left := until - time.monotonic()) > 0:
            self._listen(left)

    def computing(self) -> dict[str, float]:
        """CPU seconds so far of every thread of the worker and of what it has started, and of all together ("all",
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
        """Bytes that the worker and what it has started hold, shared ones once; 0 where the system does not say.

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
        """End the worker, its keeper and all that they have started; the names of what the worker had left behind."""
        with contextlib.suppress(OSError):
            self._requests.close()
        left: list[str] = []
        if self.ended == 0:  # it went of its own will: what is still there in a moment was left behind
            self._until(lambda: not self._family(marked=True), GRACE / 4)
            left = [one.name for one in self._family(marked=True)]
        self._kill()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream
            stream.close()
        os.close(self._status)
        self._selector.close()
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
