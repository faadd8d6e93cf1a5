"""Parameters that one thread updates while others read them: a reader gets them as they were before, or after.

An optimizer puts new arrays into a model's dictionary one by one; an array itself never changes. So a reader takes all
of them at once, and waits where an update is under way; so does another update.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_changed = threading.Condition()
_owners: dict[int, int] = {}  # id of what is being updated -> the thread that does


def snapshot(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """All arrays as they stand between two updates."""
    with _changed:
        _wait_for(id(parameters))
        return dict(parameters)


@contextmanager
def updating(*things: object) -> Iterator[None]:
    """Inside, no other thread updates one of these, nor takes a snapshot of it."""
    keys = {id(thing) for thing in things if _owners.get(id(thing)) != threading.get_ident()}
    with _changed:
        _wait_for(*keys)
        _owners.update(dict.fromkeys(keys, threading.get_ident()))
    try:
        yield
    finally:
        with _changed:
            for key in keys:
                del _owners[key]
            _changed.notify_all()


def _wait_for(*keys: int) -> None:
    _changed.wait_for(lambda: all(_owners.get(key, threading.get_ident()) == threading.get_ident() for key in keys))


def _after_fork() -> None:
    """In the child: who held these is not there."""
    global _changed
    _changed = threading.Condition()
    _owners.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
