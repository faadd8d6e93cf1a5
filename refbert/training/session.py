"""What both kinds of training do around the loop: resume from a checkpoint, train, keep metrics and page."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

from refbert.errors import InputError
from refbert.files.writing import write_text, writing
from refbert.model import Model
from refbert.training.checkpoints import read_state, restore
from refbert.training.loop import Saving, Source, train
from refbert.training.metrics import Metrics, Update, going_on
from refbert.training.optimizer import Optimizer
from refbert.training.page import render
from refbert.training.precision import MixedPrecision
from refbert.training.run import RunDirectory, check_same
from refbert.training.run import effective as came_to

# Seconds between two drawings of the run's page.
_REDRAW = 60.0
# Updates after which the share of padding is known well enough, and the share that is worth a word.
_ENOUGH = 10
_MUCH = 0.5


class Session:
    """One model's training: where it stands, and what it is updated with.

    run: the run's directory, which this process owns. place, name: this model's own directory and name, where a run has
    several models. decides: what must be the same when it goes on. last: the checkpoint to go on from; raises
    `CheckpointError` if that is another run's.
    """

    def __init__(
        self, run: RunDirectory, settings: Any, model: Model, source: Source, decides: Mapping[str, Any], *,
        last: Path | None, place: RunDirectory | None = None, name: str | None = None,
    ) -> None:  # fmt: skip
        self.run, self.place, self.name = run, place or run, name
        self.settings, self.model, self.source, self.decides = settings, model, source, decides
        self.optimizer: Optimizer = settings.new_optimizer(model.profile)
        narrow = settings.mixed_precision
        self._precision = None if narrow is None else MixedPrecision(model, narrow)
        if last is not None:
            check_same(read_state(last).settings, decides, last)
            source.restore(restore(last, model, self.optimizer).source)

    def saving(self, keep: int, **more: Any) -> Saving:
        """Return when checkpoints are saved, and which stay."""
        s = self.settings
        return Saving(self.place.checkpoints, s.save_every, keep, self.decides, 60 * s.save_minutes, **more)

    def train(self, steps: int, **how: Any) -> int:
        """Train up to ``steps`` updates, as `refbert.training.loop.train`."""
        c = self.model.config
        dropout = max(c.hidden_dropout_prob, c.attention_probs_dropout_prob, c.classifier_dropout or 0) > 0
        return train(
            self.model, self.source, optimizer=self.optimizer, steps=steps, dropout=dropout,
            micro_batch=self.settings.micro_batch, precision=self._precision, **how,
        )  # fmt: skip


class PaddingWatch:
    """Say once for each kind of batch that most of it is padding, which costs as much to compute as tokens.

    advice: what to do, from the kind and the share of padding.
    """

    def __init__(self, say: Callable[[str], object], advice: Callable[[int, float], str]) -> None:
        self._say, self._advice = say, advice
        self._seen: dict[int, list[float]] = {}

    def add(self, kind: int, padding: float) -> None:
        """Count one more batch of that kind."""
        seen = self._seen.setdefault(kind, [])
        if len(seen) == _ENOUGH:
            return
        seen.append(padding)
        if len(seen) == _ENOUGH and sum(seen) > _MUCH * _ENOUGH:
            share = sum(seen) / _ENOUGH
            self._say(f"{share:.0%} of what is computed is padding: {self._advice(kind, share)}")


class Log:
    """Metrics and page of a session, kept up as it goes on to ``steps`` updates.

    effective: what settings that were left open came to. resumed: the run goes on, which run.json says then. scores:
    gives those of the development data. kind: update (from 0) -> a number that batches of one length have in common;
    advice: what to do where most of such a batch is padding, from that number and the share.
    """

    def __init__(
        self, session: Session, steps: int, *, effective: Mapping[str, Any], resumed: bool,
        scores: Callable[[], Iterable[Mapping[str, Any]]], advice: Callable[[int, float], str],
        kind: Callable[[int], int] = lambda step: 0, on_update: Callable[[Update], object] | None,
        say: Callable[[str], object],
    ) -> None:  # fmt: skip
        self._session, self._scores, self._kind, self._told = session, scores, kind, on_update
        settings = session.settings.to_json()
        rule = {"optimizer": session.optimizer.rule}
        self._settings = settings | rule | effective | came_to(session.model)
        self._padding = PaddingWatch(say, advice)
        self._drawn = time.monotonic()
        with writing(session.place.path):
            session.place.path.mkdir(parents=True, exist_ok=True)
        done = session.optimizer.updates
        self._metrics = Metrics(session.place.metrics, first=done)
        if resumed:
            again = self._metrics.again
            session.run.note_resume(done, again, settings, **({"run": session.name} if session.name else {}))
            say(f"{session.name}: {going_on(done, steps, again)}" if session.name else going_on(done, steps, again))

    def add(self, update: Update) -> None:
        """Write one more update; raises `InputError` if the directory is no longer this run's."""
        self._session.run.check()
        self._metrics.write(update.line())
        self._padding.add(self._kind(update.step), update.padding)
        if time.monotonic() - self._drawn > _REDRAW:
            self._draw()
        if self._told is not None:
            self._told(update)

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        run, place, name = self._session.run, self._session.place, self._session.name
        page = render(
            place.metrics, title=place.path.resolve().name, settings=self._settings, dev=self._scores(),
            resumes=[entry for entry in run.resumes() if entry.get("run") == name],
        )  # fmt: skip
        write_text(place.page, page)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with suppress(InputError) if kind else nullcontext():  # what went wrong before is what is reported
            self._metrics.close()
            self._session.run.check()
            self._draw()


T = TypeVar("T")


def interruptible(compute: Callable[[], T]) -> T:
    """Return or raise what ``compute``, long compiled work, does in a thread, so that a signal reaches this one.

    It must change nothing outside memory, since a signal abandons it.
    """
    if threading.current_thread() is not threading.main_thread():
        return compute()
    came: Future[T] = Future()

    def work() -> None:
        try:
            came.set_result(compute())
        except BaseException as error:  # noqa: BLE001, raised again where it belongs
            came.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return came.result()
