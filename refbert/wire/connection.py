"""One process that speaks the wire protocol, seen by its caller: requests, answers, what is given up, threads."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import shutil
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from refbert.backend import REQUIRED_BY_VERSION, Host, KeepMasks
from refbert.errors import BackendUnavailable, one_line
from refbert.wire.frames import BadFrame, Closed, Stream

VERSION = 1
# Bytes that two processes share; no more is taken than is written.
MEMORY = 256 << 20


def _places() -> tuple[str, ...]:
    """Where memory can be shared by name: without a disk, or with one that keeps up."""
    return "/dev/shm", tempfile.gettempdir()


def _shared_memory() -> tuple[Any, Any]:
    """Memory for two processes, and the file by whose name the other one finds it; (None, None) where there is none.

    A container's /dev/shm may be missing, or so small that a write beyond its end would kill who writes.
    """
    for place in _places():
        with contextlib.suppress(OSError):
            if shutil.disk_usage(place).free >= 2 * MEMORY:
                file = tempfile.NamedTemporaryFile(dir=place)  # noqa: SIM115  (closed when the other side has it mapped)
                try:
                    os.ftruncate(file.fileno(), MEMORY)
                    return mmap.mmap(file.fileno(), MEMORY), file
                except BaseException:
                    file.close()
                    raise
    return None, None


class _Numbers:
    """Numbers of arrays, as long as these live; then they go to ``gone``, with that sign."""

    def __init__(self, gone: deque[int], sign: int) -> None:
        self._known: dict[int, tuple[weakref.ref[Host], int]] = {}
        self._gone, self._sign, self._next = gone, sign, itertools.count(1)

    def get(self, x: Host) -> int | None:
        """The array's number, if it has one."""
        array, number = self._known.get(id(x), (None, 0))
        return number if array is not None and array() is x else None

    def new(self, x: Host) -> int:
        """The array's number, which it gets if it has none."""
        number = self.get(x)
        if number is None:
            number = next(self._next)
            self.put(x, number)
        return number

    def put(self, x: Host, number: int) -> None:
        """Give it a number."""
        key, known, gone, sign = id(x), self._known, self._gone, self._sign

        def died(_: object) -> None:
            if known.get(key, (None, 0))[1] == number:  # else another array has the address by now
                del known[key]
            gone.append(sign * number)

        known[key] = weakref.ref(x, died), number


class RemoteError(Exception):
    """What the other side raised that the contract does not speak of."""


_ERRORS: dict[str, type[Exception]] = {
    "out of range": IndexError,
    "invalid": ValueError,
    "unsupported": NotImplementedError,
    "unavailable": BackendUnavailable,
}


