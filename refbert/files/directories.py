"""Write and remove directories atomically: at no moment is there half of one under its name.

It is filled under another name beside it, forced to the disk, and renamed; it is renamed before it is removed. What a
process that was killed leaves begins with `_PARTIAL`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from refbert.files.writing import sync

_PARTIAL = ".partial-"


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
