"""Backends that are commands: ``exec:COMMAND`` starts it, and speaks the wire protocol with it."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import weakref
from typing import Any, NoReturn

from refbert.errors import BackendError, BackendUnavailable
from refbert.wire.connection import Connection
from refbert.wire.frames import Stream
from refbert.wire.remote import RemoteBackend

PREFIX = "exec:"
VARIABLE = "REFBERT_WIRE"
# Seconds for a command to end when nobody asks it any more.
_GRACE = 2.0

# One process for all instances, so that arrays can go from one to the other (mixed precision).
_running: weakref.WeakValueDictionary[tuple[str, str], Connection] = weakref.WeakValueDictionary()


def words(name: str) -> list[str]:
    """The command of ``exec:COMMAND``, split as a shell does; raises `BackendError` for none."""
    try:
        found = shlex.split(name.removeprefix(PREFIX))
    except ValueError as error:
        raise BackendError(f'backend "{name}": {error}') from None
    if not found:
        raise BackendError(f'backend "{name}": name a command, as in exec:./my-backend')
    return found


def create(name: str, *, dtype: str | None = None, device: str | None = None) -> Any:
    """The backend that the command is; raises `BackendUnavailable` if it cannot be started or does not answer."""
    key = name, os.getcwd()
    connection = _running.get(key)
    if connection is None:
        connection = _running[key] = _started(name)
    return RemoteBackend(connection, dtype=dtype, device=device)


def hosted(name: str) -> str:
    """The name of the same backend in a process of its own, which finds what this one finds."""
    if name.startswith(PREFIX):
        return name
    start = f"import sys; sys.path[:] = {[p for p in sys.path if p]!r}; from refbert.wire.host import main; main()"
    return PREFIX + shlex.join([sys.executable, "-P", "-c", start, name])


def _started(name: str) -> Connection:
    to_child, outgoing = os.pipe()
    incoming, from_child = os.pipe()
    theirs = (to_child, from_child)
    try:
        process = subprocess.Popen(
            words(name), stdin=subprocess.DEVNULL, stdout=2, pass_fds=theirs,
            env={**os.environ, VARIABLE: f"{to_child},{from_child}"},
        )  # fmt: skip
    except OSError as error:
        os.close(outgoing)
        os.close(incoming)
        raise BackendUnavailable(f'backend "{name}" cannot be started: {error.strerror or error}') from None
    finally:
        os.close(to_child)
        os.close(from_child)

    def broken(kind: str, why: str) -> NoReturn:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE if kind == "closed" else 0)
        status = process.returncode
        how = "" if status is None else f"; it ended with {f'signal {-status}' if status < 0 else f'status {status}'}"
        raise BackendUnavailable(f'backend "{name}" {why}{how}')

    try:
        connection = Connection(Stream(incoming, outgoing), broken)
    except BaseException:
        _end(process, incoming, outgoing)
        raise
    weakref.finalize(connection, _end, process, incoming, outgoing)
    return connection


def _end(process: subprocess.Popen[bytes], *ends: int) -> None:
    """Close the connection, by which the command knows that it shall end; kill what does not."""
    for end in ends:
        os.close(end)
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
