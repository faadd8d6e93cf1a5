"""The other side of the wire protocol for a backend that is a Python class: it makes the class, and calls it.

    python -m refbert.wire.host NAME

Messages come and go on the two descriptors that REFBERT_WIRE names; what the backend prints goes to stderr.
"""

from __future__ import annotations

import contextlib
import inspect
import mmap
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from refbert.backend import OPTIONAL, OPTIONAL_ATTRIBUTES, REQUIRED, Host, registry
from refbert.errors import RefbertError, Unsupported, one_line
from refbert.wire.connection import VERSION
from refbert.wire.frames import DTYPES, BadFrame, Closed, Stream, plain, valued
from refbert.wire.pauses import HURRY, Lines
from refbert.wire.remote import AT_HOME

# lists: put and get take several arrays. mirror: host arrays are laid out as the caller's are, an array of the caller's
# is one object here, too, and what is written into it is told. threads: a thread here for each of the caller's.
EXTENSIONS = ("lists", "mirror", "threads")
LOST = 117  # the exit status of a host that can no longer answer, as where its backend has closed its descriptors
_KINDS = ((IndexError, "out of range"), (ValueError, "invalid"), (NotImplementedError, "unsupported"))

Message = tuple[dict[str, Any], list[Host]]
Written = Sequence[tuple[Host, bytes]]


