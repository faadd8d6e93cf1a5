"""The numpy backend's own machinery: the GELU polynomial, attention by blocks, the fused layer, its buffers."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from op_cases import expected
from scipy.special import erfc, expit, log_ndtr
from test_fused_layer import MASKS, A, H, layer_case

from refbert.backend import UNIT_ROUNDOFF, registry
from refbert.backend.reference import ReferenceBackend
from refbert.spec.choices import Choices
from refbert.spec.encoder import encoder_layer
from refbert_numpy import attention as blocked
from refbert_numpy.activations import _Q, gelu_in_place

U = 2.0**-24
SWEEP = np.concatenate(
    [np.linspace(-12, 12, 1_000_001), np.geomspace(1e-38, 3e38, 2001), -np.geomspace(1e-38, 3e38, 2001), [0.0]]
).astype(np.float32)


def within(op, arrays, options, dtype="float32"):
    """The op and its pullback are within op_cases' bounds (twice the reference's running error)."""
    arrays = [a.astype(dtype).astype(np.float64) for a in arrays]
    reference, bounds, dy = expected(op, arrays, options, dtype)
    backend = registry.create("numpy", dtype=dtype)
    y, back = getattr(backend, op)(*(backend.asarray(a) for a in arrays), **options)
    for got, t, bound in zip((y, *back(backend.asarray(dy))), reference, bounds, strict=True):
        assert got.dtype == np.dtype(dtype)
        assert got.shape == t.shape
        assert np.isfinite(bound).all()
        assert (np.abs(got - t) <= bound).all(), f"{op}: {np.abs(got - t).max():.3g} of {bound.max():.3g}"


def test_the_polynomial_fits():
    """Q itself, in float64: what it adds to the result before any rounding, also beyond where it was fitted."""
    x = np.linspace(-16, 16, 400_001)
    odds = x * np.polynomial.polynomial.polyval(x * x, _Q["erf"])
    reference = x * 0.5 * erfc(-x / math.sqrt(2))
    assert (np.abs(x * expit(odds) - reference) / np.maximum(1, np.abs(x))).max() <= 2.5e-8
    assert (np.diff(odds) > 0).all()
    exact = log_ndtr(x) - log_ndtr(-x)  # what x Q(x²) stands for, where Φ is not yet flat
    assert np.abs(odds - exact)[np.abs(x) < 2].max() <= 2e-6


def test_the_erf_form_and_its_slope_are_within_a_few_roundings():
    y, slope = SWEEP.copy(), np.empty_like(SWEEP)
    gelu_in_place(y, "erf", slope=slope)
    x = SWEEP.astype(np.float64)
    Phi = 0.5 * erfc(-x / math.sqrt(2))
    # y = x/(1 + e^{−a}): the sum and the quotient are rounded, 2 u; e^{−a} is off by 5 u (NumPy's float32 exp: 2.6 ulp)
    # and by 4 u a (Horner's last steps, one product), of which 1 − Φ reaches y. And the polynomial's own 2.5e-8.
    a = np.abs(log_ndtr(x) - log_ndtr(-x))
    relative = 2 + np.where(Phi == 1, 0, (1 - Phi) * (5 + 4 * a))
    allowed = np.abs(x * Phi) * relative * U + 2.5e-8 * np.maximum(1, np.abs(x))
    assert (np.abs(y - x * Phi) <= allowed).all()
    assert (np.abs(y - x * Phi) / np.maximum(1, np.abs(x))).max() <= 3 * U
    # x φ = 2h e^{−2h²}/√(2π): rounding h² moves the exponential by x²/2 u; exp itself (NumPy's float32: 2.6 ulp,
    # so 5 u), two products and a rounded constant make 8. Φ is within 2 u, and the sum is rounded, |Φ + x φ| < 1.13.
    x_phi = np.abs(np.clip(x, -40, 40) * np.exp(-0.5 * np.clip(x, -40, 40) ** 2) / math.sqrt(2 * math.pi))
    allowed = (3.13 + x_phi * (np.minimum(np.abs(x), 40) ** 2 / 2 + 8)) * U
    signed = np.sign(x) * x_phi
    assert (np.abs(slope - (Phi + signed)) <= allowed).all()
    assert (slope[x < -15] == 0).all()
    assert (slope[x > 15] == 1).all()


@pytest.mark.parametrize("form", ["erf", "tanh"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gelu_of_every_size(form, dtype):
    """No overflow (a warning is an error here), and the saturated ends are exact."""
    within("gelu", (np.concatenate([SWEEP[::500], np.geomspace(1e-6, 20, 500), -np.geomspace(1e-6, 20, 500)]),),
           {"form": form}, dtype)  # fmt: skip
    backend = registry.create("numpy", dtype=dtype)
    y, back = backend.gelu(backend.asarray(np.array([-3e38, -1e19, 1e19, 3e38])), form=form)
    assert np.array_equal(y, backend.asarray(np.array([0, 0, 1e19, 3e38])))
    assert np.array_equal(back(np.ones_like(y))[0], [0, 0, 1, 1])


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (3, 7), (100_000, 3), (2, 300_000)])
def test_blocks_fit_together(shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    bias = np.random.default_rng(1).standard_normal(shape[1]).astype(np.float32)
    y, slope = x.copy(), np.empty_like(x)
    gelu_in_place(y, "erf", bias, slope)
    z = (x + bias).astype(np.float64)
    assert np.abs(y - z * 0.5 * erfc(-z / math.sqrt(2))).max(initial=0) <= 2 * U * max(1, np.abs(z).max(initial=0))
    flat, flat_slope = (x + bias).reshape(-1), np.empty(x.size, np.float32)
    gelu_in_place(flat, "erf", slope=flat_slope)
    assert np.array_equal(flat, y.reshape(-1))
    assert np.array_equal(flat_slope, slope.reshape(-1))


def test_attention_keeps_what_it_was_given_and_returns_nothing_twice():
    rng = np.random.default_rng(0)
    q, k, v, dy = (rng.standard_normal((2, 5, 6)).astype(np.float32) for _ in range(4))
    given = [a.copy() for a in (q, k, v, dy)]
    backend = registry.create("numpy")
    y, back = backend.attention(q, k, v, mask=np.ones((2, 5)), heads=2, mask_value=-math.inf)
    first = back(dy)
    kept = [a.copy() for a in (y, *first)]
    backend.attention(-q, k, dy, mask=np.ones((2, 5)), heads=2, mask_value=-math.inf)[1](v)
    back(-dy)
    assert all(np.array_equal(a, b) for a, b in zip((y, *first), kept, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip((q, k, v, dy), given, strict=True))
    arrays = (y, *first, q, k, v, dy)
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


def other_roundings(p, x, mask, c):
    """The layer, three times in x's dtype, with tokens, hidden and feed-forward units in another order."""
    rng = np.random.default_rng(1)
    for _ in range(3):
        tokens, hidden, inner = (rng.permutation(n) for n in (x.shape[1], H, len(p["intermediate.dense.bias"])))
        q = {name: np.asarray(w, x.dtype) for name, w in p.items()}
        for name in ("query", "key", "value"):
            q[f"attention.self.{name}.weight"] = q[f"attention.self.{name}.weight"][:, hidden]
        for name in q:
            if "output" in name:
                q[name] = q[name][hidden]
        q["output.dense.weight"] = q["output.dense.weight"][:, inner]
        q["intermediate.dense.weight"] = q["intermediate.dense.weight"][inner][:, hidden]
        q["intermediate.dense.bias"] = q["intermediate.dense.bias"][inner]
        z, _ = encoder_layer(ReferenceBackend(x.dtype.name), q, x[:, tokens][:, :, hidden], mask[:, tokens], c)
        y = np.empty_like(z)
        y[np.ix_(np.arange(len(z)), tokens, hidden)] = z
        yield y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mask_value", [-math.inf, -10000.0])
