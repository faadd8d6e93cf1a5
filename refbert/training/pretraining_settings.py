"""The settings of a pretraining run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from refbert.config.profiles import PROFILES, get_profile
from refbert.data import Phase, Pretraining, paper_phases
from refbert.data.settings import phase_at
from refbert.errors import InputError
from refbert.training.schedule import learning_rate
from refbert.training.settings import TrainingSettings, setting


@dataclass(frozen=True, kw_only=True)
class Settings(TrainingSettings):
    """The settings of a pretraining run; the defaults are the paper's where it has any.

    files, format, documents, column: the text, as `refbert.data.read_sentences` takes it. tokenizer: None: a vocabulary
    is learned from the text. short_length, long_length: of the first 90 % and the last 10 % of the steps (A.2). warmup:
    None: 1 % of the steps, as the paper's 10,000 of 1,000,000. examples: see `refbert.data.Pretraining`. dev: scored
    also at the end.

    Raises `InputError` for values out of range.
    """

    files: tuple[str, ...] = setting(path=True)
    format: str = setting(
        "lines", "One sentence per line; running text; Parquet or Arrow.", choices=("lines", "raw", "parquet")
    )
    documents: str = setting("blank-line", "What ends a document.", choices=("blank-line", "file"))
    column: str | None = setting(None, "The column of a Parquet file.")
    tokenizer: str | None = setting(None, "Use this tokenizer instead of learning a vocabulary.", metavar="DIR")
    vocab_size: int = setting(8192, "Pieces to learn, at most.", least=1)
    cased: bool = setting(False, "Keep capitals and accents in the vocabulary.")
    size: str = setting("bert-tiny", "A preset or a configuration file.")
    start_from: str | None = setting(
        None, "Begin with a checkpoint's weights and tokenizer.", name="from", metavar="DIR"
    )
    profile: str = setting(
        "google", "Whose numbers, where Google's and Hugging Face's differ.", choices=tuple(PROFILES)
    )
    steps: int = setting(help="Updates in all.", least=1)
    batch_size: int = setting(256, "Sequences per update.", least=1)
    micro_batch: int = setting(32, "Sequences computed at once.", least=1, free="rounding")
    short_length: int = setting(128, "Tokens, first 90 % of steps.", least=1)
    long_length: int = setting(512, "Tokens, last 10 % of steps.", least=1)
    learning_rate: float = setting(1e-4, "At the end of the warmup.", above=0)
    warmup: int | None = setting(None, "Updates; default: 1 % of the steps.", least=0)
    examples: str = setting(
        "google", "Ten fixed versions of the text, or a new one each round.", choices=("google", "dynamic")
    )
    mask_rate: float = setting(0.15, "Share of tokens to predict.")
    whole_word: bool = setting(False, "Mask whole words.")
    next_sentence: bool = setting(True, "Does the second sentence follow? The paper's second objective.")
    random_within: int | None = setting(
        None, "Random next sentences from so many documents around; default: from any.", least=1
    )
    weights: tuple[float, ...] | None = setting(
        None, "How often a round shows the documents of each FILE, in order; 0.5: half of them. Default: once.", above=0
    )
    short_sequence_probability: float = setting(0.1, "Share of examples of a random length below the limit.")
    dupe_factor: int = setting(10, "Versions under google.", least=1)
    deduplicate: str | None = setting(
        None,
        "Leave out sentences that stood before, and those of the --dev text; takes up to 16 bytes of memory for each.",
        choices=("sentences",),
    )
    dev: tuple[str, ...] = setting(
        (), "Text that is scored, not learned from; the model that scores best is kept.", metavar="FILE", path=True
    )
    score_every: int = setting(1000, "Updates between scorings.", least=1, free="bit by bit")
    save_every: int = setting(1000, "Updates between checkpoints.", least=1, free="bit by bit")
    keep: int = setting(3, "Checkpoints to keep.", least=1, free="bit by bit")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup is not None and self.warmup > self.steps:
            raise InputError(f"warmup must be from 0 to the {self.steps} steps, not {self.warmup}")
        if self.long_length < self.short_length:
            raise InputError(f"long_length {self.long_length} is below short_length {self.short_length}")
        if self.weights is not None and len(self.weights) != len(self.files):
            raise InputError(f"weights: {len(self.weights)}, files: {len(self.files)}; each file has one")
        self.phases()
        self.data()

    def text(self) -> dict[str, Any]:
        """Return how the text is read, as arguments of `refbert.data.read_sentences`."""
        return {"format": self.format, "documents": self.documents, "column": self.column}

    @property
    def warmup_updates(self) -> int:
        """How many updates the learning rate rises for."""
        return max(1, self.steps // 100) if self.warmup is None else self.warmup

    def rate(self, step: int) -> float:
        """Return the learning rate of an update (from 0)."""
        from_zero = get_profile(self.profile).schedule_from_zero
        return learning_rate(
            step, peak=self.learning_rate, warmup=self.warmup_updates, total=self.steps, from_zero=from_zero
        )

    def phases(self) -> tuple[Phase, ...]:
        """Return the two phases of A.2."""
        short, long = (Phase(1, length, self.batch_size) for length in (self.short_length, self.long_length))
        return paper_phases(self.steps, short=short, long=long)

    def data(self) -> Pretraining:
        """Return the settings of the examples."""
        profile: Any = self.examples
        same = ("whole_word", "next_sentence", "random_within", "weights", "short_sequence_probability", "dupe_factor")
        return Pretraining(profile=profile, rate=self.mask_rate, **{name: getattr(self, name) for name in same})

    def length(self, step: int) -> int:
        """Return the sequence length of an update (from 0)."""
        phases = self.phases()
        return phases[phase_at(phases, step)].length

    def shorter(self, length: int, padding: float) -> str:
        """Advise what to do about batches of that length of which so much is padding."""
        option = "--long-length" if length == self.long_length != self.short_length else "--short-length"
        return (
            f"of {length} tokens a sequence fills {(1 - padding) * length:.0f} on average, as the documents are short; "
            f"a smaller {option} costs less, and documents that belong together can be joined"
        )

    def effective(self) -> dict[str, Any]:
        """Return the values of settings that were left open."""
        return {
            "tokenizer": self.tokenizer or self.start_from or f"learned, at most {self.vocab_size:,} pieces",
            "warmup": self.warmup_updates,
            "phases": [f"{phase.steps:,} updates of {phase.length} tokens" for phase in self.phases()],
        }  # fmt: skip
