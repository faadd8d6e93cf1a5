"""The equations of attention, head by head and query by query."""

from __future__ import annotations

import math

import numpy as np
from calculus import agree, forward_and_back, gradients, shown, softmax

from refbert import ops

HEADS, D = 2, 3


def scores(q, k, a, i, j):
    return sum(q[i][a * D + n] * k[j][a * D + n] for n in range(D)) / math.sqrt(D)


def probabilities(q, k, mask, value):
    """p[head][query][key] of one sequence. A masked key under −∞ is left out; one is visible."""
    S = len(q)
    out = []
    for a in range(HEADS):
        out.append([])
        for i in range(S):
            row = [scores(q, k, a, i, j) + (0 if mask[j] else value) for j in range(S)]
            seen = [j for j in range(S) if row[j].real != -math.inf]
            p = dict(zip(seen, softmax([row[j] for j in seen]), strict=True))
            out[-1].append([p.get(j, 0) for j in range(S)])
    return out


@shown(
    "attention",
    "s_ij = q_i · k_j / √D",
    "p_i  = softmax_j(s_ij + mask term)",
    "ds_ij = p_ij (dp_ij − Σ_l p_il dp_il)",
    "dq_i = 1/√D Σ_j ds_ij k_j           dk_j = 1/√D Σ_i ds_ij q_i",
    "A row with no visible key attends uniformly: p_ij = 1/S",
)
def attention_probabilities(rng):
    S, mask = 3, [1, 0, 1]
    q, k = rng.standard_normal((2, 1, S, HEADS * D))
    dp = rng.standard_normal((1, HEADS, S, S))
    for value in (-10000.0, -math.inf):
        f = lambda q, k, value=value: [probabilities(q[0], k[0], mask, value)]  # noqa: E731
        dq, dk = forward_and_back(ops.attention_probabilities, f, [q, k], dp,
                                  mask=np.array([mask]), heads=HEADS, mask_value=value)  # fmt: skip
        p = np.real(f(q.tolist(), k.tolist()))[0]
        ds = [[[p[a, i, j] * (dp[0, a, i, j] - sum(p[a, i] * dp[0, a, i])) for j in range(S)] for i in range(S)]
              for a in range(HEADS)]  # fmt: skip
        for a in range(HEADS):
            part = slice(a * D, (a + 1) * D)
            for i in range(S):
                agree(dq[0, i, part], sum(ds[a][i][j] * k[0, j, part] for j in range(S)) / math.sqrt(D))
                agree(dk[0, i, part], sum(ds[a][j][i] * q[0, j, part] for j in range(S)) / math.sqrt(D))
    p, _ = ops.attention_probabilities(q, k, mask=np.zeros((1, S)), heads=HEADS, mask_value=-math.inf)
    agree(p, np.full((1, HEADS, S, S), 1 / S))


@shown(
    "attention",
    "p = softmax(q kᵀ/√D + mask)          see attention_probabilities below",
    "p̃ = p keep / (1 − rate)              see refbert.ops.dropout; p̃ = p without it",
    "y_i = Σ_j p̃_ij v_j                   y = p̃ v, heads side by side: Concat(head_1, …, head_A)",
    "dp̃_ij = dy_i · v_j                dp̃ = dy vᵀ",
    "dv_j  = Σ_i p̃_ij dy_i             dv = p̃ᵀ dy",
)
def attention(rng):
    S, mask, rate = 3, [1, 1, 0], 0.25
    q, k, v, dy = rng.standard_normal((4, 1, S, HEADS * D))
    keep = rng.random((1, HEADS, S, S)) >= rate
    for kept, scale in ((None, 1.0), (keep, 1 / (1 - rate))):
        used = np.ones((1, HEADS, S, S)) if kept is None else kept

        def from_p(p, v, used=used, scale=scale):
            return [[sum(p[h // D][i][j] * used[0, h // D, i, j] * scale * v[0][j][h] for j in range(S))
                     for h in range(HEADS * D)] for i in range(S)]  # fmt: skip

        def f(q, k, v, from_p=from_p):
            return [from_p(probabilities(q[0], k[0], mask, -math.inf), v)]

        _, _, dv = forward_and_back(ops.attention, f, [q, k, v], dy, mask=np.array([mask]), heads=HEADS,
                                    mask_value=-math.inf, keep=kept, rate=rate)  # fmt: skip
        p = np.real(probabilities(q[0].tolist(), k[0].tolist(), mask, -math.inf))
        dropped = p * used[0] * scale
        (dp,) = gradients(lambda p, f=from_p: [f(p, v.tolist())], [p], dy)
        for a in range(HEADS):
            part = slice(a * D, (a + 1) * D)
            for i in range(S):
                agree(dv[0, i, part], sum(dropped[a, j, i] * dy[0, j, part] for j in range(S)))
                agree(dp[a, i], [sum(dy[0, i, part] * v[0, j, part]) * used[0, a, i, j] * scale for j in range(S)])
