"""SIGINT and SIGTERM for the commands that train.

While a run is prepared nothing is lost by stopping at once: the signal raises `Interrupted`. Once updates are made it
is a wish to stop after the one that is under way; a second SIGINT stops at once.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn


class Interrupted(KeyboardInterrupt):
    """A signal came before the first update."""


class Stopping:
    """While it is entered, hears signals; calling it says whether there was one."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._patient = False
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether there was a signal."""
        return self.signal is not None

    @property
    def status(self) -> int:
        """The exit status of a command that a signal stopped."""
        return 128 + (self.signal or signal.SIGINT)

    def be_patient(self) -> None:
        """From now on a signal is a wish, which is asked about after each update."""
        self._patient = True

    def leave(self, line: str | None) -> NoReturn:
        """Say the line on stderr and end the process, without waiting for a thread that is still at work."""
        if line:
            print(f"refbert: {line}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(self.status)

    def __enter__(self) -> Stopping:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        first, self.signal = self.signal is None, number
        if not self._patient and first:
            raise Interrupted
        if not first and number == signal.SIGINT:
            raise KeyboardInterrupt
