"""Run a pickle of torch.save's on plain values alone: nothing in it can import, call or grow.

Python's own unpickler calls what a pickle names, makes room for a list of memos as long as the pickle says, and hashes
keys that are nested without end. Here `pickletools` of the standard library takes the bytes apart, and the machine
below has the opcodes that PyTorch writes, of any protocol, over dictionaries, lists, tuples, texts and numbers. The
names that a pickle may use, and what they stand for, are the caller's.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from mmap import mmap
from typing import IO, Any, cast

# BERT-large's state dict takes 12,000 steps, its training checkpoint with the moments five times that.
STEPS = 1 << 19
_ARGUMENTS = 16

Name = tuple[str, str]


class Forbidden(Exception):
    """The pickle asks for something that it has no business with; the message is its name."""


class Damaged(Exception):
    """The pickle is not one that PyTorch writes."""


def unpickle(file: mmap | io.BytesIO, names: Mapping[Name, object], reference: Callable[[object], object]) -> object:
    """The pickle that starts at the file's position, which is then behind it. The file lies in memory, so that asking
    for more than there is costs nothing.

    ``names``: what may be named -> what stands for it; a function among them is called where the pickle says so, `dict`
    with the pairs that it starts with. ``reference`` gives the object that a persistent id means. Raises `Forbidden`
    for another name, `Damaged` for a pickle that is not of the kind described above, ValueError for one cut short.
    """
    machine = _Machine(names, reference)
    for opcode, argument, _ in pickletools.genops(cast("IO[bytes]", file)):
        machine.spend(1)
        if opcode.name in _PUSHED:
            machine.stack.append(argument)
        else:
            action = _ACTIONS.get(opcode.name)
            if action is None:
                raise Damaged(f"its pickle has the opcode {opcode.name}")
            action(machine, argument)
    return machine.stack.pop()


class _Machine:
    def __init__(self, names: Mapping[Name, object], reference: Callable[[object], object]) -> None:
        self.names, self.reference = names, reference
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.left = STEPS

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise Damaged(f"its pickle takes more than {STEPS:,} steps")

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise Damaged("its pickle takes what is not there")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    # What the opcodes do; an argument is the opcode's.

    def memoize(self, place: int | None) -> None:
        self.memo[len(self.memo) if place is None else place] = self.stack[-1]

    def dictionary(self, items: list[Any]) -> None:
        self.stack.append({})
        self.put(items)

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise Damaged("its pickle appends to what is no list")
        self.stack[-1].extend(items)

    def put(self, items: list[Any]) -> None:
        """Keys and values, by turns, into the dictionary on top."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise Damaged("its pickle sets keys of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not _is_key(key):
                raise Damaged("a key is neither a text nor a number")
            target[key] = value

    def look_up(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str) or (module, name) not in self.names:
            raise Forbidden(f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "no name")
        self.stack.append(self.names[module, name])

    def call(self, _: Any) -> None:
        function, arguments = self.last(2)
        if not isinstance(arguments, tuple) or len(arguments) > _ARGUMENTS or not callable(function):
            raise Damaged("its pickle calls what is no function")
        if function is not dict:
            self.stack.append(function(*arguments))
            return
        pairs = arguments[0] if arguments else []
        if not isinstance(pairs, list | tuple) or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
            raise Damaged("its pickle makes a dictionary of what are no pairs")
        self.spend(len(pairs))
        self.dictionary([one for pair in pairs for one in pair])

    def change(self, _: Any) -> None:
        """BUILD: PyTorch notes the versions of modules on a state dict, which nobody needs here."""
        target, _state = self.last(2)
        if not isinstance(target, dict):
            raise Damaged("its pickle changes what it may only name")
        self.stack.append(target)

    def refer(self, identity: object) -> None:
        self.stack.append(self.reference(self.stack.pop() if identity is None else identity))


def _is_key(value: object) -> bool:
    """Whether hashing it takes no longer than reading it did: tuples can be nested, and whole numbers be long."""
    return isinstance(value, str | float | bytes | None) or (isinstance(value, int) and value.bit_length() <= 64)


# The argument itself is the value.
_PUSHED = frozenset(
    {
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
        "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
        "STRING", "SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
    }
)  # fmt: skip


# What the others do to the machine, by their argument.
_ACTIONS: Mapping[str, Callable[[_Machine, Any], object]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda m, _: None),
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "TUPLE1": lambda m, _: m.stack.append(tuple(m.last(1))),
    "TUPLE2": lambda m, _: m.stack.append(tuple(m.last(2))),
    "TUPLE3": lambda m, _: m.stack.append(tuple(m.last(3))),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.since_mark())),
    "LIST": lambda m, _: m.stack.append(m.since_mark()),
    "DICT": lambda m, _: m.dictionary(m.since_mark()),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.last(1),
    "POP_MARK": lambda m, _: m.since_mark(),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.memoize),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, place: m.stack.append(m.memo[place])),
    "APPEND": lambda m, _: m.extend(m.last(1)),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "SETITEM": lambda m, _: m.put(m.last(2)),
    "SETITEMS": lambda m, _: m.put(m.since_mark()),
    "GLOBAL": lambda m, name: m.look_up(*name.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.look_up(*m.last(2)),
    "REDUCE": _Machine.call,
    "BUILD": _Machine.change,
    "PERSID": _Machine.refer,
    "BINPERSID": _Machine.refer,
}
