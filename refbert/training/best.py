"""Choose the best epoch of the best run of fine-tuning, and export it as the model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refbert.errors import CheckpointError, InputError
from refbert.files.directories import remove_directory
from refbert.files.writing import atomic, writing
from refbert.training.checkpoints import TRAINING, Damaged, check_whole, place_of, saved, updates_of
from refbert.training.run import RunDirectory

# By name; None for one that is not defined, such as the correlation with a constant.
Scores = Mapping[str, float | None]


@dataclass(frozen=True)
class Outcome:
    """What came of one run: the best epoch (from 1), its updates and scores; or why there is none."""

    name: str
    epoch: int
    updates: int
    scores: Scores
    failed: str | None = None


def _best(scores: Sequence[Scores], metric: str) -> int | None:
    """The place of the first whose ``metric`` is best; None where none has it, as a constant has no correlation."""
    values: dict[int, float] = {}
    for place, one in enumerate(scores):
        if one and metric not in one:
            raise InputError(f'no score "{metric}" was recorded (there are: {", ".join(one)})')
        if one and (value := one[metric]) is not None:
            values[place] = -value if metric == "mean_squared_error" else value
    return max(values, key=values.__getitem__, default=None)


def best_epoch(told: Sequence[Mapping[str, Any]], metric: str) -> Mapping[str, Any]:
    """Return the first of the epochs that score highest; the last where none has that score."""
    best = _best([entry["scores"] for entry in told], metric)
    return told[-1 if best is None else best]


def best_of(outcomes: Sequence[Outcome], metric: str) -> Outcome | None:
    """Return the first of the runs that score highest; the first that ended well where none has that score."""
    ended = [outcome for outcome in outcomes if outcome.failed is None]
    return ended[_best([outcome.scores for outcome in ended], metric) or 0] if ended else None


def keep_best(run: RunDirectory, outcomes: Sequence[Outcome], metric: str) -> None:
    """Delete the checkpoints of the runs that are done, but for the best epoch of the best run."""
    best = best_of(outcomes, metric)
    for outcome in outcomes:
        for place in saved(run.path / "runs" / outcome.name / "checkpoints"):
            if outcome is not best or updates_of(place) != outcome.updates:
                remove_directory(place)


def export(run: RunDirectory, outcomes: Sequence[Outcome], best: Outcome) -> None:
    """Copy the best model's files to the top of the directory, each atomically; then delete the checkpoints.

    Raises `CheckpointError` if the checkpoint is not whole, or the files cannot be written.
    """
    place = place_of(run.path / "runs" / best.name / "checkpoints", best.updates)
    try:
        with writing(run.path, CheckpointError, then="; go on with --resume"):
            if place.is_dir() or not run.finished():  # else it has been exported already
                check_whole(place)
                # The weights last, because with them the directory holds a model.
                others = [p for p in place.iterdir() if p.suffix in (".json", ".txt") and p.name != TRAINING]
                for file in [*sorted(others), place / "model.safetensors"]:
                    with atomic(run.path / file.name) as part:
                        shutil.copyfile(file, part)
                remove_directory(place)
            for outcome in outcomes:
                checkpoints = run.path / "runs" / outcome.name / "checkpoints"
                if checkpoints.is_dir():
                    shutil.rmtree(checkpoints)
    except Damaged as error:
        again = place.parent.parent
        raise CheckpointError(f"{error}; delete {again} and go on with --resume to do that run again") from None
