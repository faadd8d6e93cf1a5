"""Handle SIGINT and SIGTERM: they end a command at once, nothing half-written; training stops after an update.

While a run is prepared nothing is lost by stopping at once: the signal raises `Interrupted`. Once updates are made it
is a wish to stop after the one that is under way; a second SIGINT stops at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

_BOTH = (signal.SIGINT, signal.SIGTERM)


class Signalled(BaseException):
    """SIGINT or SIGTERM. Not KeyboardInterrupt, which libraries catch, and which says nothing of the other."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted" if number == signal.SIGINT else "terminated")
        self.status = 128 + number


class Interrupted(Signalled):
    """A signal came before the first update."""


@contextlib.contextmanager
def _handled_by(handler: Any) -> Iterator[None]:
    """Both signals, unless whoever started this process has them ignored (nohup, a job in the background)."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        heard = [number for number in _BOTH if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def ending() -> contextlib.AbstractContextManager[None]:
    """Let both signals raise `Signalled` inside the block, so that everything open is cleared up."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Signalled(number)

    return _handled_by(end)


class Stopping:
    """Note signals inside the block; calling it says whether there was one."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._patient = False
        self._handling = contextlib.ExitStack()

    def __call__(self) -> bool:
        """Whether there was a signal."""
        return self.signal is not None

    @property
    def status(self) -> int:
        """The exit status of a command that a signal stopped."""
        return 128 + (self.signal or signal.SIGINT)

    def be_patient(self) -> None:
        """From now on only note a signal; the loop asks after each update."""
        self._patient = True

    def leave(self, line: str | None) -> NoReturn:
        """Say the line on stderr and end the process, without waiting for a thread that is still at work."""
        if line:
            print(f"refbert: {line}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self.status)

    def __enter__(self) -> Stopping:
        self._handling.enter_context(_handled_by(self._note))
        return self

    def __exit__(self, *_: object) -> None:
        self._handling.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        first, self.signal = self.signal is None, number
        if not self._patient and first:
            raise Interrupted(number)
        if not first and number == signal.SIGINT:
            raise Signalled(number)
