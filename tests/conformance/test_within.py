"""`assert_within`: other people's formulas and libraries, mistakes that fixed tolerances miss, and none made up."""

from __future__ import annotations

import re
import subprocess
import sys

import mpmath
import numpy as np
import pytest
import torch
from scipy import special

from refbert_conformance import assert_within, bound
from refbert_conformance.tolerances.arithmetic import UNIT_ROUNDOFF

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 40)).astype(np.float32)
W = RNG.standard_normal((40, 24)).astype(np.float32)
G = RNG.standard_normal(40).astype(np.float32)


def rms_norm(x, gamma):
    return gamma * x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6)


def rope(x, angle):
    a, b = np.split(x, 2, axis=-1)
    c, s = np.cos(angle), np.sin(angle)
    return np.concatenate([a * c - b * s, a * s + b * c], axis=-1)


def swiglu(x, w, v):
    z = x @ w
    return z / (1 + np.exp(-z)) * (x @ v)


def logsumexp(x):
    m = x.max(axis=-1, keepdims=True)
    return np.squeeze(m, -1) + np.log(np.exp(x - m).sum(axis=-1))


def online_softmax(x):
    """By blocks, with a running maximum (Milakov & Gimelshein 2018)."""
    m, s = np.full_like(x[:, :1], -1e30), np.zeros_like(x[:, :1])
    for part in np.array_split(x, 4, axis=-1):
        top = np.maximum(m, part.max(axis=-1, keepdims=True))
        s = s * np.exp(m - top) + np.exp(part - top).sum(axis=-1, keepdims=True)
        m = top
    return np.exp(x - m) / s


def scaled_int8(x, q, scale):
    return x @ (q * scale)


def mixture(x, w, v, gate):
    p = np.exp(gate - np.max(gate, axis=-1, keepdims=True))
    p = p / np.sum(p, axis=-1, keepdims=True)
    return np.einsum("ne,neo->no", p, np.stack([x @ w, x @ v], axis=1))


def convolution(x, kernel):
    return np.lib.stride_tricks.sliding_window_view(x, 5, axis=-1) @ kernel


def cumulative(x):
    return np.cumsum(x, axis=-1) / (1 + abs(x)) ** 2


def group_norm(x):
    parts = np.reshape(x, (6, 5, 8))
    return ((parts - np.mean(parts, -1, keepdims=True)) / np.sqrt(np.var(parts, -1, keepdims=True) + 1e-5)).reshape(
        6, 40
    )


ANGLE = RNG.uniform(-3, 3, (6, 20)).astype(np.float32)
Q = RNG.integers(-127, 128, (40, 24)).astype(np.int8)
FORMULAS = {
    rms_norm: (X, G), rope: (X, ANGLE), swiglu: (X, W, W[:, ::-1].copy()), logsumexp: (X,), online_softmax: (X,),
    scaled_int8: (X, Q, np.float32(0.01) * np.ones(24, np.float32)), cumulative: (X,), group_norm: (X,),
    mixture: (X, W, -W, X[:, :2]), convolution: (X, G[:5]),
}  # fmt: skip


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda f: f.__name__)
def test_float32_of_a_formula_is_within_and_not_by_far(formula):
    inputs = FORMULAS[formula]
    y = formula(*inputs)
    assert y.dtype == np.float32
    assert_within(y, formula, *inputs)
    found = bound(formula, *inputs)
    error = abs(y - found.value)
    assert (error / found.bound).max() > 0.002, "a bound that nothing comes near would find nothing"
    with pytest.raises(AssertionError, match=r"should be .* and may be off by .* ULP of float32"):
        assert_within(y + 3 * found.bound, formula, *inputs)


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda f: f.__name__)
def test_a_bound_shrinks_with_the_roundoff(formula):
    wide, narrow = (bound(formula, *FORMULAS[formula], arithmetic=name).bound for name in ("float64", "float32"))
    ratio = UNIT_ROUNDOFF["float32"] / UNIT_ROUNDOFF["float64"]
    measured = np.median((narrow / wide)[wide > 0])
    assert 0.4 * ratio < measured < 1.2 * ratio, "of float64 half is the reference's own"


