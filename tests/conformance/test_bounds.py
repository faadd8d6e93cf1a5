"""The tolerances themselves are tried: honest formulas stay within, dishonest ones do not."""

from __future__ import annotations

import math
from dataclasses import replace

import mpmath
import numpy as np
import pytest

from refbert import ops
from refbert_conformance.cases.corpus import corpus
from refbert_conformance.cases.inputs import REGIMES, fill, rounded
from refbert_conformance.cases.model_cases import ModelRecipe, training
from refbert_conformance.engine.measure import Failure, Record, same_bits
from refbert_conformance.engine.subject import Subject
from refbert_conformance.properties.blocks import compare
from refbert_conformance.tolerances import bounds
from refbert_conformance.tolerances.arithmetic import Arithmetic, gamma, spacing
from refbert_conformance.tolerances.noise import distances, orders, tolerances
from refbert_conformance.tolerances.running_error import Tracked

F32 = Arithmetic.of("float32")


def rho(op, got, arrays, **options):
    (want,) = bounds.expected(op, arrays, options, F32)
    with np.errstate(all="ignore"):
        error = abs(np.asarray(got, np.float64) - want.y)
        return float(np.where(error == 0, 0, error / want.bound).max())


def draw(*shape, regime="normal", seed=0):
    return fill(shape, regime, seed, "float32")


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("n", [1, 2, 17, 300])
def test_sums_in_any_order_are_within(regime, n):
    """Left to right, right to left, pairwise: every order that a kernel may take, in real float32."""
    x, w = draw(1, n, regime=regime), draw(1, n, regime=regime, seed=1)
    products = (x[0].astype(np.float32) * w[0].astype(np.float32)).astype(np.float32)
    forwards = backwards = np.float32(0)
    for a, b in zip(products, products[::-1], strict=True):
        forwards, backwards = np.float32(forwards + a), np.float32(backwards + b)
    for total in (forwards, backwards, products.sum(dtype=np.float32)):
        assert rho("linear", [[total]], (x, w, np.zeros(1))) <= 1


def test_layer_norm_in_one_pass_is_not_within():
    x = 300 + draw(4, 64)
    x = rounded(x, "float32")
    a = x.astype(np.float32)
    mean, square = a.mean(axis=-1, keepdims=True), (a * a).mean(axis=-1, keepdims=True)
    one_pass = (a - mean) / np.sqrt(np.maximum(square - mean * mean, 0) + np.float32(1e-12))
    ones, zeros = np.ones(64), np.zeros(64)
    two_pass, _ = ops.layer_norm(a, np.ones(64, np.float32), np.zeros(64, np.float32), eps=1e-12)
    assert rho("layer_norm", one_pass, (x, ones, zeros), eps=1e-12) > 1
    assert rho("layer_norm", two_pass, (x, ones, zeros), eps=1e-12) <= 0.5


def test_softmax_with_a_touch_more_in_the_denominator_is_not_within():
    x = draw(3, 5)
    e = np.exp(x - x.max(axis=-1, keepdims=True)).astype(np.float32)
    assert rho("softmax", e / e.sum(axis=-1, keepdims=True), (x,)) <= 1
    assert rho("softmax", e / (e.sum(axis=-1, keepdims=True) + np.float32(1e-5)), (x,)) > 1


@pytest.mark.parametrize("op", bounds.ARRAYS)
def test_the_bound_is_of_the_size_of_rounding(op):
    """Not so wide that it would hide a bug: for the plain case at most 10⁴ units of roundoff of the largest entry."""
    case = corpus(op)[1].build("float32")
    for one in bounds.expected(op, case.arrays, case.options, F32, case.dy):
        assert (one.bound <= 1e4 * F32.u * max(1.0, float(abs(one.y).max(initial=0)))).all(), one.name


@pytest.mark.parametrize("op", bounds.ARRAYS)
def test_the_bound_shrinks_with_the_roundoff(op):
    case = corpus(op)[1].build("float32")
    wide = bounds.expected(op, case.arrays, case.options, F32, case.dy)
    narrow = bounds.expected(op, case.arrays, case.options, Arithmetic.of("float64"), case.dy)
    for a, b in zip(wide, narrow, strict=True):
        assert (b.bound <= a.bound * 2**-27).all(), a.name


