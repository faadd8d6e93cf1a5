"""What the commands share: files, progress, JSON lines for programs. Tables for people are in `refbert.cli.tables`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from refbert.errors import InputError
from refbert.plain import plain
from refbert.writing import whole

# Work on fewer texts than this is over before a bar could be read.
_LONG = 64


def print_json(value: Any) -> None:
    """One JSON document on one line of stdout, in UTF-8, of what `refbert.plain` takes."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False, allow_nan=False) + "\n")


def say_default_model(model: str) -> None:
    """Which model it is, on stderr, where nobody named one."""
    print(f"refbert: no --model named, so it is {model}, which comes with refbert", file=sys.stderr)


def require_directories(*files: Path | None) -> None:
    """Raise `InputError`, before any work is done, for a file whose directory is not there."""
    for file in files:
        if file is not None and not file.resolve().parent.is_dir():
            raise InputError(f"{file}: the directory to write in does not exist")


def write_text(path: Path, text: str) -> None:
    """A whole file or none; raises `InputError` where that cannot be."""
    with _whole(path) as file:
        file.write(text.encode("utf-8"))


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """A whole .npz or none; raises `InputError` where that cannot be."""
    with _whole(path) as file:
        np.savez(file, **arrays)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    try:
        with whole(path) as part, part.open("wb") as file:
            yield file
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


@contextlib.contextmanager
def working() -> Iterator[Callable[[str, str], object]]:
    """A function that says on stderr what is being done and how far: one moving line on a terminal, elsewhere a line
    for each new thing."""
    if not sys.stderr.isatty():
        said = [""]

        def tell(what: str, _far: str = "") -> None:
            if what != said[0]:
                said[0] = what
                print(f"refbert: {what} …", file=sys.stderr, flush=True)

        yield tell
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(what: str, far: str = "") -> None:
            bar.update(task, description=f"{what} {far}")

        yield show


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], object] | None]:
    """A function that advances a bar on stderr; None where there is no terminal to show one, or too little to do."""
    if total < _LONG or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)
