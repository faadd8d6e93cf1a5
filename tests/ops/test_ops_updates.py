"""The optimizer updates: Google's own test, PyTorch's AdamW, the papers' algorithms at 100 digits, clipping."""

from __future__ import annotations

import mpmath
import numpy as np
import oracles as o
import pytest
import torch
from oracles import agree, constant, rounded, sqrt

from refbert import ops

SHAPE, STEPS = (3, 5), 7
SETTINGS = {"lr": 0.03, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0.1}


def numbers(seed=0):
    """A parameter and its gradients; one of them zero, one large, one small."""
    rng = np.random.default_rng(seed)
    gradients = rng.standard_normal((STEPS, *SHAPE)) * np.array([1, 0, 100, 1e-5, 1, 1, 0.1])[:, None, None]
    return rng.standard_normal(SHAPE), gradients


def run(rule, p, gradients, **changes):
    """(p, m, v) after every step."""
    settings = SETTINGS | changes
    m = v = np.zeros_like(p)
    for t, g in enumerate(gradients, 1):
        step = {} if rule is ops.bert_adam else {"step": t}
        p, m, v = rule(p, g, m, v, **settings, **step)
        yield p, m, v


def in_words(rule, p, gradients, number, root, power, norm):
    """The three algorithms as published, in any arithmetic."""
    lr, beta1, beta2, eps, decay = (number(SETTINGS[k]) for k in ("lr", "beta1", "beta2", "eps", "weight_decay"))
    m = v = 0 * p
    for t, g in enumerate(gradients, 1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        if rule == "bert_adam":
            r = m / (root(v) + eps)
        else:
            r = (m / (1 - power(SETTINGS["beta1"], t))) / (root(v / (1 - power(SETTINGS["beta2"], t))) + eps)
        r = r + decay * p
        ratio = norm(p) / norm(r) if rule == "lamb" else number(1)
        p = p - lr * ratio * r
        yield p, m, v


@pytest.mark.parametrize("rule", ["bert_adam", "adamw", "lamb"])
def test_the_published_algorithm(rule):
    p, gradients = numbers()
    with mpmath.workdps(o.DIGITS):
        reference = list(
            in_words(
                rule,
                o.mp(p),
                [o.mp(g) for g in gradients],
                mpmath.mpf,
                o.mp_sqrt,
                lambda beta, t: mpmath.mpf(beta) ** t,
                lambda x: mpmath.sqrt((x * x).sum()),
            )
        )
    # In float64 the powers take a pow each, which rounds like any elementary function.
    bounds = in_words(
        rule,
        rounded(p),
        [rounded(g) for g in gradients],
        rounded,
        sqrt,
        lambda beta, t: constant(beta**t, o.ELEMENTARY),
        lambda x: sqrt((x * x).reshape(-1).sum(axis=0)),
    )
    for t, (ours, true, bound) in enumerate(
        zip(run(getattr(ops, rule), p, gradients), reference, bounds, strict=True), 1
    ):
        for name, a, b, e in zip("pmv", ours, true, bound, strict=True):
            agree(a, b, e, f"step {t}, {name}")


def test_pytorchs_adamw():
    p, gradients = numbers(1)
    tensor = torch.from_numpy(p.copy()).requires_grad_()
    s = SETTINGS
    theirs = torch.optim.AdamW(
        [tensor], lr=s["lr"], betas=(s["beta1"], s["beta2"]), eps=s["eps"], weight_decay=s["weight_decay"]
    )
    P, M, V = rounded(p), rounded(np.zeros(SHAPE)), rounded(np.zeros(SHAPE))
    ours_bounds = in_words(
        "adamw",
        rounded(p),
        [rounded(g) for g in gradients],
        rounded,
        sqrt,
        lambda beta, t: constant(beta**t, o.ELEMENTARY),
        None,
    )
    for t, (g, (ours, _, _), (E, _, _)) in enumerate(
        zip(gradients, run(ops.adamw, p, gradients), ours_bounds, strict=True), 1
    ):
        tensor.grad = torch.from_numpy(g.copy())
        theirs.step()
        # PyTorch's order: decay the weight, move the mean towards g, correct the root and the step apart.
        P = P * (1 - rounded(s["lr"]) * s["weight_decay"])
        M = M + (rounded(g) - M) * (1 - s["beta1"])
        V = V * s["beta2"] + rounded(g) * g * (1 - s["beta2"])
        c1, c2 = (1 - constant(s[b] ** t, o.ELEMENTARY) for b in ("beta1", "beta2"))
        P = P - (rounded(s["lr"]) / c1) * (M / (sqrt(V) / sqrt(c2) + s["eps"]))
        agree(ours, tensor.detach().numpy(), E.error + P.error, f"step {t}")


def test_googles_optimization_test():
    """optimization_test.py: 100 steps at 0.2 towards [0.4, 0.2, −0.5] for the loss mean((x − w)²)."""
    w, x = np.array([0.1, -0.2, -0.1]), np.array([0.4, 0.2, -0.5])
    m = v = np.zeros(3)
    path = []
    for _ in range(100):
        w, m, v = ops.bert_adam(w, 2 * (w - x) / 3, m, v, lr=0.2, beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.0)
        path.append(w)
    np.testing.assert_allclose(w, x, rtol=1e-2, atol=1e-2)  # what Google asks
    # What Google's code gives in float64, to the eight digits that were written down.
    agree(path[0], np.array([0.73235555, 0.43238054, -0.73238054]), 0.5e-8)
    agree(path[-1], np.array([0.40164604, 0.19782445, -0.49782445]), 0.5e-8)


def test_step_without_bias_correction_is_larger_by_what_the_file_says():
    """Against PyTorch's Adam, which corrects: the same gradient every time, ε = 1e-30."""
    tensor = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([tensor], lr=1.0, eps=1e-30)
    p = m = v = np.zeros(1)
    factors = []
    for _ in range(1000):
        before, their_before = p, tensor.item()
        p, m, v = ops.bert_adam(p, np.full(1, 0.7), m, v, lr=1.0, beta1=0.9, beta2=0.999, eps=1e-30, weight_decay=0.0)
        tensor.grad = torch.full((1,), 0.7, dtype=torch.float64)
        adam.step()
        factors.append(float((p - before)[0] / (tensor.item() - their_before)))
    assert f"{factors[0]:.2f}" == "3.16"
    assert f"{max(factors):.2f}" == "6.57"
    assert np.argmax(factors) + 1 == 12
    assert f"{factors[-1]:.2f}" == "1.26"


@pytest.mark.parametrize("rule", [ops.bert_adam, ops.adamw], ids=["bert_adam", "adamw"])
def test_zero_gradient_is_pure_decay(rule):
    p = np.random.default_rng(2).standard_normal(SHAPE)
    ((new, m, v),) = run(rule, p, [np.zeros(SHAPE)], weight_decay=0.01, lr=1e-4)
    assert not m.any()
    assert not v.any()
    with mpmath.workdps(o.DIGITS):
        exactly = o.mp(p) * (1 - mpmath.mpf(0.01) * mpmath.mpf(1e-4))
    # lr·(λp): two roundings of a number 1e-6 of p; the subtraction: one of p
    agree(new, exactly, o.U * np.abs(new) + 2 * o.U * 1e-6 * np.abs(p))
    ((new, _, _),) = run(rule, p, [np.zeros(SHAPE)], weight_decay=0.0)
    assert np.array_equal(new, p)


def test_lamb_step_is_lr_times_the_weights_norm():
    p, gradients = numbers(3)
    for scale in (1.0, 1e-3, 1e3):  # whatever the gradient's scale
        ((new, _, _),) = run(ops.lamb, p, [scale * gradients[0]], weight_decay=0.0)
        length = np.linalg.norm(new - p) / (SETTINGS["lr"] * np.linalg.norm(p))
        # Each entry of p − new is off by u|p| and more from the step: relative to lr ‖p‖ that is u/lr.
        assert abs(length - 1) <= (4 / SETTINGS["lr"] + 2 * o.gamma(p.size) / o.U) * o.U


def test_lamb_falls_back_to_a_ratio_of_one():
    zero, (_, gradients) = np.zeros(SHAPE), numbers(4)
    ((lamb, _, _),) = run(ops.lamb, zero, gradients[:1])
    ((adamw, _, _),) = run(ops.adamw, zero, gradients[:1])
    assert np.array_equal(lamb, adamw)
    assert lamb.any()
    p = np.ones(SHAPE)
    ((new, _, _),) = run(ops.lamb, p, [zero], weight_decay=0.0)
    assert np.array_equal(new, p)


@pytest.mark.parametrize("rule", [ops.adamw, ops.lamb], ids=["adamw", "lamb"])
def test_steps_count_from_1(rule):
    with pytest.raises(ValueError, match="counts from 1, got 0"):
        rule(*np.ones((4, 2)), **SETTINGS, step=0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("rule", [ops.bert_adam, ops.adamw, ops.lamb], ids=["bert_adam", "adamw", "lamb"])
def test_updates_are_pure(rule, dtype):
    p, gradients = numbers(5)
    arrays = [x.astype(dtype) for x in (p, gradients[0], gradients[1], np.abs(gradients[2]))]
    before = [x.tobytes() for x in arrays]
    for x in arrays:
        x.flags.writeable = False
    step = {} if rule is ops.bert_adam else {"step": 3}
    out = rule(*arrays, **SETTINGS, **step)
    assert [x.tobytes() for x in arrays] == before
    assert [(x.shape, x.dtype) for x in out] == [(SHAPE, dtype)] * 3
    assert not any(np.shares_memory(a, b) for a in out for b in arrays)


# -- clipping ---------------------------------------------------------------------------------------------------------


def clip(gradients, max_norm=1.0, epsilon=0.0):
    return ops.clip_by_global_norm(gradients, max_norm=max_norm, epsilon=epsilon)


@pytest.mark.parametrize("scale", [0.01, 10.0])
@pytest.mark.parametrize("epsilon", [0.0, 1e-6])
def test_clipping(scale, epsilon):
    rng = np.random.default_rng(6)
    gradients = {"a": scale * rng.standard_normal((3, 4)), "b": scale * rng.standard_normal(7)}
    clipped, norm = clip(gradients, epsilon=epsilon)
    with mpmath.workdps(o.DIGITS):
        n = mpmath.sqrt(sum((o.mp(g) * o.mp(g)).sum() for g in gradients.values()))
        # TensorFlow: c/max(n, c). PyTorch: min(1, c/(n + 1e-6)).
        factor = 1 / max(n, 1) if epsilon == 0 else min(mpmath.mpf(1), 1 / (n + mpmath.mpf(epsilon)))
        exact = {name: o.mp(g) * factor for name, g in gradients.items()}
    # 19 squares summed: γ₁₉ on n², half of that on n, and a root; then a sum, a quotient and a product.
    agree(np.float64(norm), np.array(n, object), (o.gamma(19) / 2 + o.U) * float(n))
    for name, g in clipped.items():
        agree(g, exact[name], (o.gamma(19) / 2 + o.gamma(5)) * np.abs(g), name)
        assert (scale > 1) or np.array_equal(g, gradients[name]), "below the limit nothing changes"


@pytest.mark.parametrize("scale", [0.01, 10.0])
def test_pytorchs_clip_grad_norm(scale):
    rng = np.random.default_rng(7)
    gradients = {"a": scale * rng.standard_normal((3, 4)), "b": scale * rng.standard_normal(7)}
    tensors = [torch.zeros(g.shape, dtype=torch.float64, requires_grad=True) for g in gradients.values()]
    for t, g in zip(tensors, gradients.values(), strict=True):
        t.grad = torch.from_numpy(g.copy())
    their_norm = torch.nn.utils.clip_grad_norm_(tensors, 1.5).item()
    clipped, norm = clip(gradients, max_norm=1.5, epsilon=1e-6)
    each = o.gamma(19) / 2 + o.gamma(5)  # theirs: a root per tensor and one more over the norms
    assert abs(norm - their_norm) <= 2 * each * norm
    for t, g in zip(tensors, clipped.values(), strict=True):
        agree(g, t.grad.numpy(), 2 * each * np.abs(g) + 2 * o.gamma(2) * np.abs(g))


def test_clipping_is_pure_and_keeps_the_dtype():
    gradients = {"a": np.full((2, 3), 5, np.float32), "b": np.full(2, 0.5, np.float32)}
    for g in gradients.values():
        g.flags.writeable = False
    clipped, norm = clip(gradients)
    assert isinstance(norm, float)
    assert {name: (g.shape, g.dtype) for name, g in clipped.items()} == {
        "a": ((2, 3), np.float32),
        "b": ((2,), np.float32),
    }
    unclipped, _ = clip(gradients, max_norm=1e9)
    assert not any(np.shares_memory(unclipped[name], gradients[name]) for name in gradients)
    assert clip({}) == ({}, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_norm_that_is_not_finite_spoils_everything(bad):
    clipped, norm = clip({"a": np.array([1.0, bad]), "b": np.array([2.0])})
    assert not np.isfinite(norm)
    assert all(np.isnan(g).all() for g in clipped.values())
