"""One reader of files and one of JSON: whatever is wrong with either becomes one line of `refbert.errors`.

What is read was written by others: a file may be missing, unreadable, a directory, endless or not UTF-8, its name
longer than the system takes; JSON may be nested without end, name a key twice, or hold numbers that no float has.
Every function takes the error to raise, since the caller knows whether it is a checkpoint's, a tokenizer's or the
user's own file.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refbert.errors import InputError, RefbertError

Kind = type[RefbertError]

# The value of a key that an object has twice, where that is left to whoever uses it.
TWICE = object()
# Bytes: no settings file comes near it, and reading one of this size takes a few hundred MB at most.
SETTINGS = 1 << 24


@contextmanager
def reading(path: str | Path, error: Kind = InputError) -> Iterator[None]:
    """Turn what the system says about ``path`` inside the block into ``error``, in one line that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except IsADirectoryError:
        raise error(f"{path}: a directory, where a file is expected") from None
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror or problem})") from None
    except ValueError:
        if _nameable(path):
            raise
        raise error(f"{path}: no file can have this name") from None


def _nameable(path: str | Path) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def expanded(path: str | Path, error: Kind = InputError) -> Path:
    """The path with ``~`` and ``~user`` replaced; raises ``error`` where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise error(f"{path}: there is no such user") from None


def is_file(path: str | Path, error: Kind = InputError) -> bool:
    """Whether there is a file (not a directory, a pipe or a device); raises ``error`` where that cannot be known."""
    return stat.S_ISREG(_mode(path, error))


def is_directory(path: str | Path, error: Kind = InputError) -> bool:
    """Whether there is a directory; raises ``error`` where that cannot be known."""
    return stat.S_ISDIR(_mode(path, error))


def _mode(path: str | Path, error: Kind) -> int:
    with reading(path, error):
        try:
            return os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return 0


def read_bytes(path: str | Path, error: Kind = InputError, *, most: int | None = None) -> bytes:
    """The whole file; raises ``error`` if it cannot be read or has more than ``most`` bytes.

    With ``most`` it must be a file: a pipe or a device, which may never end, is refused without a look at it.
    """
    if most is not None and (mode := _mode(path, error)) and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise error(f"{path}: a pipe or a device, where a file is expected")
    with reading(path, error), open(path, "rb", opener=_without_waiting) as file:
        content = file.read() if most is None else file.read(most + 1)
    if most is not None and len(content) > most:
        raise error(f"{path}: more than {most:,} bytes, too long for what it should be")
    return content


def _without_waiting(path: str, flags: int) -> int:
    """Open a pipe that somebody writes to, as a shell's <(…); of one that nobody does, nothing is read."""
    handle = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(handle, True)
    return handle


def read_text(path: str | Path, error: Kind = InputError, *, most: int | None = None) -> str:
    """The whole file as UTF-8, without a byte order mark; raises ``error`` as `read_bytes`, and where it is not."""
    return _decode(read_bytes(path, error, most=most), path, error)


def read_json(path: str | Path, error: Kind = InputError, *, most: int = SETTINGS) -> Any:
    """The file's JSON; raises ``error`` as `read_text` and `parse_json`."""
    return parse_json(read_bytes(path, error, most=most), path, error)


def read_object(path: str | Path, error: Kind = InputError, *, most: int = SETTINGS) -> dict[str, Any]:
    """`read_json` of a file that must hold an object."""
    value = read_json(path, error, most=most)
    if not isinstance(value, dict):
        raise error(f"{path}: a JSON object is expected, not {shown(value)}")
    return value


def parse_json(text: str | bytes, where: object, error: Kind = InputError, *, strict: bool = True) -> Any:
    """JSON as RFC 8259 has it, from ``where`` (a file, or a file and its line); raises ``error`` for anything else.

    Also refused, since no two readers agree on them: a key that an object has twice, numbers beyond a float's range,
    and nesting beyond what Python follows. ``strict=False`` leaves NaN, such numbers (infinite then), halves of
    surrogate pairs and keys that are there twice (with the value `TWICE`) to whoever uses the value: for rows of data,
    of which most columns are nobody's business.
    """
    if isinstance(text, bytes):
        text = _decode(text, where, error)
    text = text.removeprefix("\ufeff")
    try:
        value = (_STRICT if strict else _LENIENT).decode(text)
    except json.JSONDecodeError as problem:
        place = f"line {problem.lineno}, column {problem.colno}" if "\n" in text else f"column {problem.colno}"
        raise error(f"{where}: not JSON ({problem.msg}, {place})") from None
    except RecursionError:
        raise error(f"{where}: not usable JSON (nested too deep)") from None
    except _Refused as problem:
        raise error(f"{where}: not usable JSON ({problem})") from None
    if strict and _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except RecursionError:  # writing takes more of the stack than reading did
            raise error(f"{where}: not usable JSON (nested too deep)") from None
        except UnicodeEncodeError:
            raise error(f"{where}: not usable JSON (half a surrogate pair, which is no character)") from None
    return value


def shown(value: object) -> str:
    """A value as a message quotes it: Python's form of it, shortened, whatever it is."""
    import reprlib  # here: for those who made a mistake

    try:
        return reprlib.repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return f"a very long {type(value).__name__}"


def _decode(content: bytes, where: object, error: Kind) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise error(f"{where}, line {line}: not UTF-8 (byte {problem.start} of the file)") from None


class _Refused(Exception):
    """JSON that can be read, but not used."""


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_DIGITS = 308  # the largest float is 1.8e308


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise _Refused(f"a number of {len(digits):,} digits")
    return int(digits)


def _real(digits: str) -> float:
    number = float(digits)
    if number - number != 0:
        raise _Refused(f"the number {digits[:20]}, which no float holds")
    return number


def _constant(name: str) -> float:
    raise _Refused(f"{name}, which JSON does not have")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Refused(f"{shown(twice)} is there twice")
    return out


def _any_whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS else float(digits)


def _any_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        seen: set[str] = set()
        out |= {key: TWICE for key, _ in pairs if key in seen or seen.add(key)}  # type: ignore[func-returns-value]
    return out


_STRICT = json.JSONDecoder(parse_int=_whole, parse_float=_real, parse_constant=_constant, object_pairs_hook=_object)
_LENIENT = json.JSONDecoder(parse_int=_any_whole, object_pairs_hook=_any_object)
