"""Fused encoder layers against the spec's own composition of refbert.ops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from refbert.backend import UNIT_ROUNDOFF, registry
from refbert.backend.reference import ReferenceBackend
from refbert.spec.choices import Choices
from refbert.spec.encoder import encoder_layer

B, S, H, A, F = 3, 11, 24, 4, 40


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


def both(name, mask, mask_value, activation, dtype):
    x, p = layer_case(dtype=dtype)
    reference = ReferenceBackend()
    c = Choices.of_layer(heads=A, mask_value=mask_value, activation=activation, eps=1e-12)
    expected, _ = encoder_layer(reference, p, x, mask, c)
    composed, _ = encoder_layer(
        ReferenceBackend(dtype), {k: w.astype(dtype) for k, w in p.items()}, x.astype(dtype), mask, c
    )
    backend = registry.create(name, dtype=dtype)
    params = {name: backend.asarray(w) for name, w in p.items()}
    given = backend.asarray(x)
    got = backend.encoder_layer(
        given, params, mask=mask, heads=A, mask_value=mask_value, activation=activation, eps=1e-12
    )
    assert np.array_equal(backend.to_numpy(given), x.astype(dtype))
    return backend.to_numpy(got), composed, expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["gelu_erf", "gelu_tanh", "relu", "tanh", "linear"])
@pytest.mark.parametrize("mask_value", [-math.inf, -10000.0])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_the_fused_layer_is_the_specs_composition(backend, mask, mask_value, activation, dtype):
    got, composed, expected = both(backend, MASKS[mask], mask_value, activation, dtype)
    # The textbook composition in the same dtype shows what rounding does to this very layer; the fused one may do
    # four times that (another order of the same sums), and no less than a few roundings of numbers of size |y|.
    u = UNIT_ROUNDOFF[dtype]
    allowed = 4 * max(np.abs(composed - expected).max(), 8 * u * np.abs(expected).max())
    assert np.abs(got - expected).max() <= allowed
