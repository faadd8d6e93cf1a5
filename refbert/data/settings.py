"""The settings of pretraining examples: one frozen record, checked once.

Source   Devlin et al. 2019 §3.1, A.1, A.2, and the flags of Google's create_pretraining_data.py.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from refbert.errors import InputError

_MOST = 1_000_000  # showings in a round: with a count of documents, it is still a number of 64 bits


@dataclass(frozen=True)
class Pretraining:
    """Settings of the examples; the defaults are Google's.

    ``profile``: "google" makes ``dupe_factor`` different versions of the corpus and repeats them, as the original's
    files do; "dynamic" makes a new one every round. ``rate``: the share of tokens to predict, of which at most
    ``max_predictions`` (None: rate · length, rounded up: 20 of 128, 77 of 512). ``masking``: "budget" hides that many,
    "independent" tosses for each token (Hugging Face's collator; no maximum). ``whole_word``: all pieces of a word or
    none. ``short_sequence_probability``: how often a document is packed into pairs of some shorter length.
    ``next_sentence``: pairs, half of them random; without it one segment. ``random_within``: a random second part is of
    one of so many documents before or behind (None: of any). ``weights``: how often a round shows each file's documents
    (None: once; see `refbert.data.mixing`). Raises `InputError` for values out of range.
    """

    profile: Literal["google", "dynamic"] = "google"
    rate: float = 0.15
    max_predictions: int | None = None
    masking: Literal["budget", "independent"] = "budget"
    whole_word: bool = False
    short_sequence_probability: float = 0.1
    next_sentence: bool = True
    dupe_factor: int = 10
    random_within: int | None = None
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name, choices in (("profile", ("google", "dynamic")), ("masking", ("budget", "independent"))):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} must be {' or '.join(choices)}, not {getattr(self, name)!r}")
        for name in ("rate", "short_sequence_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be from 0 to 1, not {getattr(self, name)}")
        if self.dupe_factor < 1:
            raise InputError(f"dupe_factor must be 1 or more, not {self.dupe_factor}")
        for name in ("max_predictions", "random_within"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be 1 or more, not {value}")
        for weight in self.weights or ():
            if not 0 < weight <= _MOST:
                raise InputError(f"weights must be above 0, at most {_MOST:,}, not {weight}")

    @property
    def specials(self) -> int:
        """[CLS] A [SEP] B [SEP], or [CLS] A [SEP]."""
        return 3 if self.next_sentence else 2

    def most_predictions(self, length: int) -> int:
        """``max_predictions`` at that sequence length."""
        if self.max_predictions is not None:
            return self.max_predictions
        return max(1, math.ceil(round(self.rate * length, 6)))  # rounded: 0.15 · 140 is a hair over 21

    def version(self, showing: int) -> int:
        """Which version of a document is shown when it has been shown ``showing`` times before."""
        return showing % self.dupe_factor if self.profile == "google" else showing


@dataclass(frozen=True)
class Phase:
    """``steps`` updates with batches of ``batch_size`` sequences of ``length`` tokens."""

    steps: int
    length: int
    batch_size: int

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise InputError(
                f"a phase needs at least one step and one sequence, not {self.steps} and {self.batch_size}"
            )
        if self.length < 5:  # [CLS] A [SEP] B [SEP]
            raise InputError(f"sequences must be at least 5 tokens long, not {self.length}")


def phase_at(phases: Sequence[Phase], step: int) -> int:
    """Return the number of the phase that update ``step`` (from 0) belongs to; the last goes on for ever."""
    return bisect_right(list(accumulate(phase.steps for phase in phases[:-1])), step)


def paper_phases(steps: int, *, short: Phase, long: Phase) -> tuple[Phase, ...]:
    """A.2: "90% of the steps" at the short length, "the rest 10%" at the long one; ``steps`` of the two are ignored."""
    first = max(1, round(steps * 0.9))
    if steps - first < 1:
        return (Phase(steps, short.length, short.batch_size),)
    return Phase(first, short.length, short.batch_size), Phase(steps - first, long.length, long.batch_size)
