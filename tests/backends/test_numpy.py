"""The numpy backend's own machinery: the GELU polynomial, the fused layer, its buffers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import erfc

from refbert import registry
from refbert.reference import ReferenceBackend
from refbert.spec.choices import Choices
from refbert.spec.encoder import encoder_layer
from refbert_numpy.gelu import gelu_in_place, normal_cdf

U = 2.0**-24
B, S, H, A, F = 3, 11, 24, 4, 40


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


def layer_case(seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)

    def draw(*shape, scale=1.0, centre=0.0):
        return (centre + scale * rng.standard_normal(shape)).astype(dtype).astype(np.float64)

    p = {}
    for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
        p |= {f"{name}.weight": draw(H, H, scale=0.3), f"{name}.bias": draw(H, scale=0.3)}
    p |= {"intermediate.dense.weight": draw(F, H, scale=0.3), "intermediate.dense.bias": draw(F)}
    p |= {"output.dense.weight": draw(H, F, scale=0.3), "output.dense.bias": draw(H)}
    for name in ("attention.output.LayerNorm", "output.LayerNorm"):
        p |= {f"{name}.weight": draw(H, scale=0.3, centre=1.0), f"{name}.bias": draw(H)}
    return draw(B, S, H), p


MASKS = {
    "full": np.ones((B, S), int),
    "ragged": (np.arange(S) < np.array([[S], [4], [1]])).astype(int),
    "dead": (np.arange(S) < np.array([[S], [0], [6]])).astype(int),
    "holes": (np.arange(S) % np.array([[1], [2], [3]]) == 0).astype(int),
}


def both(mask, mask_value, activation, dtype="float32"):
    x, p = layer_case(dtype=dtype)
    truth = ReferenceBackend()
    c = Choices(1, A, activation, 1e-12, mask_value, 0.0, 0.0, 0.0, 0.0, False)
    expected, _ = encoder_layer(truth, p, x, mask, c)
    composed, _ = encoder_layer(
        ReferenceBackend(dtype), {k: w.astype(dtype) for k, w in p.items()}, x.astype(dtype), mask, c
    )
    backend = registry.create("numpy", dtype=dtype)
    params = {name: backend.asarray(w) for name, w in p.items()}
    given = backend.asarray(x).copy()
    got = backend.encoder_layer(
        given, params, mask=mask, heads=A, mask_value=mask_value, activation=activation, eps=1e-12
    )
    assert np.array_equal(given, x.astype(dtype))
    assert got.dtype == dtype
    return got, composed, expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["gelu_erf", "gelu_tanh", "relu", "tanh", "linear"])
@pytest.mark.parametrize("mask_value", [-math.inf, -10000.0])
@pytest.mark.parametrize("mask", MASKS)
def test_the_fused_layer_is_the_specs_composition(mask, mask_value, activation, dtype):
    got, composed, expected = both(MASKS[mask], mask_value, activation, dtype)
    # The textbook composition in the same dtype shows what rounding does to this very layer; the fused one may do
    # four times that (another order of the same sums), and no less than a few roundings of numbers of size |y|.
    u = U if dtype == "float32" else 2.0**-53
    allowed = 4 * max(np.abs(composed - expected).max(), 8 * u * np.abs(expected).max())
    assert np.abs(got - expected).max() <= allowed


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
