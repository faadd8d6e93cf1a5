"""Stream batches of a tokenized corpus, or of labelled examples: what comes next depends on a short position alone.

A round shows every document once (or as often as its file's weight says, `refbert.data.mixing`), in an order drawn for
that round, over the borders of files. Its documents are taken in chunks; a chunk's examples are shuffled among
themselves. The position is (step, phase, round, chunk, offset): to resume, the chunk's spans are made again (no text is
read for that) and ``offset`` of them are skipped.

Every example is drawn under a key of its own (`refbert.data.rows`). Under the google profile it comes back with the
same masks once its document has been shown dupe_factor times, in another order, as when the original's files are read
again and shuffled.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from refbert.backend import Host
from refbert.data.draws import Permutation, generator
from refbert.data.features import Feature, collate
from refbert.data.mixing import Mixture
from refbert.data.rows import Rows
from refbert.data.settings import Phase, Pretraining, phase_at
from refbert.data.store import Store
from refbert.errors import InputError
from refbert.files.digests import digest
from refbert.text.batching import Batch
from refbert.text.tokenization import Tokenizer

CHUNK = 256  # documents

_VERSION = 1  # of the order and the draws: a change that gives other batches for the same seed raises it
# Settings that came later are not in the fingerprint until they say something: a run of before them goes on.
_LATER = ("random_within", "weights")
_POSITION = ("step", "phase", "round", "chunk", "offset")


class PretrainingSource:
    """A `refbert.training.loop.Source` of masked-LM and next-sentence batches.

    ``phases`` follow each other; the last goes on for as long as it is asked. Each phase begins a round of its own.
    Raises `InputError` for a store made by another tokenizer, for one document where random next sentences are wanted,
    for a corpus that gives fewer examples than a batch holds, and for weights that are not those of its files.
    """

    def __init__(
        self, store: Store, tokenizer: Tokenizer, *, seed: int, phases: Sequence[Phase],
        settings: Pretraining | None = None,
    ) -> None:  # fmt: skip
        self.store, self.seed, self.phases = store, seed, tuple(phases)
        self.settings = settings = settings or Pretraining()
        if not self.phases:
            raise InputError("at least one phase is needed")
        self._rows_of = Rows(store, tokenizer, settings, seed=seed)
        files, weights = ([store.documents], [1.0]) if settings.weights is None else (store.files, settings.weights)
        self._mixture = Mixture(files, weights, seed=seed)
        self._step = self._phase = self._round = self._chunk = self._offset = 0
        self._made: tuple[tuple[int, int, int], npt.NDArray[np.int64]] | None = None
        for phase in self.phases:
            self._check_enough(phase)
        decides = [
            _VERSION,
            CHUNK,
            store.fingerprint,
            store.tokenizer,
            seed,
            {k: v for k, v in dataclasses.asdict(settings).items() if k not in _LATER or v is not None},
            # How long the last phase lasts does not change what comes: a run may go on for longer.
            [p.steps for p in self.phases[:-1]],
            [(p.length, p.batch_size) for p in self.phases],
            *([] if settings.weights is None else [files]),
        ]
        self.fingerprint = digest([json.dumps(decides)])

    def next(self, step: int) -> tuple[Batch, dict[str, Host]]:
        """The batch of the update ``step``, [B, S], and "labels" [B, S] and "next_sentence_label" [B].

        Raises ValueError for a step out of order.
        """
        if step != self._step:
            raise ValueError(f"batches come in order: step {self._step} is next, not {step}")
        phase = phase_at(self.phases, step)
        if phase != self._phase:
            self._phase, self._round, self._chunk, self._offset = phase, 0, 0, 0
        B = self.phases[phase].batch_size
        parts: list[npt.NDArray[np.int64]] = []
        missing = B
        while missing:
            rows = self._rows()[self._offset : self._offset + missing]
            parts.append(rows)
            missing -= len(rows)
            self._offset += len(rows)
            if missing:
                self._turn()
        self._step += 1
        return self._rows_of.batch(np.concatenate(parts), self.phases[phase].length)

    def state(self) -> dict[str, Any]:
        """Return the position, as JSON."""
        return {name: getattr(self, f"_{name}") for name in _POSITION}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue at a position; raises `InputError` if it is not one."""
        values = [state.get(name) for name in _POSITION]
        if not all(isinstance(value, int) and value >= 0 for value in values) or state["phase"] >= len(self.phases):
            raise InputError("the checkpoint's place in the data is damaged")
        for name, value in zip(_POSITION, values, strict=True):
            setattr(self, f"_{name}", value)

    def _turn(self) -> None:
        """To the next chunk, or round."""
        self._chunk, self._offset = self._chunk + 1, 0
        if self._chunk * CHUNK >= self._mixture.size(self._round):
            self._round, self._chunk = self._round + 1, 0

    def _rows(self) -> npt.NDArray[np.int64]:
        """The chunk at the position: [n, 8] of version, document, number in it, and the `Example`'s five; shuffled."""
        here = (self._phase, self._round, self._chunk)
        if self._made is None or self._made[0] != here:
            self._made = (here, self._make(self.phases[self._phase].length, *here))
        return self._made[1]

    def _make(self, length: int, phase: int, round_number: int, chunk: int) -> npt.NDArray[np.int64]:
        size = self._mixture.size(round_number)
        order = Permutation(size, self.seed, phase, round_number)
        entries = order(np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, size)))
        documents, before = self._mixture(entries, phase, round_number)
        rows = [
            row
            for document, showing in zip(documents.tolist(), before.tolist(), strict=True)
            for row in self._rows_of.of(document, length, self.settings.version(showing))
        ]
        shuffle = np.argsort(generator("shuffle", self.seed, phase, round_number, chunk).random(len(rows)))
        return np.array(rows, dtype=np.int64).reshape(-1, 8)[shuffle]  # a round of small weights may be empty

    def _check_enough(self, phase: Phase) -> None:
        """Fewer examples than a batch would show one text twice in it; every document gives at least one."""
        if self.store.documents >= phase.batch_size:
            return
        found = sum(len(self._rows_of.of(document, phase.length, 0)) for document in range(self.store.documents))
        if found < phase.batch_size:
            raise InputError(
                f"the corpus gives {found} examples of up to {phase.length} tokens, fewer than a batch of "
                f"{phase.batch_size}: add text, or make the batch smaller"
            )