@pytest.mark.parametrize(("B", "S"), [(0, 4), (2, 1), (3, 31), (130, 1)])  # 130: two blocks of rows
@pytest.mark.parametrize("size", [1e-20, 1, 1e6])
def test_the_layer_at_its_edges(monkeypatch, B, S, size, mask_value, dtype):
    monkeypatch.setattr(blocked, "BLOCK", 3 * 31 * 31)  # three of the four heads, then one
    rng = np.random.default_rng(0)
    _, p = layer_case(dtype=dtype)
    x = (size * rng.standard_normal((B, S, H))).astype(dtype)
    mask = rng.random((B, S)) < 0.8
    mask[1:2] = False  # no visible key
    c = Choices.of_layer(heads=A, mask_value=mask_value, activation="gelu_erf", eps=1e-12)
    reference, _ = encoder_layer(ReferenceBackend(), p, x.astype(np.float64), mask, c)
    backend = registry.create("numpy", dtype=dtype)
    params = {name: backend.asarray(w) for name, w in p.items()}
    y = backend.encoder_layer(x, params, mask=mask, heads=A, mask_value=mask_value, activation="gelu_erf", eps=1e-12)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    # Four times what reordering the textbook composition's sums does in this dtype: that, and not a worst case summed
    # over the layer (10⁵ times larger), is what tells rounding from a mistake. The floor is for what no order changes:
    # an average of S equal values, as in the smallest size here, may be off by S u, 31 u.
    floor = 8 * UNIT_ROUNDOFF[dtype] * np.abs(reference).max(initial=0)
    reordered = [np.abs(z - reference).max(initial=0) for z in other_roundings(p, x, mask, c)]
    assert np.abs(y - reference).max(initial=0) <= 4 * max(floor, *reordered)


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


