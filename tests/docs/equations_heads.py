"""The equations of the heads and losses of refbert.spec."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from calculus import agree, delta, lse, plus, product, rows_added, shown, softmax, transposed
from equations_blocks import (
    DRAWS,
    DROPPING,
    OPS,
    PLAIN,
    compare,
    draw,
    gelu,
    kept,
    layer_norm,
    slopes,
    through_norm,
)

from refbert.ops.cross_entropy import IGNORE
from refbert.spec import head_table, heads, losses


@shown(
    "heads",
    "t = LN(act(h W + b)),     logits = t Eᵀ + bias,     E the word embeddings [V, H]",
    "dt = dlogits E                    dE = dlogitsᵀ t,   dbias = Σ_n dlogits_n",
    "dg = LN's pullback of dt          dz = act′(z) dg",
    "dh = dz Wᵀ                        dW = hᵀ dz,   db = Σ_n dz_n",
)
def masked_lm(rng):
    V, H, positions = 5, 4, np.array([4, 1])
    name = "cls.predictions.transform."
    p = draw(rng, **{name + "dense.weight": (H, H), name + "dense.bias": (H,), name + "LayerNorm.weight": (H,),
                     name + "LayerNorm.bias": (H,), heads.TIED: (V, H), "cls.predictions.bias": (V,)})  # fmt: skip
    hidden, dlogits = rng.standard_normal((2, 3, H)), rng.standard_normal((2, V))

    def parts(hidden, w, b):
        rows = [[*hidden[0], *hidden[1]][i] for i in positions]
        z = plus(product(rows, transposed(w)), b)
        return rows, z, [[gelu(v) for v in row] for row in z]

    def f(hidden, w, b, gamma, beta, E, bias):
        return plus(product(layer_norm(parts(hidden, w, b)[2], gamma, beta), transposed(E)), bias)

    logits, pullback = heads.masked_lm(OPS, p, hidden, positions, PLAIN)
    agree(logits, np.real(f(hidden, *p.values())))
    dhidden, got = pullback(dlogits)
    compare(f, [hidden, *p.values()], dlogits, {"hidden": dhidden, **{name: got[name] for name in p}})
    w, b, gamma, beta, E, _ = p.values()
    h, z, g = (np.array(part) for part in parts(hidden, w, b))
    t = np.real(layer_norm(g, gamma, beta))
    agree(got[heads.TIED], dlogits.T @ t)
    agree(got["cls.predictions.bias"], rows_added(dlogits))
    dz = slopes(z) * through_norm(g, gamma, beta, dlogits @ E)
    agree(dhidden.reshape(-1, H)[positions], dz @ w)
    agree(got[name + "dense.weight"].T, h.T @ dz)
    agree(got[name + "dense.bias"], rows_added(dz))


@shown(
    "heads",
    "logits = pooled W + b",
    "dpooled = dlogits Wᵀ, dW = pooledᵀ dlogits, db = Σ_b dlogits_b",
    "logits = hidden W + b               the columns of W are the paper's start vector S and end vector E",
    "dhidden = dlogits Wᵀ, dW = hiddenᵀ dlogits and db = Σ dlogits over all positions",
    "d = dropout(x),     logits = d W + b",
    "dd = dlogits Wᵀ, dx = dropout's pullback of dd; dW = dᵀ dlogits, db = Σ_n dlogits_n",
)
def linear_heads(rng):
    H, K = 4, 2
    for name, run, scale in (
        ("cls.seq_relationship", lambda p, x: heads.next_sentence(OPS, p, x), None),
        ("qa_outputs", lambda p, x: heads.question_answering(OPS, p, x[None]), None),
        ("classifier", lambda p, x: heads.classifier(OPS, p, x, DROPPING, DRAWS), kept("classifier", (3, H))),
    ):
        p = draw(rng, **{f"{name}.weight": (K, H), f"{name}.bias": (K,)})
        w, b = p.values()
        x, dlogits = rng.standard_normal((3, H)), rng.standard_normal((3, K))
        scale = np.ones((3, H)) if scale is None else scale

        def f(x, w, b, scale=scale):
            d = [[v * k for v, k in zip(r, s, strict=True)] for r, s in zip(x, scale, strict=True)]
            return plus(product(d, transposed(w)), b)

        logits, pullback = run(p, x)
        agree(logits.reshape(3, K), np.real(f(x, w, b)))
        dx, got = pullback(dlogits.reshape(logits.shape))
        dx = dx.reshape(3, H)
        compare(f, [x, w, b], dlogits, {"x": dx, "w": got[f"{name}.weight"], "b": got[f"{name}.bias"]})
        agree(dx, dlogits @ w * scale)
        agree(got[f"{name}.weight"].T, (x * scale).T @ dlogits)
        agree(got[f"{name}.bias"], rows_added(dlogits))


def entropy(z, labels, M):
    return sum(lse(row) - row[c] for row, c in zip(z, labels, strict=True) if c != IGNORE) / M


@shown(
    "losses",
    "loss = 1/M Σ_n (lse(z_n) − z_{n,c_n})         M the labelled positions; in Google's code that number + 1e-5",
    "dz_nj = dloss/M (p_nj − δ_{j,c_n}) with p = softmax(z).",
    "loss = 1/M Σ_{n labelled} (lse(z_n) − z_{n,c_n})         M the labelled rows",
    "dz_nj = dloss/M (p_nj − δ_{j,c_n}) with p = softmax(z); 0 in rows that do not count.",
    "loss = 1/M Σ_nk (x_nk − t_nk)²         M = B·K",
    "dx_nk = dloss · 2 (x_nk − t_nk)/M",
    "z_bk = (0, x_bk),     loss = 1/M Σ_bk (lse(z_bk) − z_{bk,t_bk})         M the labelled of the B·K",
    "1/M Σ_bk (−t ln σ(x) − (1 − t) ln(1 − σ(x)))",
    "dx_bk = dloss/M (σ(x_bk) − t_bk)",
)
def plain_losses(rng):
    z, d = rng.standard_normal((4, 3)), np.array(1.3)
    google = replace(PLAIN, masked_lm_epsilon=1e-5)
    for run, head, labels, c, extra in (
        (losses.masked_lm_loss, "masked_lm", np.array([2, 0, 1, 1]), google, 1e-5),
        (losses.mean_loss, "token_classification", np.array([2, IGNORE, 1, 1]), PLAIN, 0),
    ):
        M = head_table.denominators([head], {"labels": labels}, 4, c)[head]
        counted = labels != IGNORE
        agree(M, counted.sum() + extra)
        loss, pullback = run(OPS, z, labels, M)
        agree(loss, np.real(entropy(z.tolist(), labels, M)))
        (dz,) = pullback(d)
        compare(lambda z, labels=labels, M=M: entropy(z, labels, M), [z], d, {"z": dz})
        p = np.real([softmax(row) for row in z.tolist()])
        agree(dz, [[d / M * (p[n, j] - delta(j, labels[n])) * counted[n] for j in range(3)] for n in range(4)])
    t = rng.standard_normal((4, 3))
    M = head_table.denominators(["sequence_classification"], {"labels": t}, 4, PLAIN)["sequence_classification"]
    agree(M, 4 * 3)
    loss, pullback = losses.regression_loss(OPS, z, t, M)
    agree(loss, sum((z[n, k] - t[n, k]) ** 2 for n in range(4) for k in range(3)) / M)
    agree(pullback(d)[0], [[d * 2 * (z[n, k] - t[n, k]) / M for k in range(3)] for n in range(4)])
    t = np.array([[1, 0, 0], [0, 1, 1], [1, IGNORE, 0], [0, 0, 0]])
    M = head_table.denominators(["sequence_classification"], {"labels": t}, 4, PLAIN)["sequence_classification"]
    agree(M, 4 * 3 - 1)
    loss, pullback = losses.multi_label_loss(OPS, z, t, M)
    sigma, counted = 1 / (1 + np.exp(-z)), t != IGNORE
    agree(loss, (np.where(t == 1, -np.log(sigma), -np.log(1 - sigma)) * counted).sum() / M)
    agree(loss, np.real(entropy([[0, x] for x in z.reshape(-1).tolist()], t.reshape(-1), M)))
    agree(pullback(d)[0], d / M * (sigma - t) * counted)


@shown(
    "losses",
    "z_bc = scores_{b·C + c},     loss = 1/M Σ_b (lse(z_b) − z_{b,label_b})         M the labelled questions",
    "dscores_{b·C + c} = dz_bc",
    "a_bs = logits_bs0,     e_bs = logits_bs1",
    "loss = 1/M_a Σ_b (lse(a_b) − a_{b,start_b}) + 1/M_e Σ_b (lse(e_b) − e_{b,end_b})",
)
def arranged_losses(rng):
    B, C, d = 2, 3, np.array(-0.8)
    scores, labels = rng.standard_normal((B * C, 1)), np.array([2, 0])
    M = head_table.denominators(["multiple_choice"], {"labels": labels}, 4, PLAIN)["multiple_choice"]

    def choice(scores):
        return entropy([[scores[b * C + c][0] for c in range(C)] for b in range(B)], labels, M)

    loss, pullback = losses.choice_loss(OPS, scores, labels, C, M)
    agree(loss, np.real(choice(scores.tolist())))
    compare(choice, [scores], d, {"scores": pullback(d)[0]})

    S, starts, ends = 4, np.array([1, 3]), np.array([2, 3])
    logits = rng.standard_normal((B, S, 2))
    both = head_table.denominators(["question_answering"], {"start_positions": starts, "end_positions": ends}, S, PLAIN)
    M_a, M_e = both.values()
    agree([M_a, M_e], [2 * B, 2 * B])

    def span(logits):
        a, e = ([[logits[b][s][end] for s in range(S)] for b in range(B)] for end in (0, 1))
        return entropy(a, starts, M_a) + entropy(e, ends, M_e)

    loss, pullback = losses.span_loss(OPS, logits, starts, ends, PLAIN, M_a, M_e)
    agree(loss, np.real(span(logits.tolist())))
    compare(span, [logits], d, {"logits": pullback(d)[0]})