class Epochs:
    """A `refbert.training.loop.Source` of labelled examples: each once an epoch, in an order drawn anew for each.

    A batch depends on the seed and the step alone. The last batch of an epoch holds what is left and may be smaller.
    Batches are padded to their longest row.
    """

    def __init__(self, features: Sequence[Feature], tokenizer: Tokenizer, *, batch_size: int, seed: int) -> None:
        if not features:
            raise InputError("no examples to learn from")
        self._features, self._tokenizer = features, tokenizer
        self._batch_size, self._seed = batch_size, seed
        self._done = 0

    @property
    def updates(self) -> int:
        """Updates in an epoch."""
        return -(-len(self._features) // self._batch_size)

    def next(self, step: int) -> tuple[Batch, dict[str, Host]]:
        """Return the batch of an update and its labels."""
        epoch, number = divmod(step, self.updates)
        start = number * self._batch_size
        chosen = _order(self._seed, epoch, len(self._features))[start : start + self._batch_size]
        self._done = step + 1
        return collate([self._features[i] for i in chosen], self._tokenizer)

    def state(self) -> dict[str, Any]:
        """How many batches have been given; the rest follows from the seed."""
        return {"batches": self._done}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the count, which is all that there is."""
        self._done = state["batches"]


@lru_cache(maxsize=1)
def _order(seed: int, epoch: int, examples: int) -> list[int]:
    order: list[int] = generator("epoch", seed, epoch).permutation(examples).tolist()
    return order
