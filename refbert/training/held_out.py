"""Score a pretraining run on development text, which it does not learn from: DIR/dev.jsonl, one line a scoring.

The sequences are as long as those of the phase that the run is in, so that the scores can be laid beside the training
loss. What is hidden is the same each time (`refbert.evaluation.masked_lm`). Several processes share the batches.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

from refbert.data.rows import Rows
from refbert.data.store import Store
from refbert.errors import InputError
from refbert.evaluation.masked_lm import Sums
from refbert.model import Model
from refbert.text.tokenization import Tokenizer
from refbert.training.distributed import Processes
from refbert.training.metrics import Metrics
from refbert.training.pretraining_settings import Settings

# Of what is hidden; not the run's own, so that runs with other seeds are asked the same.
SEED = 0


class HeldOut:
    """Scores after every ``settings.score_every`` updates and at the end.

    Raises `InputError` for text that gives no examples.
    """

    def __init__(self, store: Store, tokenizer: Tokenizer, settings: Settings, processes: Processes) -> None:
        self._settings, self._processes = settings, processes
        self._lines: Metrics | None = None
        self.fingerprint = store.fingerprint
        try:
            self._rows = Rows(store, tokenizer, settings.data(), seed=SEED)
        except InputError as error:
            raise InputError(f"{', '.join(settings.dev)}: {error}") from None

    def begin(self, file: Path, done: int, say: Callable[[str], object]) -> None:
        """Write to ``file``, after the scores of the first ``done`` updates, and ``say`` what is written."""
        self._lines, self._say = Metrics(file, first=done + 1), say

    def after(self, done: int, model: Model) -> None:
        """Score the model if a scoring is due after ``done`` updates."""
        if done % self._settings.score_every and done != self._settings.steps:
            return
        found = self.score(model, self._settings.length(done - 1))
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

    def close(self) -> None:
        """Close the file."""
        if self._lines is not None:
            self._lines.close()
