"""Which documents a round shows where a corpus is of several files, each with a weight: how often it is shown.

The documents of a file come one after the other, again and again; a round shows the next weight · n of its n. So 1 is
each once, 0.5 one half and in the next round the other, 2.5 each twice and every other a third time; and however many
rounds there were, of two documents of a file none has been shown twice more often than the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from refbert.data.draws import Permutation
from refbert.errors import InputError

Array = npt.NDArray[np.int64]


class Mixture:
    """What a round shows, of files of so many ``documents`` each.

    Raises `InputError` if there is not a weight for each, or they show less than a document a round.
    """

    def __init__(self, documents: Sequence[int], weights: Sequence[float], *, seed: int) -> None:
        if len(weights) != len(documents):
            raise InputError(f"weights: {len(weights)}, files: {len(documents)}; each file has one")
        self._documents = np.array(documents, dtype=np.int64)
        self._first = np.cumsum(self._documents) - self._documents
        self._weights = [Fraction(str(weight)) for weight in weights]  # as written: 0.1 is a tenth
        self._seed = seed
        self._round = lru_cache(maxsize=2)(self._count)
        if sum(weight * n for weight, n in zip(self._weights, documents, strict=True)) < 1:
            raise InputError("the weights show less than one document a round; make them larger")

    def size(self, round_number: int) -> int:
        """How many documents a round shows, each as often as it is shown."""
        return int(self._round(round_number)[1][-1])

    def __call__(self, entries: Array, phase: int, round_number: int) -> tuple[Array, Array]:
        """(document, how often it was shown before) of entries of the round, 0 … size − 1, in the files' order."""
        begins, ends = self._round(round_number)
        file = np.searchsorted(ends, entries, side="right")
        shown = begins[file] + entries - np.concatenate([[0], ends])[file]
        before, within = np.divmod(shown, self._documents[file])
        for one in np.unique(file).tolist():
            if self._weights[one].denominator != 1:  # which half comes first is drawn, not the file's first
                here = file == one
                within[here] = Permutation(int(self._documents[one]), self._seed, phase, "file", one)(within[here])
        return self._first[file] + within, before

    def _count(self, round_number: int) -> tuple[Array, Array]:
        """Of each file: how many were shown before the round, and where its entries end in the round."""
        shares = [weight * n for weight, n in zip(self._weights, self._documents.tolist(), strict=True)]
        begins, ends = ([share * r // 1 for share in shares] for r in (round_number, round_number + 1))
        before = np.array(begins, dtype=np.int64)
        return before, np.cumsum(np.array(ends, dtype=np.int64) - before)