# ufunc -> its exact value; arguments where it is smooth.
EXACT = {
    "sin": mpmath.sin, "cos": mpmath.cos, "exp2": lambda x: mpmath.mpf(2) ** x, "expm1": mpmath.expm1,
    "log1p": mpmath.log1p, "log2": lambda x: mpmath.log(x, 2), "square": lambda x: x * x, "reciprocal": lambda x: 1 / x,
    "absolute": abs,
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_a_function_s_bound_holds_for_an_argument_that_is_off(name):
    """x·x is rounded first: what the function makes of that error is in its bound."""
    x = RNG.uniform(0.1, 1.7, 200).astype(np.float32)

    def formula(x):
        return getattr(np, name)(x * x * x)

    y, found = formula(x), bound(formula, x)
    exact = np.array([float(EXACT[name](mpmath.mpf(float(v)) ** 3)) for v in x])
    assert (abs(y - exact) <= found.bound).all()
    assert (found.bound < 64 * UNIT_ROUNDOFF["float32"] * (1 + abs(exact)) * 8).all()


def layer_norm(x):
    d = x - x.mean(axis=-1, keepdims=True)
    return d / np.sqrt((d * d).mean(axis=-1, keepdims=True) + 1e-12)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def gelu(x):
    return x * 0.5 * special.erfc(-x / np.sqrt(2))


def mean_gradient(x, targets):
    return 2 * (x - targets) / x.size


def adam_step(g, m):
    return 1e-3 * (0.9 * m + 0.1 * g) / (1 - 0.9)


def row_sums(x):
    return x.sum(axis=-1)


def _mistakes():
    wide = RNG.uniform(-1, 1, (2, 50_000)).astype(np.float32)
    yield "softmax over 50,000 classes at a temperature of 1.1", softmax, (wide,), softmax(wide / 1.1), "float32"
    x = -np.linspace(4.6, 8, 100).astype(np.float32)
    yield "GELU: 0 from −4.6 on", gelu, (x,), np.zeros_like(x), "float32"
    many = RNG.uniform(-1, 1, (1000, 1000)).astype(np.float32)
    yield (
        "the gradient of a mean has the other sign",
        mean_gradient,
        (many, 0 * many),
        -mean_gradient(many, 0),
        "float32",
    )
    g = RNG.standard_normal(100).astype(np.float32) * np.float32(1e-3)
    yield "Adam without its bias correction", adam_step, (g, 0 * g), np.float32(1e-3) * np.float32(0.1) * g, "float32"
    half = torch.tensor(RNG.uniform(0.5, 1.5, (8, 96)), dtype=torch.bfloat16)
    narrow = torch.zeros(8, dtype=torch.bfloat16)
    for column in half.T:
        narrow = narrow + column
    yield "a bfloat16 sum that is kept in bfloat16", row_sums, (half,), narrow, "bfloat16"


@pytest.mark.parametrize(("formula", "inputs", "wrong", "dtype"), [
    pytest.param(*rest, id=what) for what, *rest in _mistakes()
])  # fmt: skip
def test_five_mistakes_that_assert_close_does_not_find(formula, inputs, wrong, dtype):
    kind = getattr(torch, dtype)
    exact = formula(*(np.asarray(torch.as_tensor(x).double()) for x in inputs))
    torch.testing.assert_close(torch.as_tensor(wrong), torch.as_tensor(exact).to(kind))
    with pytest.raises(AssertionError, match="should be"):
        assert_within(wrong, formula, *inputs, arithmetic=dtype)


def test_one_that_it_forgives_rightly():
    """The sum nearly cancels, so that another order of the same additions is far off in relative terms."""
    x = np.concatenate([RNG.standard_normal(5000) * 1e3, [0.0]]).astype(np.float32)
    x[-1] = -np.float32(x.astype(np.float64).sum())
    x = x[None]
    y = np.add.accumulate(x, axis=-1)[:, -1]
    exact = row_sums(x.astype(np.float64))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(torch.tensor(y), torch.tensor(exact, dtype=torch.float32))
    with pytest.warns(RuntimeWarning, match="y = 0 would pass"):
        assert_within(y, row_sums, x)


def kahan(x):
    s = c = np.zeros_like(x[:, 0])
    for column in x.T:
        y = column - c
        t = s + y
        s, c = t, (t - s) - y
    return s


def test_a_bound_that_finds_nothing_is_said_to_be_one():
    """A chain of + and − is taken as written, and a compensated one loses every digit if each step errs on its own."""
    with pytest.warns(RuntimeWarning, match="y = 0 would pass"):
        assert_within(kahan(X), kahan, X)
    assert_within(kahan(X), row_sums, X)


def test_it_says_which_steps_the_bound_comes_from():
    with pytest.raises(AssertionError) as raised:
        assert_within(rms_norm(X, G) * np.float32(1.001), rms_norm, X, G)
    text = str(raised.value)
    assert "what it may be off by comes from" in text
    assert re.search(r"\n  +\d+%  line \d+: return gamma \* x / np.sqrt\(np.mean\(x \* x.*  \(sum\)", text)
    assert sum(int(part.split("%")[0]) for part in text.split("\n  ")[1:]) > 60


def test_arrays_of_other_libraries():
    y = torch.tensor(X, requires_grad=True) @ torch.tensor(W)
    assert_within(y, np.matmul, X, torch.tensor(W))
    half = torch.tensor(X, dtype=torch.bfloat16)
    assert_within(half @ half.T, lambda x: x @ np.transpose(x), half, arithmetic="bfloat16")


def test_a_declared_arithmetic():
    y = (X.astype(np.float16).astype(np.float32) @ W.astype(np.float16).astype(np.float32)).astype(np.float32)
    with pytest.raises(AssertionError, match="ρ = "):
        assert_within(y, np.matmul, X, W)
    assert_within(y, np.matmul, X, W, arithmetic={"dtype": "float32", "matmul_inputs": "float16"})


@pytest.mark.parametrize(("formula", "name"), [
    (np.arctan, "arctan"), (np.sort, "sort"), (np.linalg.pinv, "pinv"), (lambda x: np.power(x, 1.5), "power"),
    (np.multiply.reduce, "multiply"), (lambda x: np.linalg.norm(x, 1), "norm"), (np.median, "median"),
    (lambda x: x.prod(-1), "ndarray.prod"), (lambda x: x.astype(int), "ndarray.astype to int64"),
    (lambda x: np.asarray(x) * 0.1, "asarray"), (lambda x: [np.zeros(6).__setitem__(..., x[:, 0]), x][1], "asarray"),
    (lambda x: np.sum(x, -1, where=x > 0), "sum with where="), (lambda x: x.max(initial=0.0), "max with initial="),
    (lambda x: [np.add.at(np.zeros(6), [0], x[0, :1]), x][1], "add.at"), (lambda x: x ** (x[0, 0] * 0 + 3), "power"),
    (lambda x: np.exp(x, dtype=np.float32), "exp"),
])  # fmt: skip
def test_what_has_no_rule_is_refused_by_name(formula, name):
    with pytest.raises(TypeError, match=rf"numpy\.(linalg\.|fft\.)?{name} has (no|a) bound here"):
        bound(formula, X)


def views(x):
    y = x * 0.1
    even = y[:, ::2]
    even *= 0.3
    y.T[3], y.reshape(-1)[::7] = np.exp(y[:, 0] * 20.1), x.reshape(-1)[::7] * 0.3
    np.add.at(y[0], [0, 0, 1], y[1, :3] * 1e4)
    first, _ = np.split(y, 2)
    first += np.exp(x[:3] * 2.1)
    return y


def written(x):
    y = np.negative(x, out=np.zeros_like(x))
    return np.exp(x * 2.1, out=y) - np.clip(x * 0.1, a_min=-0.1, a_max=0.2).squeeze().reshape(6, 40, order="F")


def scattered(x):
    y = np.zeros_like(x, shape=(4, 40)) + 1e3
    np.add.at(y, [0, 0, 1, 0, 2, 2], abs(x))
    return y[:3] - y[3]


def in_place(x):
    y = -x
    x *= 0.1
    return x + y


@pytest.mark.parametrize("formula", [
    lambda x: (x, x), lambda x: np.array([x.mean(), x.var()]), lambda x: x.astype(np.float16) * 0.1,
    lambda x: np.exp(x, out=np.zeros(X.shape)), lambda x: np.mean(x * 0.1, axis=-1, where=x > 0),
    lambda x: np.pad(x * 0.1, 1, mode="mean"), lambda x: np.sum(x, initial=1e6), lambda x: x * 1j,
])  # fmt: skip
def test_what_would_have_a_wrong_bound_is_refused(formula):
    with pytest.raises(TypeError):
        bound(formula, X)


def normalized(image, mean):
    return (image / 255 - mean) / 0.225


@pytest.mark.parametrize("formula", [
    normalized, lambda q, z: (q.astype(float) - 3) * 0.1 - z, lambda q, z: np.sin(q * 0.37) - np.sin(z),
    lambda q, z: np.where(q > 3, q, z) * 0.1, lambda q, z: (q * q.astype(np.int64) + 1) * 0.7 - z,
    lambda q, z: (q > 100) * 0.3 - z, lambda q, z: z * q.max(-1, keepdims=True) + np.log(q + 1.0),
])  # fmt: skip
def test_what_is_made_of_integers_is_rounded(formula):
    """In float32 image / 255 is off by a rounding, and much of it is left where the mean is near."""
    q = RNG.integers(0, 256, (64, 40)).astype(np.uint8)
    z = np.float32(q / 255 + 1e-4)
    y = np.float32(formula(np.float32(q) if formula is normalized else q.astype(np.int64), z))
    assert_within(y, formula, q, z)
    with pytest.raises(AssertionError):
        assert_within(y + np.float32(0.01), formula, q, z)


def test_what_constants_alone_make_has_none():
    with pytest.raises(TypeError, match="constants alone"):
        bound(lambda p: np.sin(np.arange(9.0)), np.arange(9))
    labels = np.array([1, -100, 3])

    def formula(x, labels):
        labels[labels == -100] = 0
        return x[labels] * 1.1

    y = X[[1, 0, 3]] * np.float32(1.1)
    assert_within(y, formula, X, labels)
    assert labels.tolist() == [1, -100, 3], "the caller's"


@pytest.mark.parametrize("narrow", [
    lambda x, q: x * np.sqrt(q), lambda x, q: x * np.log1p(q), lambda x, q: x * (q * q), lambda x, q: x * -q,
])  # fmt: skip
def test_integers_that_are_too_narrow_are_no_reference(narrow):
    """NumPy's own result is a float16, or has wrapped around: nothing that float32 should be compared with."""
    q = RNG.integers(100, 128, X.shape).astype(np.uint8)
    with pytest.raises(TypeError, match=r"computes with uint8 as NumPy does.*begin with x.astype\(np.int64\)"):
        bound(narrow, X, q)
    assert_within(narrow(X, q.astype(np.float32)), lambda x, q: narrow(x, q.astype(np.int64)), X, q)


def test_a_number_that_the_dtype_has_is_exact():
    p = (1 - RNG.random(64) * 1e-5).astype(np.float32)
    with pytest.raises(AssertionError):
        assert_within((1 - p) * np.float32(1.001), lambda p: 1 - p, p)
    x = np.float32([1, 3])
    assert bound(lambda x: x - x * 0.1 * 10, x).bound[0] > bound(lambda x: x - x * 0.125 * 8, x).bound[0]


def test_arrays_by_name_are_inputs():
    by_name = bound(lambda x, gamma: np.exp(gamma) * x, X, gamma=torch.tensor(G))
    assert np.array_equal(by_name.bound, bound(lambda x, gamma: np.exp(gamma) * x, X, G).bound)
    assert np.array_equal(by_name.value, np.exp(G.astype(float)) * X)

    def layers(x, p, *, last=(), scale=1.0):
        for w in (*p["weights"], *last):
            x = np.tanh(x @ np.exp(w)) * scale
        return x

    p = {"weights": [W, torch.tensor(W.T)], "name": "mlp"}
    found = bound(layers, X, p, last=(W,), scale=0.5)
    one = bound(lambda x, v, w, u: layers(x, {"weights": [v, w, u]}, scale=0.5), X, W, W.T, W)
    assert np.array_equal(found.bound, one.bound)
    assert_within(layers(X, {"weights": [W, W.T]}), layers, X, p)
    assert_within(X.sum((0, 1)), lambda x, axis: x.sum(axis), X, axis=(0, 1))
    assert bound(lambda x: x * 0.1, [1, 2.0, 3]).value.tolist() == [0.1, 0.2, 3 * 0.1]


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "int4"])
def test_dtypes_that_numpy_has_not(name):
    dtype = getattr(pytest.importorskip("ml_dtypes"), name)
    x = np.arange(-4, 4).astype(dtype)
    assert_within(x.astype(np.float32) * np.float32(0.1), lambda x, z: x * z, x, np.full(8, 0.1, np.float32))


