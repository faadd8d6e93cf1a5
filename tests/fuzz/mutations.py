"""Hypothesis strategies for what may stand in a hostile file: bytes changed, JSON changed, pickles of any opcodes."""

from __future__ import annotations

import copy
import json
import pickletools
import struct
from typing import Any

from hypothesis import strategies as st

INTERESTING = (0, 1, 2, 7, 127, 255, 2**15, 2**16 - 1, 10**8, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)


@st.composite
def mutated(draw: st.DrawFn, data: bytes, most: int = 6) -> bytes:
    """The bytes with some changed, put in, left out, repeated or swapped, or the end cut off."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, len(out)))
        kind = draw(st.sampled_from(["set", "number", "insert", "delete", "repeat", "cut", "flip"]))
        if kind == "set":
            out[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "flip" and at < len(out):
            out[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "number":
            size, order = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from(["little", "big"]))
            value = draw(st.sampled_from(INTERESTING)) % (1 << 8 * size)
            out[at : at + size] = value.to_bytes(size, order)  # type: ignore[arg-type]
        elif kind == "insert":
            out[at:at] = draw(st.binary(max_size=20))
        elif kind == "delete":
            del out[at : at + draw(st.integers(1, 40))]
        elif kind == "repeat":
            out[at:at] = out[at : at + draw(st.integers(1, 60))] * draw(st.integers(1, 50))
        elif kind == "cut":
            del out[at:]
    return bytes(out)


class Raw(str):
    """JSON text that stands for itself, valid or not."""

    __slots__ = ()


_NASTY: list[Any] = [
    None, True, False, 0, 1, -1, 3, 10**4, 10**8, 2**31, 2**63, 10**30, 0.5, -0.0, 1e-320, 1e308, "", "a", "7", "768",
    "true", "x" * 3000, "\x1b[31m\n\u202e", "日本語", [], {}, [[]], [None], {"a": None}, [0] * 70, {"content": "[X]"},
    Raw("NaN"), Raw("-Infinity"), Raw("1e400"), Raw("7" * 5000), Raw("1" + "0" * 400), Raw('"\\ud800"'),
    Raw("[" * 3000 + "]" * 3000), Raw('{"a":' * 3000 + "1" + "}" * 3000), Raw("["), Raw("'a'"), Raw('{"a": 1, "a": 2}'),
    Raw("\ufeff"), Raw("-"), Raw("01"), Raw("nul"),
]  # fmt: skip
nasty = st.sampled_from(_NASTY) | st.integers() | st.text(max_size=8) | st.floats()


def dump(value: Any) -> bytes:
    """The JSON of a value, `Raw` parts as they are; what no encoding takes is replaced."""
    if isinstance(value, Raw):
        text = str(value)
    elif isinstance(value, dict):
        return b"{" + b", ".join(dump(str(key)) + b": " + dump(one) for key, one in value.items()) + b"}"
    elif isinstance(value, list | tuple):
        return b"[" + b", ".join(map(dump, value)) + b"]"
    else:
        text = json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        found += _places(one, (*path, key))
    return found


@st.composite
def mutated_json(draw: st.DrawFn, value: Any, most: int = 4) -> bytes:
    """The JSON of a value with some of its parts replaced, left out, moved or added; seldom its bytes changed too."""
    out = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, most))):
        path = draw(st.sampled_from(_places(out)))
        kind = draw(st.sampled_from(["replace", "replace", "delete", "add", "copy"]))
        if not path:
            if kind == "replace" and draw(st.integers(0, 9)) == 0:
                return dump(draw(nasty))
            continue
        holder = out
        for step in path[:-1]:
            holder = holder[step]
        if kind == "replace":
            holder[path[-1]] = copy.deepcopy(draw(nasty))  # later steps change it
        elif kind == "delete":
            del holder[path[-1]]
        elif kind == "add" and isinstance(holder, dict):
            holder[draw(st.text(max_size=5))] = copy.deepcopy(draw(nasty))
        elif kind == "copy":
            other: Any = out
            for step in draw(st.sampled_from(_places(out))):
                other = other[step]
            holder[path[-1]] = copy.deepcopy(other)
    data = dump(out)
    return draw(mutated(data, 2)) if draw(st.integers(0, 9)) == 0 else data


# Pickles: any opcodes, with arguments that are at least of the right form.

_TEXTS = ["storage", "x", "bert.pooler.dense.weight", "0", "cpu", "state_dict", "y" * 400]
_GLOBALS = [
    "torch FloatStorage", "torch BFloat16Storage", "torch LongStorage", "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter", "collections OrderedDict", "os system", "builtins eval", "builtins getattr",
    "torch nothing",
]  # fmt: skip


def _argument(opcode: pickletools.OpcodeInfo) -> st.SearchStrategy[bytes]:
    reader = opcode.arg
    if reader is None:
        return st.just(b"")
    if opcode.name in ("GLOBAL", "INST"):
        return st.sampled_from(_GLOBALS).map(lambda name: name.replace(" ", "\n").encode() + b"\n")
    whole = st.sampled_from(INTERESTING) | st.integers(0, 20)
    if reader.n >= 0:
        return whole.map(lambda n: (n % (1 << 8 * reader.n)).to_bytes(reader.n, "little"))
    if reader.n == pickletools.UP_TO_NEWLINE:
        return (whole.map(str) | st.sampled_from([*_TEXTS, "'a'", "1.5", "7" * 5000, "7L"])).map(
            lambda text: text.encode() + b"\n"
        )
    size = {
        pickletools.TAKEN_FROM_ARGUMENT1: "<B", pickletools.TAKEN_FROM_ARGUMENT4: "<i",
        pickletools.TAKEN_FROM_ARGUMENT4U: "<I", pickletools.TAKEN_FROM_ARGUMENT8U: "<Q",
    }[reader.n]  # fmt: skip
    fits = st.sampled_from(_TEXTS).map(str.encode).map(lambda data: data[:255])
    lies = whole.map(lambda n: struct.pack(size, n % (1 << 8 * struct.calcsize(size) - 1)))
    return fits.map(lambda data: struct.pack(size, len(data)) + data) | lies


_USUAL = ("GLOBAL", "REDUCE", "BINPERSID", "BINUNICODE", "TUPLE", "TUPLE1", "TUPLE2", "MARK", "BINPUT", "BINGET",
          "EMPTY_DICT", "SETITEM", "SETITEMS", "BUILD", "BININT1", "APPEND", "EMPTY_LIST")  # fmt: skip
_STEPS = {
    opcode.name: _argument(opcode).map(lambda data, code=opcode.code: code.encode("latin-1") + data)  # type: ignore[misc]
    for opcode in pickletools.opcodes
}
_step = st.sampled_from([_STEPS[name] for name in _USUAL] + list(_STEPS.values())).flatmap(lambda one: one)


@st.composite
def pickles(draw: st.DrawFn, valid: bytes) -> bytes:
    """A pickle of random opcodes, or a valid one with some of its opcodes replaced, repeated or added."""
    if draw(st.booleans()):
        return b"\x80\x02" + b"".join(draw(st.lists(_step, max_size=30))) + b"."
    ends = [at for _, _, at in pickletools.genops(valid) if at is not None]
    parts = [valid[a:b] for a, b in zip(ends, [*ends[1:], len(valid)], strict=True)]
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(parts) - 1))
        kind = draw(st.sampled_from(["replace", "insert", "delete", "repeat"]))
        if kind == "repeat":
            parts[at:at] = parts[at : at + draw(st.integers(1, 8))] * draw(st.sampled_from([1, 2, 50, 500]))
        elif kind == "delete" and len(parts) > 1:
            del parts[at]
        else:
            parts[at : at + (kind == "replace")] = [draw(_step)]
    return b"".join(parts)
