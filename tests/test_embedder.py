"""Pooling and the modules behind it, against sums written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refbert.embedder import POOLINGS, Dense, Embedder, Normalize, pool, sigmoid
from refbert.errors import InputError


def written_out(text, pooling, skip):
    h = [[float(x) for x in row] for row in text]
    kept = list(range(skip, len(h)))
    columns = range(len(h[0]))
    weights = {"weightedmean": [i + 1.0 for i in kept]}.get(pooling, [1.0] * len(kept))
    if pooling == "cls":
        return h[skip]
    if pooling == "lasttoken":
        return h[-1]
    if pooling == "max":
        return [max(h[i][j] for i in kept) for j in columns]
    total = sum(weights) ** (0.5 if pooling == "mean_sqrt_len_tokens" else 1)
    return [sum(w * h[i][j] for w, i in zip(weights, kept, strict=True)) / total for j in columns]


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), pooling=st.sampled_from(POOLINGS[:-1]),
    skip=st.integers(0, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_poolings(lengths, pooling, skip, seed):
    lengths = np.array(lengths) + skip
    texts = [np.random.default_rng([seed, i]).normal(size=(n, 3)) for i, n in enumerate(lengths)]
    found = pool(np.concatenate(texts), lengths, pooling, skip=skip)
    expected = [written_out(text, pooling, skip) for text in texts]
    # Sums of at most 12 products of a weight up to 12 and a number below 6: 13 roundings of numbers below 12·6·12.
    assert np.abs(found - expected).max() <= 13 * 2.0**-53 * 12 * 6 * 12


def test_float16_is_added_up_in_float32():
    rows = np.full((4096, 1), 32, np.float16)
    assert pool(rows, np.array([4096]), "mean") == 32
    assert pool(rows, np.array([4096]), "mean_sqrt_len_tokens") == 2048


def test_a_dense_and_its_sizes():
    dense = Dense(np.array([[1.0, -2.0]]), np.array([0.5]), "relu", np.array([[0.0, 1.0]]))
    assert dense(np.array([[3.0, 1.0], [0.0, 1.0]])).tolist() == [[2.5], [1.0]]
    how = Embedder(pooling=("max", "cls"), modules=(Dense(np.ones((4, 6)), None), Normalize()), dimensions=2)
    assert how.size(3) == 2
    assert how.finish(np.zeros((1, 6))).tolist() == [[0, 0]]  # nothing to scale
    with pytest.raises(InputError, match="takes vectors of 6 numbers, the pooling makes 8"):
        how.size(4)


def test_what_is_told_wins():
    made = Embedder(pooling=("cls",), modules=(Normalize(), Dense(np.eye(2), None, "identity"), Normalize()))
    x = np.array([[3.0, 4.0]])
    assert np.abs(made.told(None, False).finish(x) - [[0.6, 0.8]]).max() <= 2.0**-53  # the inner one stays
    assert made.told("max", None).pooling == ("max",)
    assert len(made.told(None, None).modules) == 3
    for wrong in ("sum", ("mean", "sum"), ()):
        with pytest.raises(InputError, match="pooling"):
            made.told(wrong, None)


def test_sigmoid_does_not_overflow():
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        found = sigmoid(np.array([-1000.0, -1.0, 0.0, 1.0, 1000.0]))
    assert found[[0, 2, 4]].tolist() == [0, 0.5, 1]
    assert np.abs(found[[1, 3]] - [1 / (1 + np.e), np.e / (1 + np.e)]).max() <= 2.0**-52