def test_every_step_bounds_its_own_error_at_100_digits():
    """Each rule of `Tracked` against mpmath: numbers moved to the ends of their errors, one operation."""
    rng = np.random.default_rng(0)
    mpmath.mp.dps = 100
    for _ in range(300):
        x, z = (float(v) for v in rng.normal(0, 2, 2))
        ex, ez = (float(v) for v in abs(rng.normal(0, 1e-3, 2)))
        X, Z = (Tracked(np.float64(v), np.float64(e), arithmetic=F32) for v, e in ((x, ex), (z, ez)))
        trials = {
            "add": (X + Z, lambda a, b: a + b), "subtract": (X - Z, lambda a, b: a - b),
            "multiply": (X * Z, lambda a, b: a * b), "divide": (X / Z, lambda a, b: a / b),
            "exp": (np.exp(X), lambda a, b: mpmath.exp(a)), "tanh": (np.tanh(X), lambda a, b: mpmath.tanh(a)),
        }  # fmt: skip
        if x > 2 * ex:
            trials |= {
                "sqrt": (np.sqrt(X), lambda a, b: mpmath.sqrt(a)),
                "log": (np.log(X), lambda a, b: mpmath.log(a)),
            }
        for name, (tracked, f) in trials.items():
            for sx in (-1, 1):
                for sz in (-1, 1):
                    a, b = mpmath.mpf(x) + sx * mpmath.mpf(ex), mpmath.mpf(z) + sz * mpmath.mpf(ez)
                    exact = f(a, b)
                    off = abs(float(np.float32(float(exact)) - tracked.value))
                    assert off <= tracked.error, name


def test_what_may_overflow_or_divide_by_zero_is_unchecked():
    one = Tracked(np.float64(1), arithmetic=F32)
    assert np.isinf((one / Tracked(np.float64(1e-3), np.float64(2e-3), arithmetic=F32)).error)
    assert np.isinf((Tracked(np.float64(1e30), arithmetic=F32) * Tracked(np.float64(1e30), arithmetic=F32)).error)
    assert np.isfinite((one / Tracked(np.float64(3e-3), np.float64(2e-3), arithmetic=F32)).error)


def test_gamma():
    assert gamma(3, 0.1) == pytest.approx(0.3 / 0.7)
    assert gamma(10, 0.1) == math.inf


def test_bfloat16_rounds_to_nearest_even():
    assert rounded(np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-9]), "bfloat16").tolist() == [1, 1 + 2**-6, 1]
    assert rounded(np.array([3.4e38, -3.4e38, 1e-45]), "bfloat16").tolist() == [math.inf, -math.inf, 0]


def test_ulps_and_bits():
    assert spacing(np.array([1.0, 1.5, 2.0, 0.0]), "float32").tolist() == [2**-23, 2**-23, 2**-22, 2**-149]
    assert not same_bits(np.array([0.0]), np.array([-0.0]))
    assert same_bits(np.array([math.nan]), np.array([math.nan]))


def test_nan_and_wrong_shapes_fail():
    want = bounds.Expected("y", np.zeros(2), np.ones(2))
    for got in (np.array([0, math.nan], np.float32), np.zeros(3, np.float32), np.zeros(2), [0, 0]):
        with pytest.raises(Failure):
            Record(F32).compare(got, want)
    record = Record(F32)
    record.compare(np.zeros(2, np.float32), want)
    assert record.rho == 0
    assert record.ulps == {"0": 2}


def test_noise_has_the_size_of_the_bounds():
    """For one op whose bound is known, t √(ΣE²/3) of the row, within the spread of a few samples."""
    x = draw(1, 400)

    def run(backend):
        return {"y": backend.to_numpy(backend.add(backend.asarray(x), backend.asarray(x))[0])}

    (want,) = tolerances(run, F32)
    E = bounds.expected("add", (x, x), {}, replace(F32, probable=True))[0].bound
    assert float(want.bound[0]) == pytest.approx(7.5 * math.sqrt((E**2).sum() / 3), rel=0.15)


# One feature: LayerNorm is β, and no gradient passes it.
ONE_FEATURE = ModelRecipe(398, "pretraining", 1, B=1, S=6, A=1, D=1, F=8, V=2, eps=1e-5, mask="all")


def test_where_rounding_leaves_products_of_errors():
    def measured(recipe):
        run = training(recipe, "float32")
        return orders(run, F32, distances(run, F32)[1])

    found = measured(ONE_FEATURE)
    assert found["loss"] == 1
    assert found["bert.encoder.layer.0.output.LayerNorm.weight"] == 1
    assert found["bert.embeddings.LayerNorm.bias"] == 2
    assert found["bert.embeddings.LayerNorm.weight"] == 3
    wider = measured(replace(ONE_FEATURE, D=4))
    assert {name: k.max() for name, k in wider.items() if k.size and k.max() > 1} == {}


