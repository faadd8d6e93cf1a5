"""SIGINT and SIGTERM as a wish to stop after the update that is under way; a second SIGINT stops at once."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class Stopping:
    """While it is entered, notes the signal; calling it says whether there was one."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether there was a signal."""
        return self.signal is not None

    def __enter__(self) -> Stopping:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
