"""Pretraining from text files to a model: Devlin et al. 2019 §3.1 and A.2.

Data, tokenizer and model are made once, by the first process; what they are follows from the settings. So does the
rest: a run is a function of its settings and its text, however often it was stopped.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refbert import checkpoint
from refbert.backend import registry
from refbert.config import BertConfig
from refbert.config.heads import PRETRAINING
from refbert.config.presets import PRESETS, preset
from refbert.config.profiles import get_profile
from refbert.data import PretrainingSource, Store, build_store, read_sentences, train_wordpiece
from refbert.data.rows import Rows
from refbert.errors import CheckpointError, ConfigError, InputError, warn
from refbert.evaluation.masked_lm import Sums
from refbert.files.reading import is_file
from refbert.files.writing import atomic, atomic_directory, writing
from refbert.loading import from_config, load
from refbert.model import Model
from refbert.spec.choices import Choices
from refbert.text.tokenization import Tokenizer
from refbert.training.checkpoints import Damaged, export, last_whole, place_of
from refbert.training.distributed import ALONE, Processes
from refbert.training.metrics import Metrics, Update, read_metrics
from refbert.training.pretraining_settings import Settings
from refbert.training.run import RunDirectory, agreed, versions
from refbert.training.session import Log, Session, interruptible

# Seconds between two lines about the reading of the text.
_TELL = 10.0


@dataclass(frozen=True)
class Result:
    """The updates that the run has now, and those that it is to have."""

    updates: int
    steps: int
    directory: Path

    @property
    def finished(self) -> bool:
        """Whether all steps are done and the model is in the directory."""
        return self.updates >= self.steps


def pretrain(
    directory: str | Path,
    settings: Settings,
    *,
    resume: bool = False,
    processes: Processes = ALONE,
    device: str | None = None,
    on_begin: Callable[[Model, int], object] | None = None,
    on_update: Callable[[Update], object] | None = None,
    stop: Callable[[], bool] | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> Result:
    """Pretrain into ``directory``, or resume the run there.

    device: this process's, where it is not the settings' (several GPUs).
    on_begin is told the model and the updates done before; on_update each update; ``stop`` is asked after each. ``say``
    is given a line about what is being prepared. Raises `InputError` for settings and text that cannot be used, and
    what `refbert.training.loop.train` raises.
    """
    run = RunDirectory(directory)
    first, resumed = processes.rank == 0, False
    with ExitStack() as stack:
        if first:
            if not resume:
                run.refuse_what_is_there()
            stack.enter_context(run.owned())
            # Where run.json has been lost, the last checkpoint says what the settings must be.
            resumed = resume and (run.holds_run() or run.last() is not None)
            if resumed:
                if run.holds_run():
                    agreed(run.read()["settings"], settings.to_json(), free=settings.free(), where=run.path)
                last_whole(run.checkpoints)
                _check_data(run, settings, say)
            else:
                run.prepare()
                _prepare(run, settings, say)
        processes.check_same("settings", repr(settings))  # the others come here when the first is ready
        tokenizer = _tokenizer(run.tokenizer, settings)
        store = stack.enter_context(Store.open(run.data))
        source = PretrainingSource(
            store, tokenizer, seed=settings.seed, phases=settings.phases(), settings=settings.data()
        )
        model = _model(settings, tokenizer, device or settings.device)
        held_out = None
        if settings.dev:
            held_out = HeldOut(run, stack.enter_context(Store.open(run.dev_data)), tokenizer, settings, processes)
        facts = {
            "config": model.config.to_dict(), "tokenized data": source.fingerprint,
            "development data": held_out.fingerprint if held_out else None,
        }  # fmt: skip
        decides = settings.decisive() | facts
        session = Session(run, settings, model, source, decides, last=run.last())
        before = session.optimizer.updates
        if held_out is not None:
            held_out.resume()
        processes.check_same("checkpoint", f"{before} {held_out and held_out.best}")
        log = None
        if first:
            run.begin(settings.to_json(), facts, {
                "kind": "pretraining", "tokens": store.tokens, "processes": processes.count,
                "versions": versions(model.backend),
            })  # fmt: skip
            log = stack.enter_context(Log(
                session, settings.steps, effective=settings.effective(), resumed=resumed and before < settings.steps,
                scores=lambda: read_metrics(run.dev_scores), kind=settings.length, advice=settings.shorter,
                on_update=on_update, say=say,
            ))  # fmt: skip
        if first and held_out is not None:
            held_out.begin(before, say)
            stack.callback(held_out.close)
        if on_begin is not None:
            on_begin(model, before)

        def after(update: Update) -> None:
            if log is not None:
                log.add(update)
            if held_out is not None:
                held_out.after(update.step + 1, model)

        done = session.train(
            settings.steps, rate=settings.rate, seed=settings.seed, processes=processes, on_update=after, stop=stop,
            saving=session.saving(settings.keep, spare=held_out.spare if held_out else tuple),
        )  # fmt: skip
        if first and done >= settings.steps:
            run.check()
            model.save(run.path, overwrite=True)
        if first and held_out is not None:
            held_out.tell(finished=done >= settings.steps)
    return Result(done, settings.steps, run.path)


def _prepare(run: RunDirectory, settings: Settings, say: Callable[[str], object]) -> None:
    """Tokenizer and tokenized corpus, in the run's directory; raises `InputError` for text that cannot be read."""
    if not settings.files:
        raise InputError("no text: name at least one file")
    if "-" in settings.dev:
        raise InputError("the development text is a file, not stdin")
    files = _files(run, settings)
    # A mistake here should not cost the reading of the text.
    _config(settings, None)
    registry.create(settings.backend, dtype=settings.dtype, device=settings.device)
    if "-" in settings.files:
        _keep_stdin(run.stdin)
    if settings.tokenizer is None and settings.start_from is None:
        told = _reading(f"learning a vocabulary of {settings.vocab_size} pieces", files, say)
        sentences = (s for s in read_sentences(files, **settings.text(), progress=told) if s is not None)
        tokenizer = interruptible(lambda: train_wordpiece(sentences, size=settings.vocab_size, cased=settings.cased))
    else:
        where = settings.start_from if settings.tokenizer is None else settings.tokenizer
        assert where is not None
        tokenizer = _tokenizer(checkpoint.resolve(where), settings)
    with writing(run.tokenizer), atomic_directory(run.tokenizer) as partial:
        tokenizer.save(partial)
    _tokenize(run, settings, tokenizer, say)


