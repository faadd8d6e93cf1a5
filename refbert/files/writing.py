"""Write files and directories atomically: they are there whole, or as before. All that somebody keeps is written so.

It is written under another name in the same directory, forced to the disk, and renamed. A process that is killed leaves
that other file. While a process lives it holds a lock on the one that it writes; so the next to write there can tell
what nobody will finish, and removes that: files of exactly this form of name, on which nobody has a lock.

A directory is likewise filled under another name beside it, and renamed before it is removed.
"""

from __future__ import annotations

import os
import shutil
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from refbert.errors import InputError
from refbert.files.reading import Kind

# Eight hexadecimal digits follow. Nobody else names files so.
_MARK = ".refbert-part-"


@contextmanager
def writing(path: str | Path, error: Kind = InputError, *, then: str = "") -> Iterator[None]:
    """Turn what the system says about ``path`` inside the block into ``error``, in one line; ``then``: its end."""
    try:
        yield
    except OSError as problem:
        raise error(f"{path}: cannot be written ({problem.strerror or problem}){then}") from None


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield the path to write to; the file there replaces ``path``, or is removed if the block raises.

    A link is followed. What is no file (a device, a pipe) is written to directly. Raises OSError.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        yield path
        return
    clear_unfinished(path)
    part = path.with_name(f".{_short(path.name)}{_MARK}{os.urandom(4).hex()}")
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _is_free(handle)
        yield part
        sync(part)
        part.replace(path)
        sync(path.parent)
    finally:
        os.close(handle)
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str, error: Kind = InputError) -> None:
    """Write the text as UTF-8, the whole file or none; raises ``error`` if that cannot be.

    Half of a surrogate pair, which UTF-8 does not have, becomes its escape: in JSON that is the same.
    """
    with writing(path, error), atomic(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def clear_unfinished(path: Path) -> None:
    """Remove what processes that were killed while they wrote ``path`` have left beside it."""
    start = f".{_short(path.name)}{_MARK}"
    with suppress(OSError):
        for name in os.listdir(path.parent):
            left = path.parent / name
            if name.startswith(start) and len(name) == len(start) + 8 and left.is_file() and not left.is_symlink():
                with suppress(OSError):  # another has removed it, or is writing it on a system without locks
                    handle = os.open(left, os.O_RDWR)
                    try:
                        if _is_free(handle):
                            left.unlink()
                    finally:
                        os.close(handle)


def sync(path: Path) -> None:
    """Force a file or a directory to the disk. Windows has no such call for directories and needs none."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _short(name: str) -> str:
    """Shorten a long name, so that there is room for the mark at its end."""
    return name if len(os.fsencode(name)) < 200 else f"{name[:40]}-{zlib.crc32(os.fsencode(name)):08x}"


def _is_free(handle: int) -> bool:
    """Lock an open file until it is closed; False if another process has the lock."""
    if sys.platform == "win32":
        return True  # a file that is open cannot be removed there
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


_PARTIAL = ".partial-"  # what a process that was killed leaves of a directory begins so


@contextmanager
def atomic_directory(place: Path) -> Iterator[Path]:
    """Yield a directory to fill; it becomes ``place``, or is removed if the block raises. Raises OSError."""
    partial = _partial(place)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        for path in (*files_in(partial), partial):
            sync(path)
        partial.rename(place)
        sync(place.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_directory(place: Path) -> None:
    """Remove a directory, renamed first, so that half of one never looks whole; raises OSError."""
    shutil.rmtree(_partial(place), ignore_errors=True)
    place.rename(_partial(place))
    shutil.rmtree(_partial(place), ignore_errors=True)


def clear_partial(directory: Path) -> None:
    """Delete what a process that was killed left unfinished in ``directory``."""
    for path in directory.glob(f"{_PARTIAL}*"):
        shutil.rmtree(path, ignore_errors=True)


def files_in(directory: Path) -> list[Path]:
    """List every file in a directory and below, in order."""
    return [path for path in sorted(directory.rglob("*")) if path.is_file()]


def _partial(place: Path) -> Path:
    return place.with_name(f"{_PARTIAL}{place.name}")
