"""The equations of the ops without a gradient: optimizer updates, clipping, masked-LM data."""

from __future__ import annotations

import math

import numpy as np
from calculus import agree, shown

from refbert import ops

BETA1, BETA2, EPS, DECAY, LR = 0.9, 0.999, 1e-3, 0.01, 0.1
SETTINGS = {"lr": LR, "beta1": BETA1, "beta2": BETA2, "eps": EPS, "weight_decay": DECAY}


def moments(p, g, m, v):
    return [BETA1 * a + (1 - BETA1) * b for a, b in zip(m, g, strict=True)], [
        BETA2 * a + (1 - BETA2) * b**2 for a, b in zip(v, g, strict=True)
    ]


def state(rng):
    p, g, m = rng.standard_normal((3, 4))
    return p, g, m, rng.random(4)


@shown(
    "adamw",
    "m ← β₁ m + (1 − β₁) g                m̂ = m/(1 − β₁ᵗ)",
    "v ← β₂ v + (1 − β₂) g²               v̂ = v/(1 − β₂ᵗ)",
    "p ← p − lr ( m̂/(√v̂ + ε) + λ p )",
    "if g had the same mean at every step, E[m] = (1 − β₁ᵗ) E[g]",
)
def adamw(rng):
    p, g, m, v = state(rng)
    for t in (1, 7):
        m1, v1 = moments(p, g, m, v)
        m_hat, v_hat = [a / (1 - BETA1**t) for a in m1], [a / (1 - BETA2**t) for a in v1]
        p1 = [a - LR * (b / (math.sqrt(c) + EPS) + DECAY * a) for a, b, c in zip(p, m_hat, v_hat, strict=True)]
        for ours, expected in zip(ops.adamw(p, g, m, v, step=t, **SETTINGS), (p1, m1, v1), strict=True):
            agree(ours, expected)
    mean = np.zeros(4)
    for t in range(1, 6):
        mean = ops.adamw(p, g, mean, v, step=t, **SETTINGS)[1]
        agree(mean, (1 - BETA1**t) * g)


@shown(
    "bert_adam",
    "m ← β₁ m + (1 − β₁) g",
    "v ← β₂ v + (1 − β₂) g²",
    "p ← p − lr ( m/(√v + ε) + λ p )           ε = 1e-6, outside the root",
    "larger than Adam's by √(1 − β₂ᵗ)⁻¹ (1 − β₁ᵗ): 3.16 at t = 1, at most 6.57 (t = 12), 1.26 at t = 1000",
)
def bert_adam(rng):
    p, g, m, v = state(rng)
    m1, v1 = moments(p, g, m, v)
    p1 = [a - LR * (b / (math.sqrt(c) + EPS) + DECAY * a) for a, b, c in zip(p, m1, v1, strict=True)]
    for ours, expected in zip(ops.bert_adam(p, g, m, v, **SETTINGS), (p1, m1, v1), strict=True):
        agree(ours, expected)
    ratio = [(1 - BETA1**t) / math.sqrt(1 - BETA2**t) for t in range(1, 1001)]
    assert [f"{ratio[t - 1]:.2f}" for t in (1, 12, 1000)] == ["3.16", "6.57", "1.26"]
    assert max(ratio) == ratio[11]


@shown(
    "lamb",
    "m ← β₁ m + (1 − β₁) g                m̂ = m/(1 − β₁ᵗ)",
    "v ← β₂ v + (1 − β₂) g²               v̂ = v/(1 − β₂ᵗ)",
    "u = m̂/(√v̂ + ε) + λ p",
    "p ← p − lr ‖p‖/‖u‖ u                 Euclidean norms over the whole tensor; ratio 1 if ‖p‖ = 0 or ‖u‖ = 0",
)
def lamb(rng):
    p, g, m, v = state(rng)
    zero = np.zeros(4)
    for start in ((p, g, m, v), (zero, g, m, v), (zero, zero, zero, zero)):
        p, g, m, v = start
        m1, v1 = moments(p, g, m, v)
        u = [
            b / (1 - BETA1**3) / (math.sqrt(c / (1 - BETA2**3)) + EPS) + DECAY * a
            for a, b, c in zip(p, m1, v1, strict=True)
        ]
        norms = [math.sqrt(sum(a * a for a in x)) for x in (p, u)]
        ratio = norms[0] / norms[1] if all(norms) else 1
        p1 = [a - LR * ratio * b for a, b in zip(p, u, strict=True)]
        for ours, expected in zip(ops.lamb(p, g, m, v, step=3, **SETTINGS), (p1, m1, v1), strict=True):
            agree(ours, expected)


@shown(
    "clip_by_global_norm",
    "n = √( Σ over all tensors and entries g² )",
    "g ← g c/max(n, c)                    TensorFlow: epsilon = 0",
    "g ← g min(1, c/(n + 1e-6))           PyTorch's clip_grad_norm_: epsilon = 1e-6",
)
def clip_by_global_norm(rng):
    g = {"a": rng.standard_normal((2, 3)), "b": rng.standard_normal(4)}
    n = math.sqrt(sum(x * x for a in g.values() for x in a.reshape(-1)))
    for c in (n / 3, n, 2 * n):
        for epsilon, scale in ((0.0, c / max(n, c)), (1e-6, min(1, c / (n + 1e-6)))):
            clipped, norm = ops.clip_by_global_norm(g, max_norm=c, epsilon=epsilon)
            agree(norm, n)
            for name, x in g.items():
                agree(clipped[name], x * scale)


@shown(
    "mask_tokens",
    "chosen = select < rate and not special          special: [CLS], [SEP], padding",
    "id'    = [MASK]        where chosen and action < 0.8",
    "= random_ids    where chosen and 0.8 ≤ action < 0.9",
    "= id            elsewhere",
    "label  = id where chosen, IGNORE elsewhere      also where the token stays: it must be predicted all the same",
)
def mask_tokens(rng):
    n, rate = 400, 0.4
    ids, random_ids = rng.integers(5, 50, (2, n))
    special, select, action = rng.random(n) < 0.2, rng.random(n), rng.random(n)
    corrupted, labels = ops.mask_tokens(
        ids, special, select=select, action=action, random_ids=random_ids, rate=rate, mask_id=4
    )  # fmt: skip
    seen = set()
    for i in range(n):
        chosen = select[i] < rate and not special[i]
        if chosen and action[i] < 0.8:
            expected = 4
        elif chosen and 0.8 <= action[i] < 0.9:
            expected = random_ids[i]
        else:
            expected = ids[i]
        assert corrupted[i] == expected
        assert labels[i] == (ids[i] if chosen else ops.IGNORE)
        seen.add((bool(chosen), bool(action[i] < 0.8), bool(action[i] < 0.9), bool(special[i])))
    assert len(seen) == 3 + 3 * 2  # every way a token can go was gone
