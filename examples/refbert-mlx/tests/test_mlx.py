"""What refbert's conformance suite cannot see from outside; the rest is `refbert conform --backend mlx`."""

from __future__ import annotations

import threading

import mlx.core as mx
import numpy as np
import pytest
from refbert_mlx import MlxBackend


def test_the_caller_may_use_its_memory_again():
    backend = MlxBackend()
    host, keep = np.ones((4, 256), np.float32), np.ones((4, 256), bool)
    x = backend.asarray(host)
    y, back = backend.dropout(x, keep=keep, rate=0.5)
    host[:], keep[:] = 7, False
    for result in (y, *back(x)):
        np.testing.assert_array_equal(backend.to_numpy(result), 2.0)


def test_what_is_handed_out_is_not_the_arrays_memory():
    backend = MlxBackend()
    x = backend.asarray(np.ones((2, 3)))
    backend.to_numpy(x)[:] = 7
    np.testing.assert_array_equal(backend.to_numpy(x), 1.0)


def test_results_are_computed_when_they_are_returned():
    """Another thread could not: the streams of what is still a graph are unknown there."""
    backend, seen = MlxBackend(), []
    y, back = backend.linear(*(backend.asarray(np.ones(shape)) for shape in ((2, 3), (4, 3), (4,))))
    thread = threading.Thread(target=lambda: seen.extend((backend.to_numpy(y), backend.to_numpy(back(y)[0]))))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(seen[0], 4.0)
    np.testing.assert_array_equal(seen[1], 16.0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_row_named_often_gets_its_whole_gradient(dtype):
    """The suite's bound leaves room for a sum in the table's dtype."""
    backend = MlxBackend(dtype=dtype)
    _, back = backend.embedding(backend.asarray(np.ones((2, 3))), np.zeros(4096, np.int64))
    (gradient,) = back(backend.asarray(np.ones((4096, 3))))
    np.testing.assert_array_equal(backend.to_numpy(gradient)[0], 4096.0)


def test_the_device_of_the_process_stays_its_own():
    before = mx.default_device()
    backend = MlxBackend(dtype="float64")
    backend.tanh(backend.asarray(np.ones(3)))
    assert mx.default_device() == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_empty_array_has_strides_of_its_own(dtype):
    """With NumPy's, which are 0, the gradient of a bias is foreign memory (docs/findings.md, M10), now and then 0."""
    empty = MlxBackend(dtype=dtype).asarray(np.zeros((0, 3, 5)))
    assert memoryview(empty).strides == tuple(empty.itemsize * n for n in (15, 5, 1))
