"""Metrics of each update as JSON lines: one object a line, in order of steps, none twice.

A run that goes on from a checkpoint makes again what came after it. So the file is first cut back to the checkpoint's
step, and with it a last line that a killed process left half written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from refbert.errors import InputError
from refbert.files.json import parse_json
from refbert.files.writing import atomic, writing


@dataclass(frozen=True)
class Update:
    """One update. ``step`` counts from 0; ``losses`` are by head and ``loss`` is their sum, before the update.

    gradient_norm: before clipping. tokens: how many the batch held, padding not counted. seconds: how long it took.
    padding: the share of the batch that is padding.
    """

    step: int
    loss: float
    losses: dict[str, float]
    learning_rate: float
    gradient_norm: float
    tokens: int
    seconds: float
    padding: float = 0.0

    def line(self) -> str:
        """Return the update as one line of JSON."""
        losses = {f"loss_{name}": value for name, value in self.losses.items()}
        rest = {name: value for name, value in vars(self).items() if name not in ("losses", "step", "loss")}
        return json.dumps({"step": self.step, "loss": self.loss, **losses, **rest}) + "\n"


class Metrics:
    """Append to ``path`` from update ``first`` on; raises `InputError` where it cannot be written.

    again: how many updates after it had been written, and the seconds that they took: they are made again.
    """

    def __init__(self, path: Path, *, first: int = 0) -> None:
        self.path = path
        with writing(path):
            self.again = _cut(path, first)
            self._file: IO[str] = path.open("a", encoding="utf-8")

    def write(self, line: str) -> None:
        """Append one line; raises `InputError` if it cannot be written."""
        with writing(self.path, then="; free some space and go on with --resume"):
            self._file.write(line)
            self._file.flush()

    def close(self) -> None:
        """Close the file; raises `InputError` if its end cannot be written."""
        with writing(self.path):
            self._file.close()


def going_on(done: int, steps: int, again: tuple[int, float]) -> str:
    """Say in a line where a run resumes, and how many updates are made again."""
    count, seconds = again
    what = f"the {count:,} updates after it ({clock(seconds)}) are" if count else "nothing is"
    if count == 1:
        what = f"the update after it ({clock(seconds)}) is"
    return f"going on from step {done:,} of {steps:,}; {what} made again"


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Read the lines of a metrics file, up to the first that is damaged; none if there is no file."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                entry = parse_json(line, path)
            except InputError:
                return
            if not line.endswith("\n") or not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
                return
            yield entry


def clock(seconds: float) -> str:
    """Format a duration as people say it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _cut(path: Path, first: int) -> tuple[int, float]:
    """Remove the lines from step ``first`` on; return how many there were, and their seconds."""
    if not path.is_file():
        return 0, 0.0
    count, seconds = 0, 0.0
    with atomic(path) as part, part.open("w", encoding="utf-8") as file:
        for entry in read_metrics(path):
            if entry["step"] < first:
                file.write(json.dumps(entry) + "\n")
            else:
                count, seconds = count + 1, seconds + entry.get("seconds", 0.0)
    return count, seconds
