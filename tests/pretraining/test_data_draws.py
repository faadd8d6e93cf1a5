"""Keyed draws: a function of the key alone; the permutation is one, and is computed entry by entry."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
from corpora import within

from refbert.data.draws import Draws, Permutation, generator


def test_draws_depend_on_the_key_alone_and_stay_what_they_are():
    """A run resumed with a later release must draw the same; these bits were drawn by hand from Philox."""
    key = np.frombuffer(hashlib.blake2b(b"masks/1/x", digest_size=16).digest(), dtype=np.uint64)
    expected = np.random.Generator(np.random.Philox(key=key)).random(5)
    assert np.array_equal(generator("masks", 1, "x").random(5), expected)
    assert generator("masks", 11, "x").random() != generator("masks", 1, "1", "x").random()


def test_between_and_heads():
    draws = Draws("test")
    values = [draws.between(3, 7) for _ in range(20_000)]
    assert set(values) == {3, 4, 5, 6, 7}
    assert all(within(values.count(v), len(values), 0.2) for v in range(3, 8))
    tosses = [random.Random(1).randrange(200) for _ in range(1000)]
    assert within(sum(draws.heads(n) for n in tosses), sum(tosses), 0.5)
    assert all(0 <= draws.heads(n) <= n for n in tosses)
    assert draws.heads(0) == 0


@pytest.mark.parametrize("key", [(0,), (1, 2, 3)])
def test_the_permutation_is_one(key):
    for n in range(1, 300):
        assert sorted(Permutation(n, *key)(np.arange(n)).tolist()) == list(range(n)), n
    for n in (4095, 4096, 4097, 100_003):
        assert len(set(Permutation(n, *key)(np.arange(n)).tolist())) == n


def test_the_permutation_needs_no_array_of_n_and_spreads():
    n = 10**15
    order = Permutation(n, "large")
    assert order([5]) == order([3, 5])[1]
    images = order(np.arange(10_000))
    assert images.min() >= 0
    assert images.max() < n
    assert len(set(images.tolist())) == len(images)
    for bound in (n // 2, n // 10):
        assert within(int((images < bound).sum()), len(images), bound / n)
    # Neighbours do not stay neighbours: which of two comes first is a fair coin.
    assert within(int((images[::2] < images[1::2]).sum()), len(images) // 2, 0.5)


def test_another_key_gives_another_permutation():
    a, b = (Permutation(1000, "x", k)(np.arange(1000)) for k in (0, 1))
    assert within(int((a == b).sum()), 1000, 1 / 1000)
    firsts = [int(Permutation(5, k)([0])[0]) for k in range(5000)]
    assert all(within(firsts.count(v), 5000, 0.2) for v in range(5))
