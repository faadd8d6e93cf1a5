"""Read files: whatever is wrong with one becomes one line of `refbert.errors`.

What is read was written by others: a file may be missing, unreadable, a directory, endless or not UTF-8, its name
longer than the system takes. Every function takes the error to raise, since the caller knows whether it is a
checkpoint's, a tokenizer's or the user's own file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from refbert.errors import InputError, RefbertError

Kind = type[RefbertError]

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
    """Replace ``~`` and ``~user`` in the path; raises ``error`` where there is no such user."""
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
    """Read the whole file; raises ``error`` if it cannot be read or has more than ``most`` bytes.

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
    """Read the whole file as UTF-8, without a byte order mark; raises ``error`` as `read_bytes` and `decode`."""
    return decode(read_bytes(path, error, most=most), path, error)


def shown(value: object) -> str:
    """Quote a value in a message: its repr, shortened."""
    import reprlib  # here: for those who made a mistake

    try:
        return reprlib.repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return f"a very long {type(value).__name__}"


def decode(content: bytes, where: object, error: Kind) -> str:
    """Decode UTF-8; raises ``error``, with the line of ``where``, for what is not."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise error(f"{where}, line {line}: not UTF-8 (byte {problem.start} of the file)") from None
