"""What the commands share: consoles, progress, JSON. Tables are for people, JSON lines for programs."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from refbert.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

# Work on fewer texts than this is over before a bar could be read.
_LONG = 64


def print_json(value: Any) -> None:
    """One JSON document on one line of stdout, in UTF-8; NumPy's numbers and arrays as plain ones."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain) + "\n")


def write_text(path: Path, text: str) -> None:
    """A whole file or none; raises `InputError` where that cannot be."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def print_table(table: Table) -> None:
    """A table on stdout: in colour on a terminal, plain text otherwise."""
    from rich.console import Console

    # Not a terminal: wide enough that nothing is cut in a file or a pipe.
    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False).print(table)


def new_table(title: str | None = None, **options: Any) -> Table:
    """A table in the project's one style."""
    from rich import box
    from rich.table import Table

    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, **options)


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


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")