class Pythons:
    """The instances of a class, their arrays and their functions, by number."""

    def __init__(self, make: Callable[..., Any], stream: Stream) -> None:
        self._make, self._stream = make, stream
        self._instances: dict[int, Any] = {}
        self._things: dict[int, Any] = {}
        self._places = stream.places = {}
        self._count = 0
        self._owner, self._mode = os.getpid(), ""
        self._sending = threading.Lock()
        self._here = threading.local()
        self._ids: dict[int, Any] = {}
        self._queues: dict[int, queue.SimpleQueue[Message | None]] = {}
        self._lines: dict[int, Lines] = {}

    def serve(self, thread: int = 0) -> None:
        """Answer until nobody asks any more."""
        self._here.thread = thread
        while (message := self._next(thread)) is not None:
            self._answer(*message)
            del message  # or its arrays would outlive what is given up before the next one comes

    def _next(self, thread: int) -> Message | None:
        waiting = self._queues.get(thread)
        if waiting is not None:
            return waiting.get()
        return None if thread else self._received()  # threads have gone: this one is late to notice

    def _received(self) -> Message | None:
        try:
            header, tensors = self._stream.receive()
        except Closed:
            if self._stream.whole:
                return None
            os._exit(LOST)
        except (BadFrame, OSError):
            os._exit(LOST)
        for number in header.get("free", ()):
            (self._places if number < 0 else self._things).pop(abs(number), None)
        return header, tensors

    def _answer(self, header: dict[str, Any], tensors: list[Host]) -> None:
        answer: dict[str, Any] = {"id": header.get("id")}
        out: list[Host] = []
        self._ids[self._here.thread] = header.get("id")
        try:
            do = getattr(self, f"_{header.get('do')}_", None)
            if do is None:
                raise ValueError(f'there is no request "{header.get("do")}"')
            answer["ok"] = do(header, tensors, out)
        except BaseException as error:  # noqa: BLE001  (a backend may raise anything)
            answer["error"], out = described(error), []
        if os.getpid() != self._owner:  # the backend has forked, and this is its child, come back
            self._send({"forked": True})
            os._exit(0)
        if not self._mode and (mode := changed()):
            self._mode = answer["mode"] = mode
        if header.get("do") in ("call", "pull"):  # not an array that comes or goes: the backend has computed something
            for thread, lines in list(self._lines.items()):
                if thread != self._here.thread:
                    lines.gone_on.set()
        self._send(answer, out)

    def _send(self, answer: Mapping[str, Any], out: Sequence[Host] = ()) -> None:
        try:
            with self._sending:
                if self._stream.whole:
                    self._stream.send(answer, out)
                    return
        except OSError:
            pass
        os._exit(LOST)

    def _hello_(self, header: Mapping[str, Any], tensors: list[Host], out: list[Host]) -> dict[str, Any]:
        if VERSION not in header["wire"]:
            raise NotImplementedError(f"this host speaks wire protocol {VERSION}, not {header['wire']}")
        memory = header.get("memory")
        if memory is None:
            return {"wire": VERSION, "extensions": EXTENSIONS}
        with open(memory["path"], "r+b") as file:
            self._stream.share(mmap.mmap(file.fileno(), memory["bytes"]), asks=False)
        return {"wire": VERSION, "extensions": [*EXTENSIONS, "memory"]}

    def _open_(self, header: Mapping[str, Any], tensors: list[Host], out: list[Host]) -> dict[str, Any]:
        backend = self._make(dtype=header.get("dtype"), device=header.get("device"))
        self._count += 1
        self._instances[self._count] = backend
        names = [name for name in (*REQUIRED, *OPTIONAL) if callable(getattr(backend, name, None))]
        said = {name: getattr(backend, name, None) for name in ("name", "library", "dtype", "device", "dtypes")}
        said |= {name: getattr(backend, name) for name in OPTIONAL_ATTRIBUTES if hasattr(backend, name)}
        return {
            "instance": self._count,
            **plain(said, None, _said),
            "offers": [name for name in names if name not in AT_HOME],
            "signatures": {name: _parameters(getattr(backend, name)) for name in names},
        }

    def _put_(self, header: Mapping[str, Any], tensors: list[Host], out: list[Host]) -> dict[str, Any]:
        given, value, asarray = _kept(tensors), header["value"], self._instances[header["instance"]].asarray
        several = isinstance(value, list)
        results = tuple(asarray(tensors[one["tensor"]]) for one in (value if several else [value]))
        return {"result": self._numbered(results if several else results[0], ()), **_wrote(given, out)}

    def _get_(self, header: Mapping[str, Any], tensors: list[Host], out: list[Host]) -> dict[str, Any]:
        value, to_numpy = header["value"], self._instances[header["instance"]].to_numpy
        if isinstance(value, list):
            return {"result": [_host(to_numpy(self._things[one["array"]]), out) for one in value]}
        found = to_numpy(self._things[value["array"]])
        result = _host(found, out)
        return {"result": result, "kept": self._number(found)} if out else {"result": result}

    def _again_(self, header: Mapping[str, Any], tensors: list[Host], out: list[Host]) -> dict[str, Any]:
        """What a host array that the backend gave holds by now."""
        out.append(self._things[header["kept"]])
        return {"result": {"tensor": 0}}

    def _call_(self, header: Mapping[str, Any], tensors: list[Host], out: list[Host]) -> dict[str, Any]:
        given, draws = _kept(tensors), Draws(self, self._here.thread)
        function = getattr(self._instances[header["instance"]], header["op"])
        arguments, options = (self._values(header.get(name), tensors, draws) for name in ("args", "options"))
        if header["op"] == "objective":
            arguments = _objects(arguments)
        result = self._run(function, arguments, options)
        return {"result": self._numbered(result, given, draws), **_wrote(given, out)}

    def _pull_(self, header: Mapping[str, Any], tensors: list[Host], out: list[Host]) -> dict[str, Any]:
        function, given, draws = self._things[header["pullback"]]
        if draws is not None:
            draws.thread = self._here.thread
        result = self._run(function, self._values(header["args"], tensors), {})
        return {"result": self._numbered(result, given, draws), **_wrote(given, out)}

    def _run(self, function: Callable[..., Any], arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        lines = self._lines.get(self._here.thread)
        with contextlib.nullcontext() if lines is None else lines.watching():
            return function(*arguments, **options)

    def _values(self, said: Any, tensors: list[Host], draws: Draws | None = None) -> Any:
        def known(word: str, value: dict[str, Any]) -> Any:
            if word == "tensor":
                return tensors[value["tensor"]]
            if word == "callback":
                return draws
            return self._things[value["array"]]

        return valued(said, known)

    def asked(self, thread: int, keep: dict[str, Any]) -> Host:
        """The caller's answer to a question in the middle of what it asked in that thread."""
        self._send({"id": self._ids[thread], "keep": keep})
        message = self._next(thread)
        if message is None:
            os._exit(LOST)
        return message[1][0]

    def _numbered(self, result: Any, given: Written, draws: Draws | None = None) -> Any:
        def known(value: Any) -> Any:
            shape = getattr(value, "shape", None)
            if isinstance(shape, Iterable):
                with contextlib.suppress(TypeError, ValueError):
                    return {"array": self._number(value), "shape": [int(n) for n in shape]}
            if callable(value):
                return {"pullback": self._number((value, given, draws))}
            return {"other": type(value).__name__}

        return plain(result, None, known)

    def _number(self, thing: Any) -> int:
        self._count += 1
        self._things[self._count] = thing
        return self._count

    def _threads_(self, header: Mapping[str, Any], tensors: list[Host], out: list[Host]) -> dict[str, Any]:
        """From now on, or no more, a thread for each number in "thread"."""
        if header["on"]:
            self._before = sys.getswitchinterval()
            sys.setswitchinterval(HURRY)
            self._stream.sharing = False
            self._queues[0] = queue.SimpleQueue()
            threading.Thread(target=self._share_out, daemon=True).start()
        else:
            sys.setswitchinterval(self._before)
            self._stream.sharing = True
            for waiting in self._queues.values():
                waiting.put(None)
            self._queues, self._lines = {}, {}
        return {}

    def _share_out(self) -> None:
        while True:
            message = self._received()
            if message is None:
                os._exit(0)
            number = message[0].get("thread", 0)
            if number not in self._queues:
                self._queues[number] = queue.SimpleQueue()
                threading.Thread(target=self.serve, args=(number,), daemon=True).start()
            self._queues[number].put(message)
            if message[0].get("do") == "threads":
                return

    def _pause_(self, header: Mapping[str, Any], tensors: list[Host], out: list[Host]) -> dict[str, Any]:
        """This thread's next calls are watched; from the second round on, they pause."""
        known = self._lines.get(self._here.thread)
        if known is None:
            self._lines[self._here.thread] = Lines(header["pauses"], header["rounds"])
        else:
            known.begin(header["round"])
        return {}


class Draws:
    """Dropout's masks, asked for on the caller's side. thread: the one that the backend works for."""

    def __init__(self, pythons: Pythons, thread: int) -> None:
        self._pythons, self.thread, self._turn = pythons, thread, threading.Lock()

    def keep(self, site: str, shape: Sequence[int], rate: float, *, among: tuple[int, int] | None = None) -> Host:
        """Which entries stay."""
        rows = None if among is None else [int(n) for n in among]
        asked = {"site": str(site), "shape": [int(n) for n in shape], "rate": float(rate), "among": rows}
        with self._turn:
            return self._pythons.asked(self.thread, asked)


def _objects(arguments: Sequence[Any]) -> list[Any]:
    """The arguments of `objective` as a plugin gets them from refbert."""
    from refbert.spec.choices import Choices
    from refbert.text.batching import Batch

    params, batch, labels, heads, choices = arguments
    return [params, Batch(**batch), labels, heads, Choices(**choices)]


def _host(found: Any, out: list[Host]) -> dict[str, Any]:
    """What `to_numpy` gave, at the end of ``out`` if it can travel."""
    if not isinstance(found, np.ndarray):
        return {"other": type(found).__name__}
    if found.dtype.name not in DTYPES:
        return {"other": f"ndarray of {found.dtype}"}
    out.append(found)
    return {"tensor": len(out) - 1}


def _kept(tensors: Iterable[Host]) -> Written:
    return [(x, x.tobytes()) for x in tensors]


def _wrote(given: Written, out: list[Host]) -> dict[str, Any]:
    """Which host arrays the backend has written into, whose contents go to the end of ``out``."""
    found = [number for number, (x, before) in enumerate(given) if x.tobytes() != before]
    out += [given[number][0] for number in found]
    return {"wrote": found} if found else {}


def _said(value: Any) -> Any:
    """An attribute that is no text, number, tuple or mapping."""
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else repr(value)[:200]


def _parameters(function: Any) -> Any:
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None  # compiled, with no signature to look at
    return [[one.name, one.kind.name, one.default is not one.empty] for one in found]


def described(error: BaseException) -> dict[str, str]:
    """An exception as the protocol speaks of it, however its author has made it."""
    if isinstance(error, RefbertError):
        return {"kind": "unsupported" if isinstance(error, Unsupported) else "unavailable", "message": str(error)}
    try:
        message = " ".join(str(error).split())[:300]
    except Exception:  # noqa: BLE001
        message = ""
    kind = next((kind for known, kind in _KINDS if isinstance(error, known)), "failed")
    return {"kind": kind, "type": type(error).__name__, "message": one_line(message)}


def changed() -> str:
    """What a library has changed in the thread's floating-point arithmetic: "flush-to-zero", "another direction of
    rounding", or "". gcc links -ffast-math with code that does so for all who load it (C11 §7.6)."""
    if sys.float_info.min * _HALF == 0.0:
        return "flush-to-zero"
    # Ties to even; then a little more than a tie, and −1: each other direction gets one of the three wrong.
    ulp = sys.float_info.epsilon
    found = (_ONE + ulp * _HALF, _ONE + ulp * 0.75, -_ONE - ulp * 0.75)
    return "" if found == (1.0, 1.0 + ulp, -1.0 - ulp) else "another direction of rounding"


_HALF, _ONE = 0.5, 1.0


def run(name: str, incoming: int, outgoing: int) -> None:
    """Host the backend of that name on two descriptors; stdin is empty and stdout is stderr from now on."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    make = partial(registry.create, name)
    Pythons(make, Stream(incoming, outgoing)).serve()


def main() -> None:
    """The command line."""
    ends = [os.dup(int(fd)) for fd in os.environ.get("REFBERT_WIRE", "0,1").split(",")]
    run(sys.argv[1], *ends)


if __name__ == "__main__":
    main()