def _files(run: RunDirectory, settings: Settings) -> list[str]:
    """The text's files, stdin's copy among them; raises `InputError` for one that is not there, or is no file."""
    for file in (*settings.files, *settings.dev):
        if file != "-" and not is_file(file):
            raise InputError(f"{file}: no such file")
    return [str(run.stdin) if file == "-" else file for file in settings.files]


def _tokenize(run: RunDirectory, settings: Settings, tokenizer: Tokenizer, say: Callable[[str], object]) -> None:
    def store(what: str, files: Sequence[str], place: Path, **how: Any) -> Store:
        told = _reading(f"tokenizing the {what}", files, say)
        return build_store(files, tokenizer, place, **settings.text(), **how, progress=told)

    with ExitStack() as stack:
        dev = stack.enter_context(store("development text", settings.dev, run.dev_data)) if settings.dev else None
        files = _files(run, settings)
        text = stack.enter_context(store("text", files, run.data, deduplicate=settings.deduplicate, held_out=dev))
        if settings.deduplicate is not None:
            of, too = text.sentences + text.left_out, " or are in the development text" if dev else ""
            say(f"{text.left_out:,} of {of:,} sentences are left out, as they stood before{too}")


def _check_data(run: RunDirectory, settings: Settings, say: Callable[[str], object]) -> None:
    """Tokenize the text again where what was made of it is damaged; what comes of it is compared later."""
    try:
        for place in (run.data, run.dev_data) if settings.dev else (run.data,):
            with Store.open(place) as store:
                store.check()
    except InputError as error:
        warn(f"{error}; the text is tokenized again", stacklevel=3)
        shutil.rmtree(place, ignore_errors=True)
        _tokenize(run, settings, _tokenizer(run.tokenizer, settings), say)


def _reading(what: str, files: Sequence[str], say: Callable[[str], object]) -> Callable[[int], object]:
    """Say what is being done now, and every `_TELL` seconds how far it is; the result is told of bytes read."""
    say(what)
    whole = sum(Path(file).stat().st_size for file in files)
    read, last = 0, time.monotonic()

    def add(count: int) -> None:
        nonlocal read, last
        read += count
        if time.monotonic() - last > _TELL:
            last = time.monotonic()
            say(f"{what}: {min(read, whole) / max(1, whole):.0%}")

    return add


def _keep_stdin(path: Path) -> None:
    """Copy what comes in, since it is read twice: for the vocabulary, and for the tokens."""
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("no text on stdin")
    with writing(path), atomic(path) as part, part.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        if not file.tell():
            raise InputError("no text on stdin")


def _tokenizer(directory: Path, settings: Settings) -> Tokenizer:
    return Tokenizer.from_directory(directory, profile=get_profile(settings.profile))


def _config(settings: Settings, vocab_size: int | None) -> BertConfig:
    """The sizes; raises `ConfigError` or `InputError` for a size that is not known or too short."""
    if settings.start_from is not None:
        config = BertConfig.from_directory(checkpoint.resolve(settings.start_from))
    elif is_file(settings.size, ConfigError):
        config = BertConfig.from_file(settings.size)
    elif settings.size.rsplit("/", 1)[-1] in PRESETS:
        config = preset(settings.size)
    else:
        raise ConfigError(f'size: "{settings.size}" is neither a configuration file nor a preset (such as bert-tiny)')
    if config.max_position_embeddings < settings.long_length:
        raise InputError(
            f"long_length is {settings.long_length}, but the model has {config.max_position_embeddings} positions"
        )
    if settings.dropout is not None:
        config = config.replace(hidden_dropout_prob=settings.dropout, attention_probs_dropout_prob=settings.dropout)
    if vocab_size is not None and settings.start_from is None:
        config = config.replace(vocab_size=vocab_size)
    return config


