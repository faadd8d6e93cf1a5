"""Masked-LM corruption: the paper's 15% and 80/10/10, what is never touched, and the edges of every interval."""

from __future__ import annotations

import math

import numpy as np
import pytest

from refbert import ops

MASK_ID, V = 103, 30522


def corrupted(n=200_000, rate=0.15, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(1000, V, n)
    special = rng.random(n) < 0.1
    options = {
        "select": rng.random(n), "action": rng.random(n), "random_ids": rng.integers(0, V, n), "rate": rate,
        "mask_id": MASK_ID,
    }  # fmt: skip
    before = {name: np.array(value) for name, value in (options | {"ids": ids, "special": special}).items()}
    out, labels = ops.mask_tokens(ids, special, **options)
    for name, value in (options | {"ids": ids, "special": special}).items():
        np.testing.assert_array_equal(value, before[name], err_msg=f"{name} was changed")
    return ids, special, options, out, labels


def within(count, n, p):
    """Six standard deviations of a binomial: exceeded once in 5·10⁸ seeds."""
    return abs(count - n * p) <= 6 * math.sqrt(n * p * (1 - p))


def test_the_papers_shares():
    ids, special, _, out, labels = corrupted()
    chosen = labels != ops.IGNORE
    assert within(chosen.sum(), (~special).sum(), 0.15)
    assert not chosen[special].any()
    masked = chosen & (out == MASK_ID)
    kept = chosen & (out == ids)
    replaced = chosen & ~masked & ~kept
    assert within(masked.sum(), chosen.sum(), 0.8)
    assert within(kept.sum(), chosen.sum(), 0.1 + 0.1 / V)
    assert within(replaced.sum(), chosen.sum(), 0.1 * (1 - 1 / V))
    np.testing.assert_array_equal(labels[chosen], ids[chosen])
    np.testing.assert_array_equal(out[~chosen], ids[~chosen])


def test_the_edges():
    """select at the rate is not chosen; action 0.8 is a random token, 0.9 the token itself."""
    ids = np.array([7, 7, 7, 7, 7])
    out, labels = ops.mask_tokens(
        ids,
        np.zeros(5, bool),
        select=np.array([0.15, 0.0, 0.0, 0.0, 0.0]),
        action=np.array([0.0, 0.0, 0.8, 0.9, np.nextafter(0.8, 0)]),
        random_ids=np.full(5, 9),
        rate=0.15,
        mask_id=MASK_ID,
    )
    assert out.tolist() == [7, MASK_ID, 9, 7, MASK_ID]
    assert labels.tolist() == [ops.IGNORE, 7, 7, 7, 7]


def test_refuses_what_makes_no_sense():
    ids = np.array([[1, 2]])
    good = {"select": ids * 0.1, "action": ids * 0.1, "random_ids": ids, "rate": 0.15, "mask_id": 3}
    with pytest.raises(ValueError, match="rate"):
        ops.mask_tokens(ids, ids * 0, **(good | {"rate": 1.5}))
    with pytest.raises(ValueError, match="select"):
        ops.mask_tokens(ids, ids * 0, **(good | {"select": np.zeros(2)}))
