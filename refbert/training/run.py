"""A run's directory: what is in it, which process owns it, and what a run that is resumed must agree on.

DIR/run.json        the settings and the versions of what computed
DIR/data/           the tokenized corpus, where the run made one
DIR/checkpoints/    see refbert.training.checkpoints
DIR/metrics.jsonl   one line for each update
DIR/dev-data/, dev.jsonl    text that is not learned from, and its scores
DIR/best/           the model whose score was best, once the run has finished
DIR/run.html        the run as a page
DIR/model.safetensors, config.json, tokenizer files       the model, once the run has finished
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from refbert.errors import CheckpointError, InputError, warn
from refbert.files.json import read_object, write_json
from refbert.files.reading import shown
from refbert.files.writing import clear_partial, clear_unfinished, writing
from refbert.training.checkpoints import saved, updates_of
from refbert.training.ownership import Claim

_VERSION = 2
Kind = TypeVar("Kind")
# How the names of facts that are digests end.
DIGESTED = (" data", " weights")


class RunDirectory:
    """A run's directory and the paths in it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.file = self.path / "run.json"
        self.data = self.path / "data"
        self.stdin = self.path / "stdin.txt"
        self.tokenizer = self.path / "tokenizer"
        self.partial_tokenizer = self.path / ".partial-tokenizer"
        self.checkpoints = self.path / "checkpoints"
        self.dev_data = self.path / "dev-data"
        self.best = self.path / "best"
        self.metrics = self.path / "metrics.jsonl"
        self.dev_scores = self.path / "dev.jsonl"
        self.page = self.path / "run.html"
        self._marker = self.path / ".preparing"
        # What a run makes before it begins, which is when run.json is written.
        self._prepared = (self.tokenizer, self.partial_tokenizer, self.data, self.dev_data, self.stdin)
        self._claim: Claim | None = None
        self._content: dict[str, Any] | None = None  # of run.json, once the run has begun

    def holds_run(self) -> bool:
        """Whether a run has begun here."""
        return self.file.is_file()

    def last(self) -> Path | None:
        """Return the last checkpoint, whole or damaged."""
        return next(reversed(saved(self.checkpoints)), None)

    def finished(self) -> bool:
        """Whether the model is there."""
        return (self.path / "model.safetensors").is_file()

    def refuse_what_is_there(self) -> None:
        """Raise `InputError` if there is a run or a model, so that nothing of it is overwritten."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: a file; name a directory for the run")
        if self.holds_run():
            content = self.read()
            done = max(map(updates_of, saved(self.checkpoints)), default=0)
            how = f"at step {done} of {content['settings'].get('steps')}"
            if content.get("kind") == "finetuning":
                if self.finished():
                    raise InputError(f"{self.path}: holds a fine-tuned model already; name another directory")
                how = "not done"
            raise InputError(f"{self.path}: holds a run that is {how}; go on with --resume, or name another directory")
        if self.finished() or (self.path / "config.json").is_file():
            raise InputError(f"{self.path}: holds a model already; name another directory for the run")
        in_the_way = (*self._prepared, self.checkpoints, self.best, self.path / "runs")
        there = [] if self._marker.exists() else [path.name for path in in_the_way if path.exists()]
        if there:
            raise InputError(f"{self.path}: holds {', '.join(there)}, but no run.json; name another directory")

    def begin(self, settings: Mapping[str, Any], facts: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        """Write run.json, or compare with the one of the run that goes on.

        facts: what must be the same when it goes on, whatever files it is read from; raises as `check_same` if it is
        not, and `InputError` if run.json cannot be written.
        """
        if self.holds_run():
            check_same(self.read()["facts"], facts, self.file)
            return
        content = {"format": _VERSION, "settings": dict(settings), "facts": dict(facts), **rest}
        write_json(self.file, content)
        self._content = content
        self._marker.unlink(missing_ok=True)

    def read(self) -> dict[str, Any]:
        """Read run.json; raises `InputError` if it cannot be read."""
        content = read_object(self.file)
        if content.get("format") != _VERSION:
            raise InputError(f"{self.file}: damaged, or written by another release of refbert")
        for name in ("settings", "facts"):
            if not isinstance(content.get(name), dict):
                raise InputError(f"{self.file}: damaged ({name} is {shown(content.get(name))})")
        resumes = content.setdefault("resumes", [])
        if not isinstance(resumes, list) or not all(isinstance(entry, dict) for entry in resumes):
            raise InputError(f"{self.file}: damaged (resumes is {shown(resumes)})")
        return content

    def settings(self, kind: type[Kind], values: Mapping[str, Any]) -> Kind:
        """Make settings of run.json's ``values``; raises `InputError`, with the file, for what are none."""
        try:
            return kind(**values)
        except TypeError:  # a name that is not known, or one that is missing
            raise InputError(f"{self.file}: of another kind of run, or of another release of refbert") from None
        except InputError as error:
            raise InputError(f"{self.file}: {error}") from None

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Own the directory inside the block; what was prepared is removed again if the run does not begin.

        A run that has begun is remembered: nothing of it is removed, whatever happens to its files meanwhile. Raises
        `InputError` if another run is going on, or the directory cannot be written.
        """
        self._claim = claim = Claim(self.path)
        try:
            if self.holds_run():
                self._content = self.read()
                self._marker.unlink(missing_ok=True)
                clear_partial(self.checkpoints)
            for file in (self.file, self.metrics, self.dev_scores, self.page):
                clear_unfinished(file)
            yield
            self.check()
        finally:
            if self._content is None and self._marker.exists():
                self._discard()
            self._claim = None
            claim.release(remove=self._content is None)

    def prepare(self) -> None:
        """Mark the directory as one that is being prepared, so that what a killed process leaves is known for that.

        What such a one has left goes. Raises `InputError` for files that are in the way, and are not such.
        """
        if self._marker.exists():
            self._discard()
        self.refuse_what_is_there()
        with writing(self.path):
            self._marker.touch()

    def note_resume(self, step: int, again: tuple[int, float], settings: Mapping[str, Any], **more: Any) -> None:
        """Record in run.json that the run is resumed, from where, and with which settings that have changed."""
        assert self._content is not None
        recorded = self._content["settings"]
        entry = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"), "step": step, "made_again": again[0],
            "changed": {name: value for name, value in settings.items() if value != recorded.get(name)}, **more,
        }  # fmt: skip
        self._content["resumes"] = [*self.resumes(), entry]
        write_json(self.file, self._content)

    def resumes(self) -> list[dict[str, Any]]:
        """List what `note_resume` recorded, oldest first."""
        return list((self._content or {}).get("resumes", ()))

    def check(self) -> None:
        """Raise `InputError` if the directory is no longer this run's; write run.json again if that was removed."""
        assert self._claim is not None
        self._claim.check()
        if self._content is not None and not self.file.exists():
            write_json(self.file, self._content)
            warn(f"{self.file}: had gone, and was written again", stacklevel=2)

    def _discard(self) -> None:
        """Remove what was made since `prepare`; when the marker was set, nothing of it was there."""
        for path in self._prepared:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        self._marker.unlink(missing_ok=True)


