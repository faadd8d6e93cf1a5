"""What a pretraining run is made of, and what may change when it goes on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refbert.config.profiles import get_profile
from refbert.errors import InputError, warn
from refbert.training.optimizer import Optimizer
from refbert.training.run import RunDirectory, agreed
from refbert.training.schedule import learning_rate
from refbert.training.typed import check_types

if TYPE_CHECKING:
    from refbert.data import Phase, Pretraining

RULES = ("bert_adam", "adamw", "lamb")


@dataclass(frozen=True)
class Settings:
    """What a pretraining run is made of; the defaults are the paper's where it has any.

    files, format, documents, column: the text, as `refbert.data.read_sentences` takes it. tokenizer: a directory with
    one; None: a vocabulary of ``vocab_size`` pieces is learned from the text. size: a preset or a configuration file;
    start_from: a checkpoint whose weights (and tokenizer) the run begins with instead of fresh ones.

    short_length, long_length: of the first 90 % and the last 10 % of the steps (A.2). warmup: updates (None: 1 % of the
    steps, as the paper's 10,000 of 1,000,000). optimizer: None: the profile's (bert_adam or adamw). examples: "google"
    or "dynamic" (`refbert.data.Pretraining`). mixed_precision: the dtype of forward and backward, where it is not the
    weights' (`refbert.training.precision`). micro_batch: the most sequences computed at once. gradient_checkpointing:
    layers keep only their input and run again in the backward (`refbert.spec.encoder`).

    dev: text that is scored every ``score_every`` updates and at the end, and not learned from. A checkpoint is written
    every ``save_every`` updates, and where that takes longer every ``save_minutes``; the last ``keep`` stay.

    Raises `InputError` for values out of range.
    """

    files: tuple[str, ...]
    steps: int
    format: str = "lines"
    documents: str = "blank-line"
    column: str | None = None
    tokenizer: str | None = None
    vocab_size: int = 8192
    cased: bool = False
    size: str = "bert-tiny"
    start_from: str | None = None
    profile: str = "google"
    backend: str = "numpy"
    dtype: str | None = None
    device: str | None = None
    mixed_precision: str | None = None
    batch_size: int = 256
    micro_batch: int = 32
    gradient_checkpointing: bool = False
    short_length: int = 128
    long_length: int = 512
    learning_rate: float = 1e-4
    warmup: int | None = None
    optimizer: str | None = None
    weight_decay: float = 0.01
    max_norm: float = 1.0
    dropout: float | None = None
    examples: str = "google"
    mask_rate: float = 0.15
    whole_word: bool = False
    next_sentence: bool = True
    short_sequence_probability: float = 0.1
    dupe_factor: int = 10
    seed: int = 0
    dev: tuple[str, ...] = ()
    score_every: int = 1000
    save_every: int = 1000
    save_minutes: float = 5.0
    keep: int = 3

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("files", "dev"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        get_profile(self.profile)
        for name in ("steps", "batch_size", "micro_batch", "save_every", "score_every", "keep", "vocab_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, not {getattr(self, name)}")
        for name in ("learning_rate", "max_norm", "save_minutes"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be a number above 0, not {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay must be 0 or more, not {self.weight_decay}")
        if self.warmup is not None and not 0 <= self.warmup <= self.steps:
            raise InputError(f"warmup must be from 0 to the {self.steps} steps, not {self.warmup}")
        if self.optimizer is not None and self.optimizer not in RULES:
            raise InputError(f'unknown optimizer "{self.optimizer}" (known: {", ".join(RULES)})')
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be in [0, 1), not {self.dropout}")
        if self.long_length < self.short_length:
            raise InputError(f"long_length {self.long_length} is below short_length {self.short_length}")
        if not 0 <= self.seed < 2**64:
            raise InputError(f"seed must be a whole number from 0 to 2^64 - 1, not {self.seed}")
        self.phases()
        self.data()

    @property
    def rule(self) -> str:
        """The optimizer's name."""
        return self.optimizer or ("adamw" if get_profile(self.profile).bias_correction else "bert_adam")

    @property
    def warmup_updates(self) -> int:
        """Of the learning rate."""
        return max(1, self.steps // 100) if self.warmup is None else self.warmup

    def rate(self, step: int) -> float:
        """The learning rate of an update (from 0)."""
        from_zero = get_profile(self.profile).schedule_from_zero
        return learning_rate(
            step, peak=self.learning_rate, warmup=self.warmup_updates, total=self.steps, from_zero=from_zero
        )

    def phases(self) -> tuple[Phase, ...]:
        """The two phases of A.2."""
        from refbert.data import Phase, paper_phases

        short, long = (Phase(1, length, self.batch_size) for length in (self.short_length, self.long_length))
        return paper_phases(self.steps, short=short, long=long)

    def data(self) -> Pretraining:
        """What decides the examples."""
        from refbert.data import Pretraining

        profile: Any = self.examples
        return Pretraining(
            profile=profile,
            rate=self.mask_rate,
            whole_word=self.whole_word,
            next_sentence=self.next_sentence,
            short_sequence_probability=self.short_sequence_probability,
            dupe_factor=self.dupe_factor,
        )

    def new_optimizer(self) -> Optimizer:
        """The optimizer before the first update."""
        epsilon = get_profile(self.profile).clip_epsilon
        return Optimizer(rule=self.rule, weight_decay=self.weight_decay, max_norm=self.max_norm, clip_epsilon=epsilon)

    def length(self, step: int) -> int:
        """Tokens in the sequences of an update (from 0)."""
        for phase in self.phases():
            if step < phase.steps:
                break
            step -= phase.steps
        return phase.length

    def shorter(self, length: int, padding: float) -> str:
        """What to do about batches of that length of which so much is padding."""
        option = "--long-length" if length == self.long_length != self.short_length else "--short-length"
        return (
            f"of {length} tokens a sequence fills {(1 - padding) * length:.0f} on average, as the documents are short; "
            f"a smaller {option} costs less, and documents that belong together can be joined"
        )

    def effective(self) -> dict[str, Any]:
        """What settings that were left open came to."""
        return {
            "tokenizer": self.tokenizer or self.start_from or f"learned, at most {self.vocab_size:,} pieces",
            "warmup": self.warmup_updates, "optimizer": self.rule,
            "phases": [f"{phase.steps:,} updates of {phase.length} tokens" for phase in self.phases()],
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """As run.json holds them."""
        return dataclasses.asdict(self) | {"files": list(self.files), "dev": list(self.dev)}


# What may change when a run goes on: where it is computed and what is kept of it. Weights then agree up to rounding
# (bit by bit, if it is the directory alone that the change concerns).
_ROUNDS_OTHERWISE = ("backend", "dtype", "device", "mixed_precision", "micro_batch", "gradient_checkpointing")
FREE = frozenset({*_ROUNDS_OTHERWISE, "score_every", "save_every", "save_minutes", "keep"})


def resumed_settings(directory: str | Path, given: Mapping[str, Any]) -> Settings:
    """The settings of the run in ``directory``, with what may change taken from ``given``.

    Raises `InputError` that names a setting which differs and may not; warns where the rounding will be another.
    """
    run = RunDirectory(directory)
    recorded = run.read()["settings"]
    chosen = agreed(recorded, given, free=FREE, where=run.path)
    changed = [name for name in _ROUNDS_OTHERWISE if chosen.get(name) != recorded.get(name)]
    if changed:
        warn(
            f"{run.path}: going on with another {', '.join(changed)}: the weights will differ by rounding from those "
            "of a run that was not stopped",
            stacklevel=2,
        )
    return run.settings(Settings, chosen)