def test_results_outlive_calls_of_other_shapes():
    """Buffers grow and are cut to size: a later, larger or smaller batch must leave earlier results alone."""
    _, p = layer_case()
    backend = registry.create("numpy")
    params = {name: backend.asarray(w) for name, w in p.items()}
    options = {"heads": A, "mask_value": -math.inf, "activation": "gelu_erf", "eps": 1e-12}
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((B, S, H)).astype(np.float32) for B, S in ((2, 5), (4, 9), (1, 3), (2, 5))]
    results = [backend.encoder_layer(x, params, mask=np.ones(x.shape[:2]), **options) for x in inputs]
    for x, y in zip(inputs, results, strict=True):
        alone = registry.create("numpy").encoder_layer(x, params, mask=np.ones(x.shape[:2]), **options)
        assert np.array_equal(y, alone)
        assert not any(np.shares_memory(y, z) for z in (x, *(r for r in results if r is not y)))


def test_replaced_weights_are_used():
    """Every one of the layer's parameters, exchanged in the mapping: no product may be remembered."""
    x, p = layer_case()
    backend = registry.create("numpy")
    params = {name: backend.asarray(w) for name, w in p.items()}
    options = {"mask": MASKS["full"], "heads": A, "mask_value": -math.inf, "activation": "gelu_erf", "eps": 1e-12}
    before = backend.encoder_layer(backend.asarray(x), params, **options)
    rng = np.random.default_rng(0)
    for name in p:
        changed = params | {name: params[name] + rng.standard_normal(params[name].shape).astype(np.float32)}
        after = backend.encoder_layer(backend.asarray(x), changed, **options)
        again = registry.create("numpy").encoder_layer(backend.asarray(x), changed, **options)
        assert np.array_equal(after, again), name
        if name != "attention.self.key.bias":  # which softmax cancels
            assert np.abs(after - before).max() > 1e-3, name


def test_read_only_weights_and_strided_inputs():
    x, p = layer_case()
    backend = registry.create("numpy")
    params = {name: backend.asarray(w) for name, w in p.items()}
    for w in params.values():
        w.flags.writeable = False
    options = {"mask": MASKS["ragged"], "heads": A, "mask_value": -math.inf, "activation": "gelu_erf", "eps": 1e-12}
    wide = np.zeros((*x.shape[:2], 2 * H), np.float32)
    wide[:, ::-1, ::2] = x
    view = wide[:, ::-1, ::2]
    view.flags.writeable = False
    expected_y = backend.encoder_layer(x.astype(np.float32), params, **options)
    assert np.array_equal(backend.encoder_layer(view, params, **options), expected_y)


def test_scipy_is_not_loaded_in_float32():
    """Importing scipy.special takes longer than embedding a sentence."""
    code = """
import sys
import numpy as np
import refbert
config = refbert.BertConfig(
    vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
)
model = refbert.from_config(config, heads=("masked_lm",), backend="numpy")
ids = np.ones((2, 3), int)
model(refbert.Batch(input_ids=ids))
model.loss_and_gradients(refbert.Batch(input_ids=ids), ids)
sys.exit(any(name.split(".")[0] == "scipy" for name in sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_library_names_its_blas():
    assert registry.create("numpy").library.startswith(f"NumPy {np.__version__}, ")


def test_memory_mapped_weights_are_not_copied(tmp_path):
    np.zeros(12, np.float32).tofile(tmp_path / "w")
    mapped = np.memmap(tmp_path / "w", np.float32, mode="c")
    assert np.shares_memory(registry.create("numpy").asarray(mapped), mapped)
