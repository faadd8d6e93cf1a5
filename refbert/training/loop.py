"""The training loop: batch, gradients, sum over processes, check, clip, update; and when checkpoints are saved.

What an update does depends on the weights, the moments, the batch and the step alone: the learning rate is a function
of the step, dropout's masks are keyed by seed and step (`refbert.randomness`), and the batch follows from the source's
state. So a run that goes on from a checkpoint is, bit by bit, the run that was never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from refbert.backend import Host, require_updates
from refbert.errors import InputError, RefbertError
from refbert.files.writing import remove_directory
from refbert.model import Model
from refbert.randomness import Dropout
from refbert.text.batching import Batch
from refbert.training import checkpoints
from refbert.training.accumulation import Sums, first_not_finite, loss_and_gradients
from refbert.training.distributed import ALONE, Processes, WorkerLost
from refbert.training.metrics import Update
from refbert.training.optimizer import Clipped, Optimizer
from refbert.training.precision import MixedPrecision


class Source(Protocol):
    """An endless stream of batches that knows where it is."""

    def next(self, step: int) -> tuple[Batch, dict[str, Host]]:
        """Return the global batch of update ``step`` (from 0) and its labels, named as in `refbert.config.heads`.

        Every process of a data-parallel run gets the same batch; the loop takes its rows.
        """
        ...

    def state(self) -> dict[str, Any]:
        """Return the position after the last batch, as JSON."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue at a `state` of a source of the same data and settings."""
        ...


class NotFinite(RefbertError):
    """Loss, gradient or weight became NaN or infinite: ``step`` and ``parameter`` say where it was first seen."""

    status = 1

    def __init__(self, message: str, step: int, parameter: str | None) -> None:
        super().__init__(message)
        self.step, self.parameter = step, parameter


@dataclass(frozen=True)
class Saving:
    """When checkpoints are written, where, and which of them stay.

    every: updates from one to the next. seconds: where that takes longer, one is written in between (None: none is);
    this costs a twentieth of the time at most. keep: how many stay (None: all): the last two, and before them those of
    every ``every`` updates; also those that ``spare`` names, which are written when their update comes. settings: go
    into each and come back.
    """

    directory: Path
    every: int
    keep: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    spare: Callable[[], Collection[Path]] = tuple

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"checkpoints every {self.every} updates: it must be 1 or more")
        if self.keep is not None and self.keep < 1:
            raise InputError(f"checkpoints to keep: it must be 1 or more, not {self.keep}")
        if self.seconds is not None and not self.seconds > 0:
            raise InputError(f"seconds between checkpoints: it must be above 0, not {self.seconds}")


# A checkpoint between the others is written when it is due and updates have taken so much longer than the last one did.
_WORTH = 20


def train(
    model: Model, source: Source, *, optimizer: Optimizer, rate: Callable[[int], float], steps: int, seed: int,
    dropout: bool = True, micro_batch: int | None = None, precision: MixedPrecision | None = None,
    saving: Saving | None = None, processes: Processes = ALONE,
    on_update: Callable[[Update], object] | None = None, stop: Callable[[], bool] | None = None,
) -> int:  # fmt: skip
    """Make updates from where ``optimizer`` stands up to ``steps``; returns how many there are then.

    rate: update (from 0) -> learning rate. micro_batch: the most rows that are computed at once (None: the whole
    batch). precision: computes forward and backward in a narrower dtype than the weights'. saving: checkpoints as it
    says, and at the end. on_update: called after each update. stop: asked after each update; once it says
    yes (in any process), the state is saved and the loop returns early.

    Raises `Unsupported` on a backend without updates; `NotFinite` where loss, gradients or weights are no longer
    finite: nothing is updated or saved then, and the last checkpoint is a good one. `CheckpointError` if a checkpoint
    cannot be written; `WorkerLost` if another process has gone.
    """
    require_updates(model.backend)
    last_saved = optimizer.updates
    saved_at, cost = time.monotonic(), 0.0
    seconds = math.inf if saving is None or saving.seconds is None else saving.seconds
    while optimizer.updates < steps:
        step = optimizer.updates
        started = time.perf_counter()
        batch, labels = source.next(step)
        sums = loss_and_gradients(
            model, batch, labels, micro_batch=micro_batch, dropout=Dropout(seed, step) if dropout else None,
            rank=processes.rank, processes=processes.count, precision=precision,
        )  # fmt: skip
        due = processes.rank == 0 and time.monotonic() - saved_at >= max(seconds, _WORTH * cost)
        try:
            stopping, due = _sum(processes, model, sums, stop is not None and stop(), due)
        except WorkerLost as error:
            raise WorkerLost(f"{error} at step {step}; {_last(saving)}") from error
        lr = rate(step)
        clipped, norm = _clip(model, optimizer, sums, step, saving)
        sums.gradients = {}  # their memory is the update's
        optimizer.update(model.backend, model.parameters, clipped, lr=lr)
        if on_update is not None:
            on_update(Update(
                step=step, loss=sums.loss, losses=sums.losses, learning_rate=lr, gradient_norm=norm,
                tokens=int(batch.attention_mask.sum()), seconds=time.perf_counter() - started,
                padding=1 - float(batch.attention_mask.mean()),
            ))  # fmt: skip
        done = optimizer.updates
        if saving is not None and (stopping or due or _due(saving, done, steps)):
            began = time.monotonic()
            _save(model, optimizer, source, saving, write=processes.rank == 0)
            last_saved, saved_at = done, time.monotonic()
            cost = saved_at - began
        if stopping:
            break
    assert saving is None or last_saved == optimizer.updates
    return optimizer.updates