class Connection:
    """One process that speaks the protocol.

    broken: called as ``broken(kind, why)`` where it does not, to raise what that means; kind: "closed" if it has gone,
    "forked" if a child of it answers, else "message". said: its answer to "hello". extensions: what it offers beyond
    what everybody must. mode: what it has changed in its process's floating-point arithmetic, as far as it says so.
    """

    def __init__(self, stream: Stream, broken: Callable[[str, str], NoReturn]) -> None:
        self._stream, self._broken = stream, broken
        self._ids, self._numbers = itertools.count(1), itertools.count(1)
        self._sending, self._receiving = threading.RLock(), threading.Condition()
        self._answers: dict[int, tuple[dict[str, Any], list[Host]]] = {}
        self._reading = False
        self._own: threading.local | None = None
        self.gone: deque[int] = deque()
        self._kept = _Numbers(self.gone, 1)
        self._in_use: set[int] = set()
        self.mode = ""
        memory, file = _shared_memory()
        place: dict[str, Any] = {} if file is None else {"memory": {"path": file.name, "bytes": MEMORY}}
        try:
            self.said, _ = self.ask("hello", wire=[VERSION], contract=list(REQUIRED_BY_VERSION), **place)
        finally:
            if file is not None:
                file.close()
        if self.said.get("wire") != VERSION:
            found = one_line(str(self.said.get("wire")))[:40]
            broken("message", f"speaks wire protocol {found}, but this refbert speaks {VERSION}")
        extensions = self.said.get("extensions", ())
        self.extensions = frozenset(map(str, extensions if isinstance(extensions, list) else ()))
        if "memory" in self.extensions and memory is not None:
            stream.share(memory, asks=True)
        if "mirror" in self.extensions:
            stream.identify = _Numbers(self.gone, -1).new
        else:
            stream.plain = True

    def take(self, number: int) -> int:
        """Note that a number is an array's or a function's from now on; raises `RemoteError` if it is one's already."""
        if number in self._in_use:
            raise RemoteError(f"its result is {number}, which is the number of an array or pullback that is in use")
        self._in_use.add(number)
        return number

    def keep(self, x: Host, number: int) -> None:
        """Remember a host array that came from the other side's, for `again`."""
        self._kept.put(x, number)

    def again(self, x: Host) -> None:
        """Let a host array of the other side's hold what it holds there by now: a backend may have gone on using it."""
        number = self._kept.get(x)
        if number is not None:
            x[...] = self.ask("again", kept=number)[1][0]

    def ask(
        self, do: str, tensors: list[Host] | None = None, draws: KeepMasks | None = None, **more: Any
    ) -> tuple[dict[str, Any], list[Host]]:
        """Send one request; its answer. ``draws`` answers what is asked meanwhile.

        Raises what the answer says, by its kind: IndexError, ValueError, NotImplementedError, `BackendUnavailable`, or
        `RemoteError` for anything else.
        """
        number = next(self._ids)
        header: dict[str, Any] = {"id": number, "do": do, **more}
        with self._sending if self._own is None else contextlib.nullcontext():
            while True:
                if self._own is not None:
                    header["thread"] = self._thread()
                if self.gone:
                    header["free"] = self._given_up()
                self._send(header, tensors or [])
                answer, arrays = self._answer(number)
                if "keep" not in answer:
                    break
                if draws is None:
                    self._broken("message", "asks for dropout's masks where there are none")
                header, tensors = {"id": number, "do": "keep"}, [self._drawn(draws, answer["keep"])]
        self.mode = str(answer.get("mode", self.mode))[:80]
        if "error" in answer:
            _raise(answer["error"])
        if not isinstance(answer.get("ok"), dict):
            self._broken("message", 'sent an answer with neither "ok" nor "error"')
        return answer["ok"], arrays

    def _drawn(self, draws: KeepMasks, keep: Any) -> Host:
        try:
            among = keep.get("among")
            return draws.keep(
                str(keep["site"]), tuple(map(int, keep["shape"])), float(keep["rate"]),
                among=None if among is None else (int(among[0]), int(among[1])),
            )  # fmt: skip
        except (LookupError, TypeError, ValueError) as error:
            self._broken("message", f"asks for a mask of dropout that there is not ({one_line(str(error))[:80]})")

    def _given_up(self) -> list[int]:
        found = []
        with contextlib.suppress(IndexError):
            while True:
                found.append(self.gone.popleft())
                self._in_use.discard(found[-1])
        return found

    def _send(self, header: Mapping[str, Any], tensors: list[Host]) -> None:
        with self._sending:
            try:
                self._stream.send(header, tensors)
            except OSError:
                self._broken("closed", "does not listen any more")

    def _answer(self, number: int) -> tuple[dict[str, Any], list[Host]]:
        """The answer of that number; one thread reads, for all who wait."""
        while True:
            with self._receiving:
                while self._reading and number not in self._answers:
                    self._receiving.wait()
                if number in self._answers:
                    return self._answers.pop(number)
                self._reading = True
            try:
                header, tensors = self._received()
                if header.get("id") == number:
                    return header, tensors
                if self._own is None or not isinstance(header.get("id"), int):
                    self._broken("message", f"answers {str(header.get('id'))[:20]!r}, where {number} was asked")
                with self._receiving:
                    self._answers[header["id"]] = header, tensors
            finally:
                with self._receiving:
                    self._reading = False
                    self._receiving.notify_all()

    def _received(self) -> tuple[dict[str, Any], list[Host]]:
        try:
            header, tensors = self._stream.receive()
        except Closed:
            self._broken("closed", "has closed the connection")
        except (BadFrame, OSError) as error:
            self._broken("message", f"sent what is no message of the wire protocol: {one_line(str(error))}")
        if header.get("forked") is True:
            self._broken("forked", "forked, and its child came back into the caller")
        return header, tensors

    def _thread(self) -> int:
        assert self._own is not None
        if not hasattr(self._own, "number"):
            self._own.number = next(self._numbers)
        return int(self._own.number)

    @contextlib.contextmanager
    def threaded(self) -> Iterator[RemotePauses]:
        """Inside, each thread here has one there, if the other side offers that, and its calls do not wait for others'
        (see `refbert.wire.pauses.threaded`)."""
        if "threads" not in self.extensions:
            yield RemotePauses(None)
            return
        self.ask("threads", on=True)
        self._stream.sharing = False  # its halves hold one message
        self._own = threading.local()
        self._own.number = 0  # the thread that answers all others'
        try:
            yield RemotePauses(self)
        finally:
            self._own = None
            self.ask("threads", on=False)
            self._stream.sharing = True


class RemotePauses:
    """`refbert.wire.pauses.Pauses` of a call in another process, which knows by itself when a thread has got on."""

    def __init__(self, connection: Connection | None) -> None:
        self._connection = connection

    def begin(self, pauses: int, rounds: int, number: int) -> None:
        """This thread's one there begins a round."""
        if self._connection is not None:
            self._connection.ask("pause", pauses=pauses, rounds=rounds, round=number)

    def got_on(self) -> None:
        """Nothing."""


def _raise(error: Any) -> NoReturn:
    """Raise what an answer speaks of."""
    kind, message = (str(error.get(name, "")) for name in ("kind", "message")) if isinstance(error, dict) else ("", "")
    if kind in _ERRORS:
        raise _ERRORS[kind](one_line(message))
    if kind != "failed":
        raise RemoteError(one_line(f'of the kind "{kind}", which the protocol does not have: {message}'))
    name = str(error.get("type", ""))
    named: type[RemoteError] = type(name, (RemoteError,), {}) if name.isidentifier() else RemoteError
    raise named(one_line(message))


def connection_of(backend: Any) -> Connection | None:
    """The connection to a backend in another process; None for any other."""
    found = getattr(backend, "connection", None)
    return found if isinstance(found, Connection) else None
