"""What ``refbert pretrain`` and ``refbert finetune`` share: a bar, signals, and what is said at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from refbert.cli.progress import TrainingProgress
from refbert.cli.signals import Interrupted, Stopping

if TYPE_CHECKING:
    from refbert.training.metrics import Update


class Watch:
    """One training command as it runs. ``shown``: whether this process is the one that says something."""

    def __init__(self, command: str, output: Path, *, shown: bool = True) -> None:
        self.stopping = Stopping()
        self.go_on = f"go on with: refbert {command} --output {output} --resume"
        self._output, self._shown = output, shown
        self._bar: TrainingProgress | None = None

    def begin(self, line: str, steps: int, done: int, phases: Sequence[tuple[int, float, int]] = ()) -> None:
        """Say what begins, and show a bar of it; from now on a signal is asked about after each update."""
        self.stopping.be_patient()
        self._close()
        if self._shown:
            print(line, file=sys.stderr)
            self._bar = TrainingProgress(steps, done, phases)

    def update(self, update: Update) -> None:
        """Show one more update."""
        if self._bar is not None:
            self._bar.add(update)

    @contextmanager
    def running(self, nothing_kept: str) -> Iterator[None]:
        """Hear signals; one that comes before the first update ends the process, with a line about what is kept."""
        from refbert.training.run import RunDirectory

        try:
            with self.stopping:
                yield
        except Interrupted:
            kept = self.go_on if RunDirectory(self._output).holds_run() else nothing_kept
            self.stopping.leave(f"{self._output}: stopped before the first update; {kept}" if self._shown else None)
        finally:
            self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
