"""Messages of the wire protocol (docs/wire-protocol.md): a JSON header, then tensors as raw little-endian bytes.

    offset 0   8 bytes   "refbert1"
           8   uint64    h, the length of the header in bytes
          16   uint64    p, the length of the payload in bytes
          24   h bytes   the header: a JSON object in UTF-8
        24+h   p bytes   the tensors that the header's "tensors" lists, in order, each filled up with zeros to a
                         multiple of 8 bytes

Whoever reads checks the lengths against each other before it takes memory for them.

In a header's "args", "options" and "result" values stand as JSON, with arrays and functions by number (`plain`):

    {"array": 7, "shape": [2]}    an array of the backend's (its shape is told by the backend alone)
    {"pullback": 8}               a function, to be called by "pull"
    {"tensor": 0}                 a host array: the message's first tensor
    {"list": [...]}               a list; plain [...] is a tuple
    {"callback": "keep"}          dropout's masks, to be asked for (`refbert.backend.KeepMasks`)
    {"other": "str"}              what has no place here, by the name of its type
    "inf", "-inf", "nan"          the floats that JSON does not know
    {...}, "text", 1, 2.5, null   themselves
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import mmap
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from refbert.backend import Host

MAGIC = b"refbert1"
_PREFIX = struct.Struct("<8sQQ")
_UNIT = 8
# Bytes of a header: a model's thousand names take some 100 kB. Bytes of a payload: more than any machine's memory.
LONGEST_HEADER, LARGEST_PAYLOAD = 16 << 20, 1 << 42
DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32",
        "float64",
    )
}  # fmt: skip
# What a peer that does not mirror is sent, so that it need not know more.
PLAIN = {"b": "bool", "i": "int64", "u": "int64", "f": "float32"}
_CHUNK = 1 << 16
SHARED = 1 << 16  # bytes of a tensor from which on shared memory is worth while

Wait = Callable[[int, bool], None]


class BadFrame(Exception):
    """What arrives is no message of the protocol; says why."""


class Closed(Exception):
    """The other side has closed its end between two messages."""


def _blocked(fd: int, writing: bool) -> None:
    """Descriptors that block need nobody to wait for them."""


class Stream:
    """Both ends of a connection. ``wait(fd, writing)`` is called where a non-blocking descriptor is not ready.

    identify: a number for every array that its caller keeps. With it, an array travels as it lies in memory, for a
    host that lays it out again; without (None), in C order. plain: dtypes are widened to those of `PLAIN`. places: of a
    host that mirrors, the arrays by number. sharing: whether shared memory may be used, if there is some. unfinished:
    how far a message has come that is being read.
    """

    def __init__(self, incoming: int, outgoing: int, wait: Wait = _blocked) -> None:
        self._incoming, self._outgoing, self._wait = incoming, outgoing, wait
        self._files = [os.fstat(fd).st_ino for fd in (incoming, outgoing)]
        self._spare = b""
        self.unfinished = ""
        self._outbox = self._inbox = memoryview(b"")
        self._memory: mmap.mmap | None = None
        self.identify: Callable[[Host], int] | None = None
        self.plain, self.sharing = False, True
        self.places: dict[Any, tuple[Any, Host, Host]] | None = None

    def share(self, memory: mmap.mmap, *, asks: bool) -> None:
        """From now on large tensors lie in ``memory``: who asks writes its first half, who answers its second."""
        with memoryview(memory) as whole:
            halves = whole[: len(memory) // 2], whole[len(memory) // 2 :]
        self._outbox, self._inbox = halves if asks else halves[::-1]
        self._memory = memory

    def close(self) -> None:
        """Give up the shared memory; the descriptors are the caller's."""
        if self._memory is not None:
            self._outbox.release()
            self._inbox.release()
            self._memory.close()
        self._memory, self._outbox, self._inbox = None, memoryview(b""), memoryview(b"")

    @property
    def whole(self) -> bool:
        """Whether both ends are still what they were: who closes descriptors may have opened others instead."""
        with contextlib.suppress(OSError):
            return self._files == [os.fstat(fd).st_ino for fd in (self._incoming, self._outgoing)]
        return False

    def send(self, header: Mapping[str, Any], tensors: Sequence[Host] = ()) -> None:
        """Write one message, in whose header "tensors" is not listed yet. OSError: nobody reads any more."""
        parts: list[Any] = []
        listed, at = [], 0
        for x in tensors:
            described, data = _laid_out(x, self.identify(x)) if self.identify else _in_order(x, plain=self.plain)
            listed.append(described)
            if self.sharing and len(data) >= SHARED and at + len(data) <= len(self._outbox):
                self._outbox[at : at + len(data)] = data
                described["at"], at = at, at + _padded(len(data))
            else:
                parts += (data, bytes(-len(data) % _UNIT))
        if listed:
            header = {**header, "tensors": listed}
        text = _ENCODER.encode(header).encode()
        parts[:0] = [_PREFIX.pack(MAGIC, len(text), sum(map(len, parts))), text]
        if sum(map(len, parts)) <= _CHUNK:
            parts = [b"".join(parts)]
        for part in parts:
            left = memoryview(part)
            while left:
                try:
                    left = left[os.write(self._outgoing, left[: 1 << 30]) :]
                except BlockingIOError:
                    self._wait(self._outgoing, True)

    def receive(self) -> tuple[dict[str, Any], list[Host]]:
        """Read one message; `Closed` if there is none, `BadFrame` if what comes is not one."""
        magic, h, p = _PREFIX.unpack(self._read(bytearray(_PREFIX.size), "prefix", first=True))
        if magic != MAGIC:
            raise BadFrame(f"it begins with {magic!r}, not with {MAGIC!r}")
        if h > LONGEST_HEADER or p > LARGEST_PAYLOAD:
            raise BadFrame(f"a header of {h:,} bytes and a payload of {p:,} are more than there can be")
        header = _parsed(bytes(self._read(bytearray(h), "header")))
        listed = header.pop("tensors", [])
        if not isinstance(listed, list):
            raise BadFrame('"tensors" is not a list')
        kinds = [_described(one) for one in listed]
        due = sum(_padded(one.nbytes) for one in kinds if one.at is None)
        if due != p:
            raise BadFrame(f"its payload has {p:,} bytes, its tensors have {due:,}")
        tensors = [self._tensor(one) for one in kinds]
        self.unfinished = ""
        return header, tensors

    def _tensor(self, one: _Tensor) -> Host:
        known = None if self.places is None else self.places.get(one.memory)
        if known is not None and known[0] == one.said:
            _, memory, array = known
        else:
            try:
                memory = np.empty(_padded(one.nbytes), np.uint8)
            except (MemoryError, ValueError):
                raise BadFrame(f"there is no memory for a tensor of shape {one.shape}") from None
            array = one.of(memory)
            if self.places is not None and one.memory is not None:
                self.places[one.memory] = one.said, memory, array
        if one.at is None:
            self._read(memory.data, "payload")
        elif not 0 <= one.at <= len(self._inbox) - one.nbytes:
            raise BadFrame("a tensor lies outside of the shared memory")
        else:
            memory.data[: one.nbytes] = self._inbox[one.at : one.at + one.nbytes]
            memory[one.nbytes :] = 0
        if one.dtype.kind == "b" and np.any(memory > 1):
            raise BadFrame("a tensor of bool holds other bytes than 0 and 1")
        return array

    def _read(self, into: bytearray | memoryview, what: str, *, first: bool = False) -> bytearray | memoryview:
        view, done = memoryview(into), 0
        while done < len(view):
            if not self._spare:
                begun = done or not first
                self.unfinished = f"after {done:,} of {len(view):,} bytes of its {what}" if begun else ""
                if not begun:
                    self._wait(self._incoming, False)  # the answer takes a while
                try:
                    if len(view) - done >= _CHUNK:
                        got = os.readv(self._incoming, [view[done:]])
                        done += got
                    else:
                        self._spare = os.read(self._incoming, _CHUNK)
                        got = len(self._spare)
                except BlockingIOError:
                    self._wait(self._incoming, False)
                    continue
                if not got and first and not done:
                    raise Closed
                if not got:
                    raise BadFrame(f"it ends {self.unfinished}")
            take = self._spare[: len(view) - done]
            view[done : done + len(take)] = take
            self._spare = self._spare[len(take) :]
            done += len(take)
        return into


