"""The settings of fine-tuning: one run or a grid of them. Devlin et al. 2019 A.3."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from refbert.config.profiles import PROFILES, Profile
from refbert.data.labelled import TASKS
from refbert.data.tables import Columns
from refbert.errors import InputError
from refbert.evaluation.tasks import Limits
from refbert.tasks.answering import DOC_STRIDE
from refbert.training.schedule import learning_rate
from refbert.training.settings import TrainingSettings, setting

_MOST_RUNS = 10_000
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
        """The name of its directory."""
        return f"rate{self.learning_rate!r}-batch{self.batch_size}-epochs{self.epochs}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Settings(TrainingSettings):
    """The settings of fine-tuning; the defaults are the paper's (A.3) where it has any.

    learning_rates, batch_sizes, epochs: every combination is run, ``restarts`` times. metric: None: the task's
    (`refbert.evaluation.tasks.MAIN`). max_length: tokens; what is longer is cut, or for answers read in windows
    ``doc_stride`` tokens apart (None: the model's positions; for answers at most 384).

    Raises `InputError` for values out of range.
    """

    SEED_BITS: ClassVar[int] = 63  # each restart has a seed of its own

    task: str = setting(help="What to learn.", choices=TASKS)
    model: str = setting(
        help="The checkpoint to begin with, or a hub name.", metavar="DIR", envvar="REFBERT_MODEL", path=True
    )
    train: str = setting(help="CSV, TSV or JSON lines; tag: CoNLL; answer: SQuAD's JSON.", metavar="FILE", path=True)
    dev: str | None = setting(
        None, "By its score the best epoch and the best run are chosen.", metavar="FILE", path=True
    )
    format: str | None = setting(None, "Default: by the file's ending.", choices=("csv", "tsv", "jsonl"))
    text_column: str = setting("text", "The text, or the first of two.")
    pair_column: str | None = setting(None, "The second text, where the task is about two.")
    label_column: str = setting("label", "The right answer.")
    choice_columns: tuple[str, ...] = setting(("choices",), "A list, or several columns: a,b,c.")
    learning_rates: tuple[float, ...] = setting((5e-5,), "Several make a grid.", name="learning_rate", above=0)
    batch_sizes: tuple[int, ...] = setting((32,), "Several make a grid.", name="batch_size", least=1)
    epochs: tuple[int, ...] = setting((3,), "Several make a grid.", least=1)
    restarts: int = setting(1, "Runs of each, with other seeds.", least=1)
    metric: str | None = setting(None, "The score that decides. [default: accuracy, spearman or f1, by task]")
    warmup_share: float = setting(0.1, "Of the updates.")
    max_length: int | None = setting(None, "Longer texts are cut. [default: the model's; answer: at most 384]", least=1)
    doc_stride: int = setting(DOC_STRIDE, "Tokens from window to window.", least=1)
    profile: str | None = setting(None, "Whose numbers. [default: the checkpoint's]", choices=tuple(PROFILES))
    micro_batch: int | None = setting(None, "Rows computed at once. [default: the batch]", least=1, free="rounding")
    save_every: int = setting(500, "Updates between checkpoints.", least=1, free="bit by bit")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("choice_columns", "learning_rates", "batch_sizes", "epochs"):
            values = tuple(dict.fromkeys(getattr(self, name)))
            object.__setattr__(self, name, values)
            if not values:
                raise InputError(f"{name}: at least one is needed")
        if not 0 <= self.warmup_share <= 1:
            raise InputError(f"warmup_share must be from 0 to 1, not {self.warmup_share}")
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
        """List the runs, in order."""
        grid = itertools.product(self.learning_rates, self.batch_sizes, self.epochs, range(self.restarts))
        return [Plan(rate, batch, epochs, self.seed + restart) for rate, batch, epochs, restart in grid]

    def rate(self, step: int, plan: Plan, *, steps: int, profile: Profile) -> float:
        """Return the learning rate of an update (from 0) of a run of ``steps``."""
        warmup = int(steps * self.warmup_share)
        return learning_rate(
            step, peak=plan.learning_rate, warmup=warmup, total=steps, from_zero=profile.schedule_from_zero
        )

    def limits(self) -> Limits:
        """Return how texts are read when the development set is scored."""
        return Limits(max_length=self.max_length, doc_stride=self.doc_stride)
