"""The examples of a tokenized corpus as rows of numbers, and such rows as batches with their labels.

Every example is drawn under a key of its own: (seed, length, version, document, number). Which other examples share its
batch changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from refbert.backend import Host
from refbert.data.draws import Draws, generator
from refbert.data.masking import mask_batch
from refbert.data.pairs import examples
from refbert.data.settings import Pretraining
from refbert.data.store import Store, continues, tokenizer_fingerprint
from refbert.errors import InputError
from refbert.text.batching import Batch
from refbert.text.tokenization import Tokenizer

# (version, document, number in it, and the Example's five)
Row = tuple[int, ...]

_TOGETHER = 256  # documents of which the longest examples come first, where each is wanted once


class Rows:
    """The examples of a store under one seed.

    Raises `InputError` for a store made by another tokenizer, and for one document where random next sentences are
    wanted.
    """

    def __init__(self, store: Store, tokenizer: Tokenizer, settings: Pretraining, *, seed: int) -> None:
        self.store, self.settings, self.seed = store, settings, seed
        if store.tokenizer != tokenizer_fingerprint(tokenizer):
            raise InputError(f"{store.directory}: made with another tokenizer; build it again with this one")
        if settings.next_sentence and store.documents == 1:
            raise InputError(
                "the corpus is one document, so there is no other to take random next sentences from: put blank lines "
                "between documents, or train without next-sentence prediction"
            )
        self._cls, self._sep = tokenizer.cls_id, tokenizer.sep_id
        self._pad, self._mask = tokenizer.pad_id, tokenizer.mask_id
        self._continues = continues(tokenizer)

    def of(self, document: int, length: int, version: int) -> list[Row]:
        """Make the document's examples for sequences of up to ``length`` tokens, in one version of the corpus."""
        draws = Draws("pairs", self.seed, length, version, document)
        found = examples(self.store, document, length, self.settings, draws)
        return [(version, document, number, *example) for number, example in enumerate(found)]

    def batch(self, rows: npt.NDArray[np.int64], S: int) -> tuple[Batch, dict[str, Host]]:
        """Make a batch [B, S] of rows [B, 8], with "labels" [B, S] and "next_sentence_label" [B]."""
        B = len(rows)
        ids = np.full((B, S), self._pad)
        types = np.zeros_like(ids)
        special = np.ones((B, S), dtype=np.bool_)
        lengths = np.empty(B, dtype=np.int64)
        draws = np.empty((B, 3, S))
        for row, (version, document, number, a_start, a_stop, b_start, b_stop, _) in enumerate(rows.tolist()):
            draws[row] = generator("masks", self.seed, S, version, document, number).random((3, S))
            end = 1 + a_stop - a_start  # of A
            ids[row, 0], ids[row, 1:end], ids[row, end] = self._cls, self.store.ids(a_start, a_stop), self._sep
            special[row, 1:end] = False
            n = end + 1
            if self.settings.next_sentence:
                begin, n = n, n + b_stop - b_start + 1
                ids[row, begin : n - 1], ids[row, n - 1] = self.store.ids(b_start, b_stop), self._sep
                special[row, begin : n - 1] = False
                types[row, begin:n] = 1
            lengths[row] = n
        corrupted, labels = mask_batch(
            ids, special, lengths, draws, self.settings, mask_id=self._mask, continues=self._continues
        )
        batch = Batch(corrupted, types, (np.arange(S) < lengths[:, None]).astype(np.int64))
        out: dict[str, Host] = {"labels": labels}
        if self.settings.next_sentence:
            out["next_sentence_label"] = rows[:, -1].copy()
        return batch, out

    def once(
        self, length: int, batch_size: int, *, progress: Callable[[int], object] | None = None
    ) -> Iterator[tuple[Batch, dict[str, Host]]]:
        """Yield every example of the first version once, in batches as long as their longest.

        ``progress`` is told how many documents are done.
        """
        for first in range(0, self.store.documents, _TOGETHER):
            documents = range(first, min(first + _TOGETHER, self.store.documents))
            rows = [row for document in documents for row in self.of(document, length, 0)]
            rows.sort(key=lambda row: row[3] - row[4] + row[5] - row[6])  # the longest first
            for start in range(0, len(rows), batch_size):
                batch, labels = self.batch(np.array(rows[start : start + batch_size], dtype=np.int64), length)
                S = int(batch.lengths.max())
                kept = Batch(batch.input_ids[:, :S], batch.token_type_ids[:, :S], batch.attention_mask[:, :S])
                yield kept, labels | {"labels": labels["labels"][:, :S]}
            if progress is not None:
                progress(len(documents))
