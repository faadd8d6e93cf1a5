"""Dropout masks: a function of seed, step and site alone, with the right frequency."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from refbert.randomness import Dropout

SHAPE = (64, 65)


def keep(seed=1, step=2, site="encoder.layer.0.output", shape=SHAPE, rate=0.1):
    return Dropout(seed, step).keep(site, shape, rate)


def within(count, n, probability):
    """Hoeffding 1963: a binomial count is off by more than n·t with probability at most 2 exp(−2nt²), here 1e-12."""
    return abs(count - n * probability) <= math.sqrt(n * math.log(2e12) / 2)


def test_the_same_call_gives_the_same_mask():
    assert keep().dtype == bool
    assert keep().shape == SHAPE
    assert np.array_equal(keep(), keep())
    assert np.array_equal(keep(rate=0.1), keep(rate=np.float64(0.1)))


def test_this_mask_stays_what_it_is():
    """A run resumed with a later release must draw the same masks; these bits were drawn by hand from Philox."""
    import hashlib

    key = np.frombuffer(hashlib.blake2b(b"1/2/x", digest_size=16).digest(), dtype=np.uint64)
    draws = np.random.Generator(np.random.Philox(key=key)).random(40, dtype=np.float32)
    assert np.array_equal(keep(site="x", shape=(5, 8), rate=0.3), (draws >= 0.3).reshape(5, 8))


def test_seed_step_and_site_each_give_another_mask():
    masks = [
        keep(),
        keep(seed=2),
        keep(seed=2, step=1),
        keep(step=3),
        keep(seed=12, step=2),
        keep(seed=1, step=22),
        keep(site="encoder.layer.1.output"),
        keep(site="encoder.layer.0.attention"),
        keep(site=""),
        keep(seed=-1),
        keep(seed=2**64 + 1),
    ]
    # Independent masks differ in a share 2·0.9·0.1 of their entries.
    for a, b in itertools.combinations(masks, 2):
        assert within((a != b).sum(), a.size, 0.18)


def test_no_mask_depends_on_those_drawn_before():
    sites = [f"site {i}" for i in range(5)]
    one = Dropout(7)
    forward = {site: one.keep(site, (9,), 0.5) for site in sites}
    backward = {site: one.keep(site, (9,), 0.5) for site in reversed(sites)}
    assert all(np.array_equal(forward[site], backward[site]) for site in sites)
    np.random.seed(0)  # noqa: NPY002 - the global generator must not matter
    assert np.array_equal(Dropout(7).keep(sites[3], (9,), 0.5), forward[sites[3]])


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_frequency(rate):
    mask = keep(shape=(200, 300), rate=rate)
    assert within(mask.sum(), mask.size, 1 - rate)
    assert rate > 0 or mask.all()
    # Neighbours are independent, along both axes.
    for pairs in (mask[1:] & mask[:-1], mask[:, 1:] & mask[:, :-1]):
        half = pairs.size // 2  # overlapping pairs are independent in each half (every other one)
        assert within(pairs.ravel()[::2].sum(), half, (1 - rate) ** 2)


def test_empty_and_scalar_shapes():
    assert keep(shape=(0, 3)).shape == (0, 3)
    assert keep(shape=()).shape == ()
