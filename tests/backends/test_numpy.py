"""The numpy backend's own machinery: the GELU polynomial, the fused layer, its buffers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import erfc
from test_fused_layer import MASKS, A, layer_case

from refbert import registry
from refbert_numpy.gelu import gelu_in_place, normal_cdf

U = 2.0**-24


def test_the_polynomial_is_within_two_units_of_roundoff():
    x = np.concatenate(
        [np.linspace(-12, 12, 1_000_001), np.geomspace(1e-38, 1e30, 2001), -np.geomspace(1e-38, 1e30, 2001), [0.0]]
    ).astype(np.float32)
    y = x.copy()
    gelu_in_place(y)
    truth = x.astype(np.float64) * 0.5 * erfc(-x.astype(np.float64) / math.sqrt(2))
    assert (np.abs(y - truth) / np.maximum(1, np.abs(x))).max() <= 2 * U
    Phi = normal_cdf(x)
    assert np.abs(Phi - 0.5 * erfc(-x.astype(np.float64) / math.sqrt(2))).max() <= 2 * U


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (3, 7), (70_000, 3), (2, 200_000)])
def test_blocks_fit_together(shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    bias = np.random.default_rng(1).standard_normal(shape[1]).astype(np.float32)
    y = x.copy()
    gelu_in_place(y, bias)
    z = (x + bias).astype(np.float64)
    assert np.abs(y - z * 0.5 * erfc(-z / math.sqrt(2))).max(initial=0) <= 2 * U * max(1, np.abs(z).max(initial=0))


def test_a_padded_row_does_not_reach_its_neighbours():
    x, p = layer_case()
    backend = registry.create("numpy")
    params = {name: backend.asarray(w) for name, w in p.items()}
    options = {"heads": A, "mask_value": -math.inf, "activation": "gelu_erf", "eps": 1e-12}
    y = backend.encoder_layer(backend.asarray(x), params, mask=MASKS["ragged"], **options)
    other = x.copy()
    other[1, 4:] = 100.0
    z = backend.encoder_layer(backend.asarray(other), params, mask=MASKS["ragged"], **options)
    assert np.array_equal(y[0], z[0])
    assert np.array_equal(y[1, :4], z[1, :4])


def test_a_result_outlives_the_next_call_and_weights_may_be_replaced():
    x, p = layer_case()
    backend = registry.create("numpy")
    params = {name: backend.asarray(w) for name, w in p.items()}
    options = {"mask": MASKS["full"], "heads": A, "mask_value": -math.inf, "activation": "gelu_erf", "eps": 1e-12}
    first = backend.encoder_layer(backend.asarray(x), params, **options)
    kept = first.copy()
    params["output.dense.bias"] += 1  # in place: nothing of the old weights may be remembered
    second = backend.encoder_layer(backend.asarray(x), params, **options)
    assert np.array_equal(first, kept)
    assert not np.allclose(first, second)


def test_memory_mapped_weights_are_not_copied(tmp_path):
    np.zeros(12, np.float32).tofile(tmp_path / "w")
    mapped = np.memmap(tmp_path / "w", np.float32, mode="c")
    assert np.shares_memory(registry.create("numpy").asarray(mapped), mapped)
