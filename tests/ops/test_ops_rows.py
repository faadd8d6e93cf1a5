"""Embedding, gather, dropout, add, reshape and transpose: exact, so compared exactly; and what they refuse."""

from __future__ import annotations

import numpy as np
import oracles as o
import pytest
import torch
from oracles import agree

from refbert import ops

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_embedding_looks_up_and_sums_back(dtype):
    table, ids = RNG.standard_normal((5, 3)), np.array([[0, 3, 3], [3, 0, 4]], dtype)
    y, pullback = ops.embedding(table, ids)
    assert y.tolist() == [[table[i].tolist() for i in row] for row in ids]
    dy = np.arange(18.0).reshape(2, 3, 3)  # whole numbers, so that every order of adding gives the same
    assert pullback(dy)[0].tolist() == [
        [0 + 12, 1 + 13, 2 + 14],
        [0, 0, 0],
        [0, 0, 0],
        [3 + 6 + 9, 4 + 7 + 10, 5 + 8 + 11],
        [15, 16, 17],
    ]


def test_gather_numbers_rows_over_the_batch():
    x, positions = RNG.standard_normal((2, 3, 4)), np.array([5, 0, 5, 3])
    y, pullback = ops.gather(x, positions)
    assert np.array_equal(y, np.stack([x[1, 2], x[0, 0], x[1, 2], x[1, 0]]))
    dy = np.arange(16.0).reshape(4, 4)
    expected = np.zeros((2, 3, 4))
    expected[1, 2], expected[0, 0], expected[1, 0] = dy[0] + dy[2], dy[1], dy[3]
    assert np.array_equal(pullback(dy)[0], expected)


def test_gather_of_nothing():
    y, pullback = ops.gather(RNG.standard_normal((2, 3, 4)), np.zeros(0, int))
    assert y.shape == (0, 4)
    assert not pullback(np.zeros((0, 4)))[0].any()


@pytest.mark.parametrize("bad", [-1, 6])
def test_rows_out_of_range(bad):
    with pytest.raises(IndexError, match=str(bad)):
        ops.embedding(np.ones((6, 2)), np.array([0, bad]))
    with pytest.raises(IndexError, match=str(bad)):
        ops.gather(np.ones((2, 3, 2)), np.array([0, bad]))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_is_pytorchs_kernel_with_its_own_mask(rate):
    x, dy = RNG.standard_normal((2, 40, 3))
    torch.manual_seed(0)
    tensor = torch.from_numpy(x.copy()).requires_grad_()
    theirs, mask = torch.native_dropout(tensor, rate, True)
    (gradient,) = torch.autograd.grad(theirs, tensor, torch.from_numpy(dy.copy()))
    y, pullback = ops.dropout(x, keep=mask.numpy(), rate=rate)
    # Here a subtraction, a product and a quotient round; there a quotient by the same difference and a product.
    agree(y, theirs.detach().numpy(), o.gamma(6) * np.abs(y))
    agree(pullback(dy)[0], gradient.numpy(), o.gamma(6) * np.abs(gradient.numpy()))
    assert np.array_equal(ops.dropout(x, keep=mask.numpy().astype(np.int8), rate=rate)[0], y)
    assert rate > 0 or np.array_equal(y, x)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_dropout_refuses_a_rate(rate):
    with pytest.raises(ValueError, match="rate"):
        ops.dropout(np.ones(3), keep=np.ones(3), rate=rate)


def test_shapes_must_match():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3,\)"):
        ops.add(np.ones((2, 3)), np.ones(3))
    with pytest.raises(ValueError, match="keep mask"):
        ops.dropout(np.ones((2, 3)), keep=np.ones(3), rate=0.1)
    with pytest.raises(ValueError, match="reshape"):
        ops.reshape(np.ones((2, 3)), (4, 2))
    with pytest.raises(ValueError, match="ax"):
        ops.transpose(np.ones((2, 3)), (0, 0))


def test_transpose_goes_back_where_it_came_from():
    x = np.arange(24.0).reshape(2, 3, 4)
    y, pullback = ops.transpose(x, (2, 0, 1))
    assert y.shape == (4, 2, 3)
    assert y[3, 1, 2] == x[1, 2, 3]
    assert np.array_equal(pullback(y)[0], x)
    y, pullback = ops.reshape(x, (6, 4))
    assert np.array_equal(pullback(y)[0], x)