def _model(settings: Settings, tokenizer: Tokenizer, device: str | None) -> Model:
    config = _config(settings, tokenizer.vocab_size)
    heads = PRETRAINING if settings.next_sentence else ("masked_lm",)
    where: dict[str, Any] = {
        "backend": settings.backend, "dtype": settings.dtype, "device": device, "profile": settings.profile,
        "heads": heads, "seed": settings.seed,
    }  # fmt: skip
    if settings.start_from is None:
        model = from_config(config, pooler=settings.next_sentence, **where)
    else:
        model = load(settings.start_from, **where)
        if tokenizer.vocab_size > model.config.vocab_size:
            raise InputError(
                f"the tokenizer has {tokenizer.vocab_size} entries, {settings.start_from} {model.config.vocab_size}"
            )
        if settings.dropout is not None:
            model.config, model.choices = config, Choices.of(config, model.profile)
    model.tokenizer = tokenizer
    model.gradient_checkpointing = settings.gradient_checkpointing
    return model


# Of what is hidden from held-out text; not the run's own, so that runs with other seeds are asked the same.
_HIDDEN_SEED = 0


class HeldOut:
    """Scores of text that is not learned from, after every ``settings.score_every`` updates and at the end.

    The sequences are as long as those of the phase that the run is in, so that the scores can be laid beside the
    training loss. What is hidden is the same each time. Several processes share the batches. ``best``: the scoring with
    the lowest loss, of those at the longest length so far: (−length, loss, updates); its checkpoint stays. Raises
    `InputError` for text that gives no examples.
    """

    def __init__(
        self, run: RunDirectory, store: Store, tokenizer: Tokenizer, settings: Settings, processes: Processes
    ) -> None:
        self._run, self._settings, self._processes = run, settings, processes
        self._lines: Metrics | None = None
        self.best: tuple[int, float, int] | None = None
        self.fingerprint = store.fingerprint
        try:
            self._rows = Rows(store, tokenizer, settings.data(), seed=_HIDDEN_SEED)
        except InputError as error:
            raise InputError(f"{', '.join(settings.dev)}: {error}") from None

    def resume(self) -> None:
        """Find the best of the scorings whose checkpoints are there; there is none after the one to go on from."""
        for entry in read_metrics(self._run.dev_scores):
            if place_of(self._run.checkpoints, entry["step"]).is_dir():
                self._compare(entry["step"], entry.get("loss"))

    def begin(self, done: int, say: Callable[[str], object]) -> None:
        """Write to the run's directory, after the scores of the first ``done`` updates, and ``say`` what is written."""
        self._lines, self._say = Metrics(self._run.dev_scores, first=done + 1), say

    def spare(self) -> list[Path]:
        """Return the best scoring's checkpoint, which must stay."""
        return [] if self.best is None else [place_of(self._run.checkpoints, self.best[2])]

    def tell(self, *, finished: bool) -> None:
        """Say which scoring was best; once the run has ``finished``, copy its model to where it is looked for.

        Raises `CheckpointError` if the checkpoint is not whole, or the model cannot be written.
        """
        if self.best is None:
            return
        _, loss, step = self.best
        shown = place = place_of(self._run.checkpoints, step)
        if finished:
            shown = self._run.best
            try:
                with writing(shown, CheckpointError, then="; go on with --resume"):
                    export(place, shown)
            except Damaged as error:
                raise CheckpointError(f"{error}; delete it, and --resume takes the best of the others") from None
        self._say(f"the development text's loss was best at step {step:,}, {loss:.4g}: {shown}")

    def after(self, done: int, model: Model) -> None:
        """Score the model if a scoring is due after ``done`` updates."""
        if done % self._settings.score_every and done != self._settings.steps:
            return
        found = self.score(model, self._settings.length(done - 1))
        self._compare(done, found["loss"])
        if self._lines is not None:
            values = {name: value if math.isfinite(value) else None for name, value in found.items()}
            self._lines.write(json.dumps({"step": done, **values}) + "\n")
            shown = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in found.items())
            self._say(f"step {done:,}, development text: {shown}")

    def score(self, model: Model, length: int) -> dict[str, float]:
        """Return the scores at that length; all processes get the same."""
        sums = Sums()
        for number, (batch, labels) in enumerate(self._rows.once(length, self._settings.micro_batch)):
            if number % self._processes.count == self._processes.rank:
                sums.add(model, batch, labels)
        return Sums(*self._processes.sum_numbers(sums.numbers())).scores()

    def _compare(self, step: int, loss: float | None) -> None:
        if loss is not None and math.isfinite(loss):
            one = (-self._settings.length(step - 1), loss, step)
            self.best = one if self.best is None else min(self.best, one)

    def close(self) -> None:
        """Close the file."""
        if self._lines is not None:
            self._lines.close()
