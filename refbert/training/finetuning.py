"""Fine-tuning: labelled files and a checkpoint in, a model for one task out. Devlin et al. 2019 §4, §5.3 and A.3.

One run or many: every learning rate with every batch size and number of epochs that are asked for, each as often as
there are restarts (another seed for the new head, the order of the examples and dropout). After each epoch the
development set is scored; the epoch that scores best, of all runs, is the model that comes out. Without a development
set there can be one run only, and its last epoch counts.

    DIR/run.json                     the settings, and what came of the runs so far
    DIR/runs/NAME/metrics.jsonl      every update        run.html   the same as curves
    DIR/runs/NAME/scores.json        the scores of every epoch
    DIR/runs/NAME/checkpoints/       while they are needed
    DIR/model.safetensors, config.json, tokenizer files       the best, once all runs are done
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from refbert.data.features import Feature
from refbert.data.labelled import Labelled, check_labels, label_set, read
from refbert.data.stream import Epochs
from refbert.errors import CheckpointError, InputError, quiet, warn
from refbert.evaluation.tasks import evaluate, main_score, score_names
from refbert.files.digests import digest, digest_of_file
from refbert.files.json import read_json, write_json
from refbert.files.reading import is_file
from refbert.files.writing import clear_partial, remove_directory, writing
from refbert.model import Model
from refbert.tasks.classifying import label_names
from refbert.training import checkpoints
from refbert.training.finetuning_settings import Plan, Settings
from refbert.training.loop import NotFinite
from refbert.training.metrics import Update
from refbert.training.run import RunDirectory, agreed, versions
from refbert.training.session import Log, Session, interruptible
from refbert.training.task_model import NAMED, begin, features, of_the_checkpoint

_LONG_TEXTS = "a few texts are much longer than the others of their batch; a smaller --max-length cuts them"


@dataclass(frozen=True)
class Result:
    """All runs that are done, the best of them if all are, and the directory."""

    outcomes: tuple[Outcome, ...]
    best: Outcome | None
    metric: str
    directory: Path


def finetune(
    directory: str | Path,
    settings: Settings,
    *,
    resume: bool = False,
    on_begin: Callable[[Plan, Model, int, int], object] | None = None,
    on_update: Callable[[Update], object] | None = None,
    on_score: Callable[[Plan, int, Scores], object] | None = None,
    stop: Callable[[], bool] | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> Result:
    """Fine-tune into ``directory``, or resume what was begun there.

    on_begin is told each run, its model, the updates it will have and those that it has; on_update each update;
    on_score the scores of an epoch (from 1); ``stop`` is asked after each update; ``say`` is given a line about where a
    run goes on. A run whose numbers cease to be finite has failed if there are others, and raises `NotFinite` if it is
    the only one. Raises `InputError` for settings and files that cannot be used, before anything is written.
    """
    run = RunDirectory(directory)
    if not resume:
        run.refuse_what_is_there()
    settings = of_the_checkpoint(settings)
    reading = partial(read, settings.task, columns=settings.columns, format=settings.format)
    data = reading(settings.train)
    dev = None if settings.dev is None else reading(settings.dev, to_learn=False)
    plans = settings.plans()
    model = begin(settings, label_set(settings.task, data), seed=plans[0].seed)
    labels = label_names(model.config) if settings.task in NAMED else ()
    check_labels(settings.task, data, labels)
    if dev is not None:
        check_labels(settings.task, dev, labels)
    metric = _metric(settings, labels, dev)
    examples = interruptible(partial(features, settings, data, model))
    facts = {
        "config": model.config.to_dict(), "model's profile": model.profile.name,
        "training data": digest(repr(([r.input_ids for r in x.rows], sorted(x.labels.items()))) for x in examples),
        "development data": digest([repr(dev)]),
        "base model's weights": digest(repr(digest_of_file(file)) for file in model.report.files),
    }  # fmt: skip
    with run.owned():
        if resume and run.holds_run():
            agreed(run.read()["settings"], settings.to_json(), free=settings.free(), where=run.path)
        else:
            run.prepare()
        run.begin(settings.to_json(), facts, {
            "kind": "finetuning", "labels": list(labels), "examples": len(data), "features": len(examples),
            "versions": versions(model.backend),
        })  # fmt: skip
        outcomes: list[Outcome] = []
        tokenizer, ready = model.tokenizer, [model]
        del model  # the first run's alone: it must not stay while the others are trained
        for plan in plans:
            one = _Run(run, settings, plan, facts, labels, examples, dev, metric, tokenizer)
            first = ready.pop() if ready else None
            outcome = one.go(first, on_begin, on_update, on_score, stop, say, alone=len(plans) == 1)
            del first
            if outcome is None:
                return Result(tuple(outcomes), None, metric, run.path)
            outcomes.append(outcome)
            run.check()
            keep_best(run, outcomes, metric)
        best = best_of(outcomes, metric)
        if best is None:
            raise NotFinite(f"no run ended well; the last: {outcomes[-1].failed}", 0, None)
        if best.scores and best.scores[metric] is None:
            warn(
                f"{metric} is undefined in every epoch of every run, so it decides nothing: the last epoch of the "
                "first run is taken",
                stacklevel=2,
            )
        export(run, outcomes, best)
        return Result(tuple(outcomes), best, metric, run.path)


class _Run:
    """One run of the grid, in its own directory."""

    def __init__(
        self, whole: RunDirectory, settings: Settings, plan: Plan, facts: Mapping[str, Any], labels: Sequence[str],
        examples: Sequence[Feature], dev: Labelled | None, metric: str, tokenizer: Any,
    ) -> None:  # fmt: skip
        self.whole, self.place = whole, RunDirectory(whole.path / "runs" / plan.name)
        self.settings, self.plan, self.labels, self.dev, self.metric = settings, plan, labels, dev, metric
        self.source = Epochs(examples, tokenizer, batch_size=plan.batch_size, seed=plan.seed)
        self.scores = self.place.path / "scores.json"
        self.decides = settings.decisive() | vars(plan) | dict(facts)

    def go(
        self, model: Model | None, on_begin: Callable[[Plan, Model, int, int], object] | None,
        on_update: Callable[[Update], object] | None, on_score: Callable[[Plan, int, Scores], object] | None,
        stop: Callable[[], bool] | None, say: Callable[[str], object], *, alone: bool,
    ) -> Outcome | None:  # fmt: skip
        """Start or resume the run; None if it was stopped before its end."""
        clear_partial(self.place.checkpoints)
        told = self._read_scores()
        if (done := self._outcome(told)) is not None:
            return done
        told, last = self._where(told)
        settings, plan = self.settings, self.plan
        if model is None:
            with quiet():  # said of the first run
                model = begin(settings, self.labels, seed=plan.seed)
        per_epoch = self.source.updates
        steps = per_epoch * plan.epochs
        rate = partial(settings.rate, plan=plan, steps=steps, profile=model.profile)
        session = Session(
            self.whole, settings, model, self.source, self.decides, last=last, place=self.place, name=plan.name
        )
        if on_begin is not None:
            on_begin(plan, model, steps, session.optimizer.updates)
        saving = session.saving(keep=1, spare=lambda: [self._best(told)] if told else [])
        log = Log(
            session, steps, effective=vars(plan), resumed=last is not None,
            scores=lambda: [{"step": entry["updates"], **entry["scores"]} for entry in told], on_update=on_update,
            say=say, advice=lambda *_: _LONG_TEXTS,
        )  # fmt: skip
        try:
            with log:
                for epoch in range(len(told) + 1, plan.epochs + 1):
                    end = epoch * per_epoch
                    if session.train(end, rate=rate, seed=plan.seed, saving=saving, on_update=log.add, stop=stop) < end:
                        return None
                    scores = self._score(model, warn=epoch == 1)
                    told.append({"epoch": epoch, "updates": end, "scores": scores})
                    self._write_scores(told)
                    for place in checkpoints.saved(self.place.checkpoints)[:-1]:  # but for the last update's
                        if place != self._best(told):
                            remove_directory(place)
                    if on_score is not None:
                        on_score(plan, epoch, scores)
                    if stop is not None and stop() and epoch < plan.epochs:
                        return None
        except NotFinite as error:
            if alone:
                raise
            told.append({"failed": str(error)})
            self._write_scores(told)
            shutil.rmtree(self.place.checkpoints, ignore_errors=True)
        return self._outcome(told)

    def _where(self, told: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Path | None]:
        """(the scores that still hold, the checkpoint to go on from); put aside what is damaged, to make it again."""
        try:
            last = checkpoints.last_whole(self.place.checkpoints)
            told = [entry for entry in told if last is not None and entry["updates"] <= checkpoints.updates_of(last)]
            if told:
                checkpoints.check_whole(self._best(told))
        except checkpoints.Damaged as error:
            for place in checkpoints.saved(self.place.checkpoints):
                checkpoints.put_aside(place, f"{error}; this run is begun again")
            return [], None
        return told, last

    def _best(self, told: Sequence[Mapping[str, Any]]) -> Path:
        """The checkpoint of the best epoch so far."""
        return checkpoints.place_of(self.place.checkpoints, best_epoch(told, self.metric)["updates"])

    def _score(self, model: Model, *, warn: bool) -> dict[str, float | None]:
        if self.dev is None:
            return {}
        with nullcontext() if warn else quiet():
            found = evaluate(model, self.settings.task, self.dev, self.settings.limits()).scores
        return {name: value if math.isfinite(value) else None for name, value in found.items()}

    def _outcome(self, told: Sequence[Mapping[str, Any]]) -> Outcome | None:
        if told and "failed" in told[-1]:
            return Outcome(self.plan.name, 0, 0, {}, told[-1]["failed"])
        if len(told) < self.plan.epochs:
            return None
        best = best_epoch(told, self.metric)
        return Outcome(self.plan.name, best["epoch"], best["updates"], best["scores"])

    def _read_scores(self) -> list[dict[str, Any]]:
        if not is_file(self.scores):
            return []
        told = read_json(self.scores)
        if not isinstance(told, list) or not all(map(checkpoints.is_sealed, told)):
            raise InputError(f"{self.scores}: damaged; delete {self.place.path} to do that run again")
        return told

    def _write_scores(self, told: Sequence[Mapping[str, Any]]) -> None:
        write_json(self.scores, [checkpoints.sealed(entry) for entry in told], indent=1)


def _metric(settings: Settings, labels: Sequence[str], dev: Labelled | None) -> str:
    """The score that decides; raises `InputError` for one that is not made."""
    if settings.metric is None:
        return main_score(settings.task, labels)
    if dev is None:
        raise InputError(f'no score "{settings.metric}" without a development file: name one with --dev')
    made = score_names(settings.task, labels, dev)
    if settings.metric not in made:
        raise InputError(f'no score "{settings.metric}" is made of {dev.path} (there are: {", ".join(made)})')
    return settings.metric


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
        for place in checkpoints.saved(run.path / "runs" / outcome.name / "checkpoints"):
            if outcome is not best or checkpoints.updates_of(place) != outcome.updates:
                remove_directory(place)


def export(run: RunDirectory, outcomes: Sequence[Outcome], best: Outcome) -> None:
    """Copy the best model's files to the top of the directory, each atomically; then delete the checkpoints.

    Raises `CheckpointError` if the checkpoint is not whole, or the files cannot be written.
    """
    place = checkpoints.place_of(run.path / "runs" / best.name / "checkpoints", best.updates)
    try:
        with writing(run.path, CheckpointError, then="; go on with --resume"):
            if place.is_dir() or not run.finished():  # else it has been exported already
                checkpoints.export(place, run.path)
                remove_directory(place)
            for outcome in outcomes:
                rest = run.path / "runs" / outcome.name / "checkpoints"
                if rest.is_dir():
                    shutil.rmtree(rest)
    except checkpoints.Damaged as error:
        again = place.parent.parent
        raise CheckpointError(f"{error}; delete {again} and go on with --resume to do that run again") from None
