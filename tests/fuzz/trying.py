"""One example: the files are written, read within limits, and the outcome is one line of refbert's or a result."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hostile import assert_one_line, bounded
from targets import Files, Target

from refbert.errors import RefbertError

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {"os.remove": 1, "os.rename": 2, "os.mkdir": 1, "os.rmdir": 1, "os.link": 2, "os.symlink": 2,
            "os.truncate": 1, "os.chmod": 1, "shutil.rmtree": 1}  # fmt: skip
_NEVER = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen", "socket.connect",
          "pickle.find_class", "compile", "exec", "ctypes.dlopen")  # fmt: skip


class _Guard:
    """Hears of whatever the interpreter does while it is on: nothing is executed, nothing written elsewhere."""

    def __init__(self) -> None:
        self.inside: str | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.inside is None:
            return
        if event in _NEVER and not (event in ("exec", "compile") and _is_import(arguments)):
            self.seen.append(f"{event} {str(arguments)[:200]}")
        elif event == "open":
            path, mode, flags = arguments
            if (any(c in mode for c in "wax+") if isinstance(mode, str) else flags & _WRITES) and not isinstance(
                path, int
            ):
                self._check(event, path)
        elif event in _CHANGES:
            for path in arguments[: _CHANGES[event]]:
                self._check(event, path)

    def _check(self, event: str, path: str | bytes) -> None:
        where = os.path.abspath(os.fsdecode(path))
        if self.inside is not None and not where.startswith(self.inside + os.sep) and where != os.devnull:
            self.seen.append(f"{event} {where}")


def _is_import(arguments: tuple[Any, ...]) -> bool:
    """Whether code comes from a file that was there before, as where the library imports something late."""
    file = getattr(arguments[0], "co_filename", None) or (arguments[1] if len(arguments) > 1 else None)
    return isinstance(file, str) and file.startswith(_INSTALLED)


_INSTALLED = tuple({sys.prefix, sys.base_prefix, os.path.realpath(sys.prefix), *(path for path in sys.path if path)})
_guard = _Guard()


@contextlib.contextmanager
def guarded(directory: Path) -> Iterator[None]:
    """Assert that the block executes nothing, and writes nothing outside the directory."""
    _guard.seen = []
    _guard.inside = os.path.abspath(directory)
    try:
        yield
    finally:
        _guard.inside = None
    assert not _guard.seen, _guard.seen


def _put(files: Files, directory: Path) -> None:
    for name, content in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(content)


def warmed(target: Target) -> Target:
    """The target, after everything that reading imports has been imported."""
    with tempfile.TemporaryDirectory() as name:
        _put(target.good, Path(name))
        target.read(Path(name))
    return target


def attempt(target: Target, files: Files, *, megabytes: int = 400, seconds: float = 20) -> str:
    """ "read" or "refused"; raises whatever else comes of it."""
    with tempfile.TemporaryDirectory(prefix="refbert-fuzz-") as name:
        directory = Path(name)
        _put(files, directory)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                with guarded(directory), bounded(megabytes=megabytes, seconds=seconds):
                    target.read(directory)
                outcome = "read"
            except RefbertError as error:
                assert_one_line(error)
                outcome = "refused"
        for warning in said:
            assert_one_line(warning.message)
    return outcome
