"""Lock a run's directory: one process owns it at a time, until that ends, however it ends.

The lock is the kernel's and lies on the directory itself, so that there is no file that could vanish under a run, be
copied, or stay behind and lock out the next. Where directories cannot be locked (network file systems, Windows) it lies
on a file `.lock` in it.

A lock on a directory that another process has removed meanwhile is a lock on nothing: so what was locked is compared
with what the path names now, when it is taken (`Claim`) and before anything is written (`Claim.check`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from refbert.errors import InputError, warn

_FILE = ".lock"


class Claim:
    """The right to write in ``path``, which is made if need be (``made``); held until `release`.

    Raises `InputError` if another process has it, or the directory cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.made = not path.exists()
            while True:
                path.mkdir(parents=True, exist_ok=True)
                if not os.access(path, os.W_OK | os.X_OK):
                    raise InputError(f"{path}: cannot be written (Permission denied)")
                self._handle, self._locked = _lock(path)
                if self._stands():
                    return
                os.close(self._handle)  # whoever had it before has removed it
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from None

    def check(self) -> None:
        """Raise `InputError` if the path names another directory by now."""
        if not self._stands():
            raise InputError(
                f"{self.path}: was removed or replaced while this run was writing to it; nothing more is written there"
            )

    def release(self, *, remove: bool = False) -> None:
        """Release the lock; with ``remove``, first remove the directory if this process made it and it is empty."""
        if remove and self._stands():
            try:
                (self.path / _FILE).unlink(missing_ok=True)
                if self.made:
                    self.path.rmdir()
            except OSError:
                pass  # somebody has put something there
        os.close(self._handle)

    def _stands(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._handle), os.stat(self._locked))
        except FileNotFoundError:
            return False


def _lock(path: Path) -> tuple[int, Path]:
    """(an open handle with the lock, what it lies on)."""
    if sys.platform != "win32":
        import fcntl

        for what, flags in ((path, os.O_RDONLY), (path / _FILE, os.O_RDWR | os.O_CREAT)):
            handle = os.open(what, flags, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return handle, what
            except BlockingIOError:
                os.close(handle)
                raise _taken(path) from None
            except OSError:
                os.close(handle)
    else:
        import msvcrt

        what = path / _FILE
        handle = os.open(what, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            return handle, what
        except OSError:
            os.close(handle)
            raise _taken(path) from None
    warn(f"{path}: this file system has no locks; see to it that no other run writes there", stacklevel=4)
    return os.open(path, os.O_RDONLY), path


def _taken(path: Path) -> InputError:
    return InputError(f"{path}: another process is training here")