@pytest.mark.parametrize("formula", [
    in_place, views, written, scattered,
    lambda x: np.clip(x * 0.1, None, 0.05), lambda x: np.max(x * 0.1, -1), lambda x: special.erf(x * 0.3),
    lambda x: np.pad(x * 0.1, ((0, 0), (1, 1)), constant_values=-1).sum(-1), lambda x: np.logaddexp(x * 10.1, x * 9.7),
    lambda x: np.full_like(x, 0.1) - x, lambda x: np.var(x * 0.3, axis=(0, 1), ddof=1), lambda x: np.minimum(x, 0.1),
])  # fmt: skip
def test_correct_ones_are_within(formula):
    y = formula(X.copy())
    assert_within(np.float32(y), formula, X)
    with pytest.raises(AssertionError):
        assert_within(np.float32(y) + np.float32(1e-2), formula, X)


def test_what_is_due_exactly_is_due():
    with pytest.raises(AssertionError, match=r"y\[0, 0\] is 7.0, must be -inf"):
        assert_within(np.full((1, 1), 7.0), lambda x: np.where(x > 0, x, -np.inf), -np.ones((1, 1)))
    with pytest.raises(AssertionError, match="must be nan"):
        assert_within(np.full(1, 7.0), np.log, -np.ones(1))
    with pytest.raises(AssertionError, match="complex"):
        assert_within(X + 1j, lambda x: x, X)