class _Tensor:
    """A tensor as a header describes it. Beside "dtype" and "shape" there may be, where the other side has said
    "mirror": "strides" and "offset" in bytes, "bytes" from the first entry in memory to the last, "order" (">" for
    big-endian), "readonly", and "memory", a number that is the same for the same array.
    "at": where it lies in the shared memory, if not in the payload."""

    def __init__(self, one: Any) -> None:
        if not isinstance(one, dict):
            raise BadFrame("a tensor is not described by an object")
        name, shape = one.get("dtype"), one.get("shape")
        if not isinstance(name, str) or name not in DTYPES:
            raise BadFrame(f"a tensor has the dtype {str(name)[:40]!r}; there are {', '.join(DTYPES)}")
        if (
            not isinstance(shape, list)
            or len(shape) > 32
            or not all(type(n) is int and 0 <= n < 1 << 40 for n in shape)
        ):
            raise BadFrame(f"a tensor has the shape {str(shape)[:40]}")
        self.dtype, self.shape = DTYPES[name], tuple(shape)
        if "order" in one:
            self.dtype = self.dtype.newbyteorder(one["order"])
        self.nbytes: int = one.get("bytes", self.dtype.itemsize * math.prod(shape))
        if type(self.nbytes) is not int or self.nbytes < 0:
            raise BadFrame("a tensor's bytes are no count")
        self._strides, self._offset = one.get("strides"), one.get("offset", 0)
        self._readonly, self.memory, self.said = one.get("readonly", False), one.get("memory"), dict(one)
        self.said.pop("at", None)
        self.at = one.get("at")
        if self.at is not None and type(self.at) is not int:
            raise BadFrame("a tensor's place in the shared memory is no number")

    def of(self, memory: Host) -> Host:
        """The array in that memory."""
        try:
            array: Host = np.ndarray(self.shape, self.dtype, memory.data, self._offset, self._strides)
        except (TypeError, ValueError) as error:
            raise BadFrame(f"a tensor lies outside of its memory: {error}") from None
        array.flags.writeable = not self._readonly
        return array


