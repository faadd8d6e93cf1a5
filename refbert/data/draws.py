"""Random numbers that depend on a key alone, so that a run resumed anywhere draws what it would have drawn.

Keys are labels (seed, round, document, …). Nothing here depends on what was drawn before, and no state but the key has
to be stored.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from refbert.randomness import philox

_BLOCK = 64  # how many numbers `Draws` fetches at a time
_FEISTEL_ROUNDS = 8  # Luby and Rackoff 1988: four suffice for random round functions; ours are only mixing


def generator(*key: object) -> np.random.Generator:
    """Make a generator of `refbert.randomness.philox`."""
    return np.random.Generator(philox(*key))


class Draws:
    """One number at a time from `generator`, cheaply: they are fetched in blocks."""

    def __init__(self, *key: object) -> None:
        self._generator = generator(*key)
        self._left: list[float] = []

    def uniform(self) -> float:
        """Uniform in [0, 1)."""
        if not self._left:
            self._left = self._generator.random(_BLOCK).tolist()
        return self._left.pop()

    def between(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included, each as likely (Python's ``randint``)."""
        return low + int(self.uniform() * (high - low + 1))

    def heads(self, tosses: int) -> int:
        """How many of ``tosses`` fair coins show heads."""
        while len(self._left) < tosses:
            self._left += self._generator.random(max(_BLOCK, tosses)).tolist()
        taken, self._left = self._left[-tosses:] if tosses else [], self._left[: len(self._left) - tosses]
        return sum(u < 0.5 for u in taken)


class Permutation:
    """A permutation of 0 … n−1 computed entry by entry: no array of n is ever made.

    A Feistel network permutes the 4^k numbers that n fits in; what falls outside is sent through again until it falls
    inside ("cycle walking", Black and Rogaway 2002), on average less than four times. Entries differ pairwise because
    each step of the network can be undone.
    """

    def __init__(self, n: int, *key: object) -> None:
        self.n = n
        self._half = max(1, ((n - 1).bit_length() + 1) // 2)  # k: bits of each half
        self._keys = generator("permutation", *key).integers(0, 2**64, size=_FEISTEL_ROUNDS, dtype=np.uint64)

    def __call__(self, indices: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Where each of ``indices`` (0 … n−1) goes."""
        out = self._network(np.asarray(indices, dtype=np.uint64))
        outside = out >= self.n
        while outside.any():
            out[outside] = self._network(out[outside])
            outside = out >= self.n
        return out.astype(np.int64)

    def _network(self, x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        half, low = np.uint64(self._half), np.uint64(2**self._half - 1)
        left, right = x >> half, x & low
        for key in self._keys:
            left, right = right, left ^ (_mixed(right + key) & low)
        return (left << half) | right


def _mixed(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): every bit of the input moves every bit of the output."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
