"""Interrupt long work in compiled code, which no signal reaches: a thread does it, and the main one gets the signal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def interruptible(compute: Callable[[], T]) -> T:
    """Return or raise what ``compute`` does. It must change nothing outside memory, since a signal abandons it."""
    if threading.current_thread() is not threading.main_thread():
        return compute()
    came: Future[T] = Future()

    def work() -> None:
        try:
            came.set_result(compute())
        except BaseException as error:  # noqa: BLE001, raised again where it belongs
            came.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return came.result()
