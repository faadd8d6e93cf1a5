"""What fine-tuning is made of: one run or a grid of them. Devlin et al. 2019 A.3."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refbert.config.profiles import Profile
from refbert.data.labelled import TASKS
from refbert.data.tables import Columns
from refbert.errors import InputError, warn
from refbert.evaluation.tasks import Limits
from refbert.tasks.answering import DOC_STRIDE
from refbert.training.optimizer import Optimizer
from refbert.training.run import RunDirectory, agreed
from refbert.training.schedule import learning_rate
from refbert.training.typed import check_types

_MOST_RUNS = 10_000
RULES = ("bert_adam", "adamw", "lamb")
# A.3: "the following range of possible values to work well across all tasks".
PAPER_GRID: Mapping[str, tuple[Any, ...]] = {
    "learning_rates": (5e-5, 3e-5, 2e-5), "batch_sizes": (16, 32), "epochs": (2, 3, 4)
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """One run: its learning rate, batch size, epochs and seed."""

    learning_rate: float
    batch_size: int
    epochs: int
    seed: int

    @property
    def name(self) -> str:
        """Its directory's name."""
        return f"rate{self.learning_rate!r}-batch{self.batch_size}-epochs{self.epochs}-seed{self.seed}"


@dataclass(frozen=True)
class Settings:
    """What fine-tuning is made of; the paper's A.3 where it says something.

    model: a checkpoint's directory or hub name. train, dev: files (`refbert.data.labelled`). learning_rates,
    batch_sizes, epochs: every combination is run, ``restarts`` times. metric: the score that decides (None: the task's,
    `refbert.evaluation.tasks.MAIN`). warmup_share: of the updates. optimizer: None: the profile's. max_length: tokens;
    what is longer is cut, or for answers read in windows ``doc_stride`` tokens apart (None: the model's positions; for
    answers at most 384). dropout: None: the configuration's. micro_batch: rows computed at once (None: all).
    mixed_precision: the dtype of forward and backward, where not the weights' (`refbert.training.precision`).
    gradient_checkpointing: layers keep only their input and run again in the backward (`refbert.spec.encoder`). A
    checkpoint is written every ``save_every`` updates, and where that takes longer every ``save_minutes``.

    Raises `InputError` for values out of range.
    """

    task: str
    model: str
    train: str
    dev: str | None = None
    format: str | None = None
    text_column: str = "text"
    pair_column: str | None = None
    label_column: str = "label"
    choice_columns: tuple[str, ...] = ("choices",)
    learning_rates: tuple[float, ...] = (5e-5,)
    batch_sizes: tuple[int, ...] = (32,)
    epochs: tuple[int, ...] = (3,)
    restarts: int = 1
    metric: str | None = None
    warmup_share: float = 0.1
    optimizer: str | None = None
    weight_decay: float = 0.01
    max_norm: float = 1.0
    dropout: float | None = None
    max_length: int | None = None
    doc_stride: int = DOC_STRIDE
    seed: int = 0
    profile: str | None = None
    backend: str = "numpy"
    dtype: str | None = None
    device: str | None = None
    mixed_precision: str | None = None
    micro_batch: int | None = None
    gradient_checkpointing: bool = False
    save_every: int = 500
    save_minutes: float = 5.0

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("choice_columns", "learning_rates", "batch_sizes", "epochs"):
            values = tuple(dict.fromkeys(getattr(self, name)))
            object.__setattr__(self, name, values)
            if not values:
                raise InputError(f"{name}: at least one is needed")
        if self.task not in TASKS:
            raise InputError(f'unknown task "{self.task}" (known: {", ".join(TASKS)})')
        for name, numbers in (
            ("batch size", self.batch_sizes), ("epochs", self.epochs), ("restarts", (self.restarts,)),
            ("save_every", (self.save_every,)), ("doc_stride", (self.doc_stride,)),
            ("micro_batch", (self.micro_batch or 1,)),
        ):  # fmt: skip
            if min(numbers) < 1:
                raise InputError(f"{name} must be 1 or more, not {min(numbers)}")
        for name, rates in (
            ("learning rate", self.learning_rates), ("max_norm", (self.max_norm,)),
            ("save_minutes", (self.save_minutes,)),
        ):  # fmt: skip
            wrong = [rate for rate in rates if not 0 < rate < math.inf]
            if wrong:
                raise InputError(f"{name} must be a number above 0, not {wrong[0]}")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay must be 0 or more, not {self.weight_decay}")
        if not 0 <= self.warmup_share <= 1:
            raise InputError(f"warmup_share must be from 0 to 1, not {self.warmup_share}")
        if self.optimizer is not None and self.optimizer not in RULES:
            raise InputError(f'unknown optimizer "{self.optimizer}" (known: {", ".join(RULES)})')
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be in [0, 1), not {self.dropout}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed must be a whole number from 0 to 2^63 - 1, not {self.seed}")
        runs = len(self.learning_rates) * len(self.batch_sizes) * len(self.epochs) * self.restarts
        if runs > _MOST_RUNS:
            raise InputError(f"{runs:,} runs: at most {_MOST_RUNS:,} can be compared")
        if self.dev is None and runs > 1:
            raise InputError(f"{runs} runs: name a --dev file, by which the best is chosen")

    @property
    def columns(self) -> Columns:
        """Which columns hold what."""
        return Columns(self.text_column, self.pair_column, self.label_column, self.choice_columns)

    def plans(self) -> list[Plan]:
        """The runs, in order."""
        grid = itertools.product(self.learning_rates, self.batch_sizes, self.epochs, range(self.restarts))
        return [Plan(rate, batch, epochs, self.seed + restart) for rate, batch, epochs, restart in grid]

    def rate(self, step: int, plan: Plan, *, steps: int, profile: Profile) -> float:
        """The learning rate of an update (from 0) of a run of that many."""
        warmup = int(steps * self.warmup_share)
        return learning_rate(
            step, peak=plan.learning_rate, warmup=warmup, total=steps, from_zero=profile.schedule_from_zero
        )

    def new_optimizer(self, profile: Profile) -> Optimizer:
        """The optimizer before the first update."""
        rule = self.optimizer or ("adamw" if profile.bias_correction else "bert_adam")
        return Optimizer(
            rule=rule, weight_decay=self.weight_decay, max_norm=self.max_norm, clip_epsilon=profile.clip_epsilon
        )

    def limits(self) -> Limits:
        """How texts are read when the development set is scored."""
        return Limits(max_length=self.max_length, doc_stride=self.doc_stride)

    def to_json(self) -> dict[str, Any]:
        """As run.json holds them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]


# What may change when fine-tuning goes on; weights then agree up to rounding.
_ROUNDS_OTHERWISE = ("backend", "dtype", "device", "mixed_precision", "micro_batch", "gradient_checkpointing")
FREE = frozenset({*_ROUNDS_OTHERWISE, "save_every", "save_minutes"})


def resumed_settings(directory: str | Path, given: Mapping[str, Any]) -> Settings:
    """The settings of what runs in ``directory``, with what may change taken from ``given``; raises `InputError`."""
    run = RunDirectory(directory)
    recorded = run.read()["settings"]
    chosen = agreed(recorded, json.loads(json.dumps(dict(given))), free=FREE, where=run.path)
    changed = [name for name in _ROUNDS_OTHERWISE if chosen.get(name) != recorded.get(name)]
    if changed:
        warn(
            f"{run.path}: going on with another {', '.join(sorted(changed))}: the weights will differ by rounding",
            stacklevel=2,
        )
    return run.settings(Settings, chosen)
