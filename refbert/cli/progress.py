"""What ``refbert pretrain`` and ``refbert finetune`` say while they run, and how a signal ends them.

Progress is a bar on a terminal and a line now and then elsewhere, both on stderr.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refbert.cli.signals import Interrupted, Stopping
from refbert.cli.tables import bar_columns
from refbert.cli.terminal import console

if TYPE_CHECKING:
    from refbert.training.metrics import Update

# Seconds between two lines where there is no terminal.
_EVERY = 10.0
# The rate and the loss that are shown are means over about this many updates.
_RECENT = 20
_FACTS = 80  # columns that step, loss, rate, speed and time need


def say(text: str) -> None:
    """Print a line about the run on stderr."""
    print(f"refbert: {text}", file=sys.stderr, flush=True)


class TrainingProgress:
    """Loss, learning rate, tokens per second and time left of a run of ``steps`` updates, ``done`` of them before.

    phases: (updates, what one costs in any unit, tokens) of each, where they are of different lengths: what an update
    of a phase that has not come yet takes is estimated from the costs.
    """

    def __init__(self, steps: int, done: int, phases: Sequence[tuple[int, float, int]] = ()) -> None:
        self._steps = steps
        self._phases = phases or ((steps, 1.0, 0),)
        self._loss: float | None = None
        self._seconds = self._tokens = self._cost = 0.0
        self._shown = 0.0
        self._bar: Any = None
        if sys.stderr.isatty():
            from rich.progress import Progress

            out = console(stderr=True)
            counted = f"step {{task.completed:,}}/{steps:,}  {{task.fields[facts]}}"
            self._bar = Progress(*bar_columns(out, counted, _FACTS), console=out)
            self._bar.start()
            self._task = self._bar.add_task("step", total=steps, completed=done, facts="")

    def add(self, update: Update) -> None:
        """Show one more update."""
        kept = 0.0 if self._loss is None else 1 - 1 / _RECENT
        self._loss = kept * (self._loss or 0.0) + (1 - kept) * update.loss
        self._seconds = kept * self._seconds + (1 - kept) * update.seconds
        self._cost = kept * self._cost + (1 - kept) * self._left(update.step)[0][0]
        self._tokens = kept * self._tokens + (1 - kept) * update.tokens
        done = update.step + 1
        facts = (
            f"loss {self._loss:.4f}  rate {update.learning_rate:.2e}  {self._tokens / self._seconds:,.0f} tokens/s  "
            f"{self._time_left(done)} left"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=done, facts=facts)
            return
        now = time.monotonic()
        if self._shown == 0.0 or now - self._shown >= _EVERY or done == self._steps:
            self._shown = now
            print(f"step {done:,}/{self._steps:,}  {facts}", file=sys.stderr, flush=True)

    def _left(self, done: int) -> list[tuple[float, int, int]]:
        """(what an update costs, how many are left, tokens) of each phase that is not over."""
        out = []
        for updates, cost, tokens in self._phases:
            if done < updates:
                out.append((cost, updates - done, tokens))
            done = max(0, done - updates)
        return out

    def _time_left(self, done: int) -> str:
        unit = self._seconds / self._cost
        left = [(cost * updates * unit, tokens) for cost, updates, tokens in self._left(done)]
        whole = _clock(sum(seconds for seconds, _ in left))
        if len(left) < 2:
            return whole
        return f"{whole} ({', '.join(f'{_clock(seconds)} at {tokens}' for seconds, tokens in left)} tokens)"

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()


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


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
