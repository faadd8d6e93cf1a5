"""What refbert's conformance suite cannot see from outside; the rest is `refbert conform --backend tinygrad`."""

from __future__ import annotations

import math

import numpy as np
from refbert_tinygrad import TinygradBackend


def test_the_caller_may_use_its_memory_again():
    backend = TinygradBackend()
    host, keep = np.ones((4, 256), np.float32), np.ones((4, 256), bool)
    x = backend.asarray(host)
    y, back = backend.dropout(x, keep=keep, rate=0.5)
    host[:], keep[:] = 7, False
    for result in (y, *back(x)):
        np.testing.assert_array_equal(backend.to_numpy(result), 2.0)


def test_what_is_handed_out_is_not_the_tensors_memory():
    backend = TinygradBackend()
    x = backend.asarray(np.ones((2, 3)))
    backend.to_numpy(x)[:] = 7
    np.testing.assert_array_equal(backend.to_numpy(x), 1.0)


def test_relu_keeps_nan_and_has_no_gradient_at_0():
    backend = TinygradBackend()
    x = backend.asarray(np.array([math.nan, 0.0, -1.0, 2.0]))
    y, back = backend.relu(x)
    np.testing.assert_array_equal(backend.to_numpy(y), [math.nan, 0, 0, 2])
    np.testing.assert_array_equal(backend.to_numpy(back(backend.asarray(np.ones(4)))[0])[1:], [0, 0, 1])


def test_a_row_named_often_gets_its_whole_gradient():
    """The suite's bound leaves room for a sum in the table's dtype."""
    backend = TinygradBackend(dtype="float16")
    _, back = backend.embedding(backend.asarray(np.ones((2, 3))), np.zeros(4096, np.int64))
    (gradient,) = back(backend.asarray(np.ones((4096, 3))))
    np.testing.assert_array_equal(backend.to_numpy(gradient)[0], 4096.0)
