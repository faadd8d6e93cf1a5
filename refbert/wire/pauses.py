"""Making a call stop at some of its lines of Python until another thread has got on, so that calls in two threads meet.

Left to itself, a call is mostly over before another thread has its turn. Compiled code has no lines, but lets other
threads in.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from refbert.wire.connection import connection_of

# Seconds that a pause lasts at most; after so many in vain, a round has no more.
_PATIENCE, _ENOUGH = 0.01, 4
HURRY = 1e-6  # seconds until Python's threads hand over, instead of 5 ms


class Pauses:
    """Pauses of a call in this process."""

    def __init__(self) -> None:
        self._lines: Lines | None = None

    def begin(self, pauses: int, rounds: int, number: int) -> None:
        """This thread begins a round; from 0 on it pauses, in the one before it is only watched."""
        if self._lines is None:
            self._lines = Lines(pauses, rounds)
            sys.settrace(self._lines)
        else:
            self._lines.begin(number)

    def got_on(self) -> None:
        """Another thread has finished something."""
        if self._lines is not None:
            self._lines.gone_on.set()


@contextmanager
def threaded(backend: Any) -> Iterator[Any]:
    """Inside, a backend's calls run in the threads that make them, of another process where it lives in one, and those
    hand over quickly. Gives `Pauses`, or what does the same there."""
    there_is = connection_of(backend)
    if there_is is not None:
        with there_is.threaded() as there:
            yield there
        return
    before = sys.getswitchinterval()
    sys.setswitchinterval(HURRY)
    try:
        yield Pauses()
    finally:
        sys.setswitchinterval(before)


class Lines:
    """Counts the lines of Python that a thread goes through in a round, and in later rounds waits at some of them: in
    all ``rounds`` together at every line, or at ``pauses`` evenly spread over them.

    gone_on: to be set by another thread when it has finished something.
    """

    def __init__(self, pauses: int, rounds: int) -> None:
        self._pauses, self._rounds = pauses, rounds
        self.gone_on = threading.Event()
        self._at, self._every = 0, 0.0
        self._round = self._in_vain = 0

    def begin(self, number: int) -> None:
        """A round: it waits at its share of the pauses, spread over as many lines as the one before it had."""
        self._every = self._every or max(1.0, self._at / self._pauses)
        self._at = self._in_vain = 0
        self._round = number

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, this thread's lines count."""
        sys.settrace(self)
        try:
            yield
        finally:
            sys.settrace(None)

    def __call__(self, frame: Any, event: str, _: Any) -> Any:
        """As `sys.settrace` calls it."""
        if event == "line":
            pause = int(self._at / self._every) if self._every else 0
            self._at += 1
            due = self._every and pause != int(self._at / self._every) and pause % self._rounds == self._round
            if due and self._in_vain < _ENOUGH:
                self._wait()
        return self

    def _wait(self) -> None:
        for _ in range(2):  # the first may have been nearly done
            self.gone_on.clear()
            if not self.gone_on.wait(_PATIENCE):
                self._in_vain += 1  # the other may be waiting for this one
                return