def versions(backend: Any) -> dict[str, str]:
    """Return the versions of what computes the run."""
    import refbert

    return {
        "refbert": refbert.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "library": str(backend.library),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def effective(model: Any) -> dict[str, Any]:
    """Return what settings that were left open came to, of any run."""
    c = model.config
    return {
        "profile": model.profile.name, "dtype": model.backend.dtype, "device": model.backend.device,
        "dropout": f"{c.hidden_dropout_prob:g} of the hidden, {c.attention_probs_dropout_prob:g} of the attention",
        "size": f"{c.num_hidden_layers} layers of {c.hidden_size}, {c.num_attention_heads} heads, vocabulary "
                f"{c.vocab_size:,}, {c.max_position_embeddings} positions",
        "parameters": f"{model.num_parameters:,}", "versions": [f"{k} {v}" for k, v in versions(model.backend).items()],
    }  # fmt: skip


def agreed(
    recorded: Mapping[str, Any], given: Mapping[str, Any], *, free: frozenset[str], where: Path
) -> dict[str, Any]:
    """Return the settings to resume with: the recorded ones, with those of ``given`` that are ``free`` to change.

    Raises `InputError` that names the first setting that is given, is not free, and differs.
    """
    out = dict(recorded)
    for name, value in given.items():
        if name in free:
            out[name] = value
        elif recorded.get(name) != value:
            raise InputError(
                f"{where}: this run has {name} = {_shown(recorded.get(name))}, not {_shown(value)}; leave it out to go "
                "on, or start another run in another directory"
            )
    return out


def check_same(recorded: Mapping[str, Any], now: Mapping[str, Any], where: Path) -> None:
    """Raise `CheckpointError` that names the first of ``now`` which ``where`` was not made with.

    A digest is named, and a record's first entry that differs shown.
    """
    for name, value in json.loads(json.dumps(now)).items():
        before = recorded.get(name)
        if before == value:
            continue
        if name.endswith(DIGESTED):
            raise CheckpointError(
                f"{where}: not the {name} that this run began with; put that back, or start another run in another "
                "directory"
            )
        if isinstance(value, dict) and isinstance(before, dict):
            name = next(key for key in {**value, **before} if value.get(key) != before.get(key))
            value, before = value.get(name), before.get(name)
        raise CheckpointError(f"{where}: of a run with {name} = {_shown(before)}, not {_shown(value)}")


def _shown(value: Any) -> str:
    return "none" if value is None else " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