def test_products_of_errors_are_forgiven_and_nothing_else():
    """PyTorch computes x/σ − μ/σ there, and is 1.4 times as far off as a sum of errors would be."""
    from refbert_torch import TorchBackend

    subject, name = Subject("torch", TorchBackend), "bert.encoder.layer.0.attention.output.LayerNorm.weight"
    recipe, record = replace(ONE_FEATURE, rate=0.3, part=True), Record(F32)
    run = training(recipe, "float32")
    (want,) = (one for one in tolerances(run, F32) if one.name == name)
    got = dict(training(recipe, "float32", own=True)(subject.backend))
    assert abs(got[name]) > want.bound
    compare(subject, run, got, record)
    assert record.rho < 1
    with pytest.raises(Failure, match=f"{name} is off by 1e-09"):
        compare(subject, run, got | {name: np.array([1e-9], np.float32)}, Record(F32))


@pytest.mark.parametrize("op", sorted(bounds.ARRAYS))
def test_probable_errors_are_of_the_size_that_float32_has(op):
    """Their root mean square over an output lies above what NumPy's float32 commits, and within 300 times of it; an
    op that rounds nothing has none. The worst case lies above both."""
    probable = replace(F32, probable=True)
    for recipe in corpus(op):
        if set(recipe.regimes) != {"normal"} or max(recipe.sizes.values(), default=0) > 5000:
            continue
        case = recipe.build("float32")
        if 0 in (a.size for a in case.arrays):
            continue
        narrow = [a.astype(np.float32) for a in case.arrays]
        y, back = getattr(ops, op)(*narrow, **case.options)
        got = [y, *back(case.dy.astype(np.float32))]
        sure = bounds.expected(op, case.arrays, case.options, F32, case.dy)
        likely = bounds.expected(op, case.arrays, case.options, probable, case.dy)
        for one, worst, some in zip(got, sure, likely, strict=True):
            finite = np.isfinite(worst.bound)
            assert (some.bound[finite] <= worst.bound[finite] * (1 + 1e-9)).all(), (recipe, some.name)
            rms = np.sqrt(np.mean((one - some.y)[finite] ** 2)) if finite.any() else 0.0
            allowed = np.sqrt(np.mean(some.bound[finite] ** 2)) if finite.any() else 0.0
            assert rms <= allowed, (recipe, some.name)
            if one.size >= 64 and rms:
                assert allowed <= 300 * rms, (recipe, some.name, allowed / rms)


NARROW = {"bfloat16": 256, "float16": 2048}  # where a sum of ones stops that is made in the dtype


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(
    ("op", "arrays", "options", "which"),
    [
        ("embedding", [(2, 3)], {"ids": np.zeros(5000, np.int64)}, 0),
        ("gather", [(2, 3)], {"positions": np.zeros(5000, np.int64)}, 0),
        ("linear", [(5000, 2), (3, 2), (3,)], {}, 2),
        ("layer_norm", [(5000, 4), (4,), (4,)], {"eps": 1e-12}, 2),
    ],
)
def test_a_sum_is_bounded_in_the_declared_accumulation(dtype, op, arrays, options, which):
    """float32 for halves: 5000 ones are 5000, rounded once; a sum in the dtype is no honest one unless declared."""
    x = [rounded(np.random.default_rng(i).standard_normal(shape), dtype) for i, shape in enumerate(arrays)]
    y, _ = getattr(ops, op)(*x, **options)

    def bound(arithmetic):
        want = bounds.expected(op, x, options, arithmetic, np.ones(y.shape))[1 + which]
        assert want.y.flat[0] == 5000
        return want.bound.flat[0]

    u = Arithmetic.of(dtype).u
    assert u * 5000 <= bound(Arithmetic.of(dtype)) < 4 * u * 5000
    assert bound(Arithmetic.of(dtype, {"accumulation": dtype})) > 5000 - NARROW[dtype]


def test_a_sum_over_keys_or_parameters_is_too():
    """In bfloat16 as many roundings as there are keys, or weights, would allow anything; they are made in float32."""
    a = Arithmetic.of("bfloat16")
    x = [rounded(np.random.default_rng(i).standard_normal((1, 512, 4)), "bfloat16") for i in range(3)]
    (want,) = bounds.expected("attention", x, {"mask": np.ones((1, 512)), "heads": 1, "mask_value": -math.inf}, a)
    assert np.isfinite(want.bound).all()
    norm = bounds.normed({"w": np.ones(10_000)}, a)
    assert norm.y == 100
    assert norm.bound < 20