@pytest.mark.parametrize(("formula", "x"), [
    (lambda x: (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True), np.full(7, 0.1, np.float32)),
    (lambda x: np.log(1 - x * (1 / x)), np.float32([3, 41])),
])  # fmt: skip
def test_an_infinity_that_is_rounding_s_is_not_due(formula, x):
    """The zeros of exact arithmetic are numbers in another, and 0/0 is one, too."""
    assert not np.isfinite(bound(formula, x).value).any()
    with pytest.raises(AssertionError, match="nothing can be said"):
        assert_within(np.full(x.shape, -1.0), formula, x)
    finite = [1.0, *np.full(x.size - 1, -1.0)]
    with pytest.warns(RuntimeWarning, match=f"{x.size:,} of {x.size + 1:,} have no bound"):
        assert_within([*finite, -1.0], lambda x: np.concatenate([np.ones(1), formula(x)]), x)


def test_where_nothing_can_be_said_that_is_said():
    def masked(x, least):
        return softmax(np.where(x > 0, x, least))

    assert_within(masked(X, np.finfo(np.float32).min), masked, X, least=np.finfo(np.float32).min)
    with pytest.raises(AssertionError, match="nothing can be said"):
        assert_within(np.zeros_like(X), masked, X, arithmetic="float16", least=-65504)
    with pytest.warns(RuntimeWarning, match="1 of 2 have no bound"):
        assert_within(np.float32([np.inf, 2]), lambda x: 1 / (x * x * 1e-30), np.float32([1e-25, 1e15 / 2**0.5]))


def test_shapes_and_kinds():
    with pytest.raises(AssertionError, match=r"y has shape \(6,\), expected \(6, 40\)"):
        assert_within(X[:, 0], lambda x: x + 1, X)
    assert_within(np.float32(3.5), lambda x: x.sum(), np.array([1.5, 2.0], np.float32))
    ids = np.array([1, 0, 1])
    assert_within(X[ids], lambda x, ids: x[ids], X, ids)
    assert np.array_equal(bound(lambda x: x > 0, X).value, X > 0)


def test_it_needs_no_hypothesis_and_starts_fast():
    """0.2 seconds is the aim (docs/assert-within.md has what was measured): here only what it may not import."""
    code = "import sys; from refbert_conformance import assert_within; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"hypothesis", "scipy", "pytest", "torch"} & set(loaded)
