"""What counting alone predicts at a masked position: the scale on which the model's figures mean something.

    unigram   p(w) = (c(w) + 1) / (N + V)
    trigram   the mean of three estimates, from (two before), (one before, one after) and (two after):

                  p(w | context) = (c(context, w) + t · q(w)) / (c(context) + t)          Witten and Bell 1991

              t: how many different words the context was seen with. q: for (two before) the same estimate from the one
              word before, for (two after) from the one after, for the middle the mean of these; below them the unigram.

The trigram sees what the model sees: the corrupted text. [MASK] was never counted, so a masked neighbour says nothing
and the estimate falls back; a random word misleads it as it does the model. Special tokens are one boundary symbol,
which is also put twice around every document that is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


class Unigram:
    """Word frequencies of documents of ids below ``vocabulary``."""

    def __init__(self, documents: Iterable[Ids], vocabulary: int) -> None:
        counts = np.zeros(vocabulary, dtype=np.int64)
        for ids in documents:
            counts += np.bincount(ids, minlength=vocabulary)
        self.p: Probabilities = (counts + 1) / (counts.sum() + vocabulary)


class Trigram:
    """Word counts in five contexts of one or two neighbours; ``boundary`` is an id that no text has."""

    def __init__(self, documents: Sequence[Ids], vocabulary: int, boundary: int) -> None:
        self.vocabulary, self.boundary = vocabulary, boundary
        self.unigram = Unigram(documents, vocabulary)
        edge = np.full(2, boundary)
        text = np.concatenate([edge, *(part for ids in documents for part in (ids, edge))])
        at = np.flatnonzero(text != boundary)
        self._tables = [_Table(keys, text[at], vocabulary) for keys in self._contexts(text, at)]

    def __call__(self, ids: Ids, position: int, special: npt.NDArray[np.bool_]) -> Probabilities:
        """[V]: the distribution at ``position`` of a row [S] of corrupted ids; ``special`` [S]: no text there."""
        text = np.where(special, self.boundary, ids)
        text = np.concatenate([np.full(2, self.boundary), text, np.full(2, self.boundary)])
        keys = [int(key[0]) for key in self._contexts(text, np.array([position + 2]))]
        before, after = (self._tables[i].smoothed(keys[i], self.unigram.p) for i in (0, 1))
        backoffs = (before, (before + after) / 2, after)
        estimates = [self._tables[2 + i].smoothed(keys[2 + i], backoff) for i, backoff in enumerate(backoffs)]
        return np.asarray(sum(estimates) / len(estimates))

    def _contexts(self, text: Ids, at: Ids) -> tuple[Ids, ...]:
        """One before; one after; two before; one on each side; two after: each context as one number."""
        a, b, c, d = (text[at + shift].astype(np.int64) for shift in (-2, -1, 1, 2))
        return b, c, a * self.vocabulary + b, b * self.vocabulary + c, c * self.vocabulary + d


class _Table:
    """How often each word was seen in each context: sorted, so that a context's words lie together."""

    def __init__(self, contexts: Ids, words: Ids, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._seen, self._counts = np.unique(contexts * vocabulary + words, return_counts=True)

    def smoothed(self, context: int, backoff: Probabilities) -> Probabilities:
        first, last = np.searchsorted(self._seen, (context * self._vocabulary, (context + 1) * self._vocabulary))
        if first == last:
            return backoff
        counts = self._counts[first:last]
        out = backoff * len(counts)
        out[self._seen[first:last] % self._vocabulary] += counts
        return np.asarray(out / (counts.sum() + len(counts)))