def _described(one: Any) -> _Tensor:
    try:
        return _Tensor(one)
    except (TypeError, ValueError) as error:
        raise BadFrame(f"a tensor is described wrongly: {error}") from None


@cache
def _kind(dtype: np.dtype[Any], plain: bool) -> tuple[str, np.dtype[Any]]:
    """The name of what a dtype travels as, and that dtype."""
    kind = np.dtype(PLAIN[dtype.kind]) if plain and dtype.name != "float64" else dtype
    return kind.name, kind.newbyteorder("<")


def _bytes(x: Host) -> Any:
    """The entries in C order; small ones copied, which is the quicker way."""
    return x.tobytes() if x.nbytes < SHARED else np.ascontiguousarray(x).reshape(-1).view(np.uint8).data


def _in_order(x: Host, *, plain: bool) -> tuple[dict[str, Any], Any]:
    name, kind = _kind(x.dtype, plain)
    return {"dtype": name, "shape": x.shape}, _bytes(x.astype(kind, copy=False))


def _laid_out(x: Host, number: int) -> tuple[dict[str, Any], Any]:
    name, _ = _kind(x.dtype, False)
    described: dict[str, Any] = {"dtype": name, "shape": x.shape, "memory": number}
    if not x.flags.writeable:
        described["readonly"] = True
    if x.dtype.byteorder == ">":
        described["order"] = ">"
    if x.flags.c_contiguous or not x.size:
        return described, _bytes(x)
    low, high = np.lib.array_utils.byte_bounds(x)
    span = memoryview((ctypes.c_uint8 * (high - low)).from_address(low)).cast("B")
    described |= {"strides": x.strides, "offset": x.__array_interface__["data"][0] - low, "bytes": len(span)}
    return described, span


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        header = _DECODER.decode(text.decode())
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"its header is not JSON ({' '.join(str(error).split())[:80]})") from None
    if not isinstance(header, dict):
        raise BadFrame("its header is not a JSON object")
    return header


def _refused(name: str) -> float:
    raise ValueError(f"{name}, which JSON does not have")


# Made once: `json.dumps` and `json.loads` with options make one for every message.
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_DECODER = json.JSONDecoder(parse_constant=_refused)


def _padded(count: int) -> int:
    return -(-count // _UNIT) * _UNIT


FLOATS = {"inf": float("inf"), "-inf": float("-inf"), "nan": float("nan")}
# What an object has only if it stands for something else.
_WORDS = frozenset(("array", "pullback", "tensor", "list", "callback", "other"))


def plain(value: Any, tensors: list[Host] | None, known: Callable[[Any], Any]) -> Any:
    """The value as JSON. Host arrays go to the end of ``tensors``; None: arrays are the backend's. ``known`` gives what
    stands for anything else."""
    if isinstance(value, np.ndarray | np.generic):
        if tensors is None:
            return known(value)
        if isinstance(value, np.ndarray):
            tensors.append(value)
            return {"tensor": len(tensors) - 1}
        value = value.item()
    if isinstance(value, float) and value - value != 0:
        return "nan" if value != value else "inf" if value > 0 else "-inf"
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(one, tensors, known) for name, one in value.items()}
    if isinstance(value, tuple):
        return [plain(one, tensors, known) for one in value]
    if isinstance(value, list):
        return {"list": [plain(one, tensors, known) for one in value]}
    return known(value)


def valued(plain: Any, known: Callable[[str, dict[str, Any]], Any]) -> Any:
    """The value behind JSON. ``known(word, object)`` gives what an object with one of the words above stands for."""
    if isinstance(plain, str):
        return FLOATS.get(plain, plain)
    if isinstance(plain, list):
        return tuple(valued(one, known) for one in plain)
    if not isinstance(plain, dict):
        return plain
    word = next((name for name in plain if name in _WORDS), None)
    if word == "list":
        return [valued(one, known) for one in plain["list"]]
    if word is not None:
        return known(word, plain)
    return {name: valued(one, known) for name, one in plain.items()}
