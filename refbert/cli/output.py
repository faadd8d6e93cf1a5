"""What the commands share: files, progress, JSON lines for programs. Tables for people are in `refbert.cli.tables`."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refbert.cli.tables import bar_columns
from refbert.cli.terminal import console
from refbert.errors import InputError
from refbert.files import writing
from refbert.files.json import jsonable

# Work on fewer texts than this is over before a bar could be read.
_LONG = 64


def print_json(value: Any) -> None:
    """Print one JSON document on one line of stdout, in UTF-8, of what `refbert.files.json.jsonable` takes."""
    sys.stdout.write(json.dumps(jsonable(value), ensure_ascii=False, allow_nan=False) + "\n")


def say_default_model(model: str) -> None:
    """Say on stderr which model is used, where none was named, and what for."""
    print(
        f"refbert: no --model named, so it is {model}, which comes with refbert: for plain English about everyday "
        "things; --model small-chinese knows Chinese, --model google-bert/bert-base-uncased more",
        file=sys.stderr,
    )


def require_writable(*files: Path | None) -> None:
    """Raise `InputError`, before any work is done, for a file that could not be written after it."""
    for file in files:
        if file is None:
            continue
        try:
            target = file.resolve()
            if not target.parent.is_dir():
                raise InputError(f"{file}: the directory to write in does not exist")
            if target.is_char_device():  # such as /dev/null
                continue
            if target.exists() and not target.is_file():
                raise InputError(f"{file}: not a regular file; name another to write")
        except (OSError, RuntimeError, ValueError) as error:  # links in a circle are a RuntimeError, NUL a ValueError
            raise InputError(f"{file}: cannot be written ({getattr(error, 'strerror', None) or error})") from None
        if not os.access(target.parent, os.W_OK):
            raise InputError(f"{file}: the directory to write in is not yours to write in")


def write_text(path: Path, text: str) -> None:
    """Write a file atomically; raises `InputError` if that cannot be."""
    require_writable(path)
    writing.write_text(path, text)


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an .npz atomically; raises `InputError` if that cannot be."""
    require_writable(path)
    with writing.writing(path), writing.atomic(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)


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
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(what: str, far: str = "") -> None:
            bar.update(task, description=f"{what} {far}")

        yield show


@contextlib.contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], object] | None]:
    """A function that advances a bar on stderr; None where there is no terminal to show one, or too little to do.

    ``total`` is None for a stream: what comes of it goes to stdout meanwhile, and a bar would be in its way there.
    """
    if not sys.stderr.isatty() or (sys.stdout.isatty() if total is None else total < _LONG):
        yield None
        return
    from rich.progress import Progress, TimeRemainingColumn

    out = console(stderr=True)
    counted = "{task.completed}" + ("" if total is None else f"/{total}") + f" {what}"
    columns = bar_columns(out, counted, len(counted) + 8)
    with Progress(*columns, TimeRemainingColumn(), console=out, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)