def _sum(processes: Processes, model: Model, sums: Sums, stop: bool, save: bool) -> tuple[bool, bool]:
    """Losses and gradients over all processes, in place; whether any of them wants to stop, and to save."""
    if processes.count == 1:
        return stop, save
    names = sorted(sums.losses)
    numbers = processes.sum_numbers([float(stop), float(save), sums.loss, *(sums.losses[name] for name in names)])
    sums.loss, sums.losses = numbers[2], dict(zip(names, numbers[3:], strict=True))
    processes.sum_arrays(model.backend, sums.gradients)
    return numbers[0] > 0, numbers[1] > 0


def _clip(model: Model, optimizer: Optimizer, sums: Sums, step: int, saving: Saving | None) -> tuple[Clipped, float]:
    """The gradients to update by, and their norm before clipping, if it and the loss are finite; else `NotFinite`.

    Weights are looked at before gradients: an update that left something infinite there shows one step later.
    """
    backend: Any = model.backend  # with updates, as `train` has seen
    clipped = optimizer.clip(backend, sums.gradients)
    # Where clipping is off, the norm is still the quickest look at every gradient.
    norm = float(backend.global_norm(sums.gradients)) if clipped.norm is None else clipped.norm
    if math.isfinite(norm) and math.isfinite(sums.loss):
        return clipped, norm
    parameter = first_not_finite(model.backend, model.parameters)
    what = f"{parameter} is not finite"
    if parameter is None:
        parameter = first_not_finite(model.backend, sums.gradients)
        what = f"the gradient of {parameter} is not finite" if parameter else f"the gradients' norm is {norm}"
    raise NotFinite(
        f"step {step}: the loss is {sums.loss:g}, {what}; nothing was updated; {_last(saving)}", step, parameter
    )


def _save(model: Model, optimizer: Optimizer, source: Source, saving: Saving, *, write: bool) -> None:
    """A checkpoint, unless there are weights that nothing can go on from; ``write``: whether this process writes it."""
    weight = first_not_finite(model.backend, model.parameters)
    if weight is not None:
        step = optimizer.updates - 1
        raise NotFinite(f"step {step}: {weight} is not finite after the update; {_last(saving)}", step, weight)
    if write:
        state = checkpoints.State(optimizer.updates, source.state(), saving.settings)
        checkpoints.save(saving.directory, model, optimizer, state)
        _prune(saving)


def _due(saving: Saving, done: int, steps: int) -> bool:
    """Whether a checkpoint is written after so many updates, whatever the clock says."""
    return done % saving.every == 0 or done == steps or checkpoints.place_of(saving.directory, done) in saving.spare()


def _prune(saving: Saving) -> None:
    """Remove the checkpoints that need not stay."""
    if saving.keep is None:
        return
    places = checkpoints.saved(saving.directory)[::-1]
    last = places[: min(2, saving.keep)]
    regular = [p for p in places[len(last) :] if checkpoints.updates_of(p) % saving.every == 0]
    stay = {*last, *regular[: saving.keep - len(last)], *saving.spare()}
    for place in places:
        if place not in stay:
            remove_directory(place)


def _last(saving: Saving | None) -> str:
    """The sentence that says what is left to go on from."""
    there = [] if saving is None else checkpoints.saved(saving.directory)
    return f"the last checkpoint is {there[-1]}" if there else "there is no checkpoint yet"
