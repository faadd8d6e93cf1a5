"""The equations of refbert.spec a second time: each block in plain numbers, and its backward as it is derived."""

from __future__ import annotations

import cmath
import math
from dataclasses import replace

import numpy as np
from calculus import (
    agree,
    erf,
    gradients,
    normalised,
    plus,
    product,
    shown,
    transposed,
)
from equations_attention import HEADS, D, probabilities

from refbert.backend.reference import ReferenceBackend
from refbert.randomness import Dropout
from refbert.spec.attention import self_attention
from refbert.spec.choices import Choices
from refbert.spec.embeddings import embeddings
from refbert.spec.encoder import encoder, encoder_layer
from refbert.spec.feed_forward import feed_forward
from refbert.spec.pooler import pooler

OPS = ReferenceBackend()
EPS, RATE = 1e-3, 0.25
PLAIN = Choices(layers=2, heads=HEADS, activation="gelu_erf", layer_norm_eps=EPS, mask_value=-math.inf)
DROPPING = replace(PLAIN, hidden_dropout=RATE, classifier_dropout=RATE)
DRAWS = Dropout(3)


def gelu(x):
    return x * 0.5 * (1 + erf(x / math.sqrt(2)))


def slopes(x):
    """act′, entry by entry."""
    return np.array([[gelu(complex(v, 1e-30)).imag / 1e-30 for v in row] for row in x])


def layer_norm(u, gamma, beta):
    return [normalised(row, gamma, beta, EPS) for row in u]


def through_norm(u, gamma, beta, dy):
    """LN's pullback of dy."""
    return gradients(lambda u: layer_norm(u, gamma, beta), [u], dy)[0]


def attend(q, k, v, mask):
    """Attention of one sequence, heads side by side."""
    S, weights = len(q), probabilities(q, k, mask, -math.inf)
    return [[sum(weights[h // D][i][j] * v[j][h] for j in range(S)) for h in range(HEADS * D)] for i in range(S)]


def kept(site, shape):
    """What dropout multiplies by at a site."""
    return DRAWS.keep(site, shape, RATE) / (1 - RATE)


def draw(rng, **shapes):
    return {name: rng.standard_normal(shape) / 2 for name, shape in shapes.items()}


def compare(f, arrays, dy, cotangents):
    """A pullback's cotangents, in the order of f's arguments, against f's complex step."""
    for (name, ours), theirs in zip(cotangents.items(), gradients(f, arrays, dy), strict=True):
        agree(ours, theirs, name)


@shown(
    "embeddings",
    "e = E_word[ids] + E_segment[types] + E_position[0 … S−1]",
    "x = dropout(LN(e))",
    "dE_word_v     = Σ_{(b, s) : ids_bs = v} de_bs",
    "dE_segment_t  = Σ_{(b, s) : types_bs = t} de_bs",
    "dE_position_s = Σ_b de_bs",
)
def embeddings_(rng):
    B, S, V, H = 2, 3, 5, 4
    ids, types = np.array([[4, 1, 4], [0, 4, 1]]), np.array([[0, 0, 1], [0, 1, 1]])
    tables = {"word_embeddings.weight": (V, H), "token_type_embeddings.weight": (2, H)}
    tables["position_embeddings.weight"] = (4, H)
    p = draw(rng, **tables, **{"LayerNorm.weight": (H,), "LayerNorm.bias": (H,)})
    keep, dx = kept("embeddings", (B, S, H)), rng.standard_normal((B, S, H))

    def e(word, segment, position):
        return [[[a + b + c for a, b, c in zip(word[ids[b, s]], segment[types[b, s]], position[s], strict=True)]
                 for s in range(S)] for b in range(B)]  # fmt: skip

    def f(word, segment, position, gamma, beta):
        normed = [layer_norm(rows, gamma, beta) for rows in e(word, segment, position)]
        return [[[v * k for v, k in zip(normed[b][s], keep[b, s], strict=True)] for s in range(S)] for b in range(B)]

    x, pullback = embeddings(OPS, p, ids, types, DROPPING, DRAWS)
    agree(x, np.real(f(*p.values())))
    got = pullback(dx)
    compare(f, list(p.values()), dx, {name: got[name] for name in p})
    word, segment, position, gamma, beta = p.values()
    rows = e(word, segment, position)
    de = np.array([through_norm(rows[b], gamma, beta, dx[b] * keep[b]) for b in range(B)])
    places = [(b, s) for b in range(B) for s in range(S)]
    for v in range(V):
        agree(got["word_embeddings.weight"][v], sum((de[i] for i in places if ids[i] == v), np.zeros(H)))
    for t in range(2):
        agree(got["token_type_embeddings.weight"][t], sum(de[i] for i in places if types[i] == t))
    for s in range(S):
        agree(got["position_embeddings.weight"][s], sum(de[b, s] for b in range(B)))


@shown(
    "attention",
    "q = x W_Q + b_Q        k = x W_K + b_K        v = x W_V + b_V",
    "a = Attention(q, k, v)                        heads side by side",
    "y = LN(x + dropout(a W_O + b_O))",
    "du = LN's pullback of dy              do = dropout's pullback of du",
    "da = do W_Oᵀ                          dq, dk, dv = Attention's pullback of da",
    "dx = du + dq W_Qᵀ + dk W_Kᵀ + dv W_Vᵀ",
    "dW_Q = xᵀ dq,   db_Q = Σ_n dq_n       and so for K and V; dW_O = aᵀ do, db_O = Σ_n do_n",
    "db_K = 0",
)
def attention_(rng):
    S, H, mask = 3, HEADS * D, [1, 1, 0]
    names = {"Q": "self.query", "K": "self.key", "V": "self.value", "O": "output.dense"}
    p = draw(rng, **{f"{n}.{k}": (H, H) if k == "weight" else (H,) for n in names.values() for k in ("weight", "bias")})
    p |= draw(rng, **{"output.LayerNorm.weight": (H,), "output.LayerNorm.bias": (H,)})
    W = {letter: p[f"{name}.weight"].T for letter, name in names.items()}  # the papers' W: x W
    x, dy = rng.standard_normal((2, 1, S, H))
    keep = kept(".attention.output", (1, S, H))[0]

    def projected(x, wq, bq, wk, bk, wv, bv):
        return [plus(product(x, transposed(w)), b) for w, b in ((wq, bq), (wk, bk), (wv, bv))]

    def added(x, *p):
        o = plus(product(attend(*projected(x, *p[:6]), mask), transposed(p[6])), p[7])
        return [[a + b * m for a, b, m in zip(r, s, t, strict=True)] for r, s, t in zip(x, o, keep, strict=True)]

    def f(x, *p):
        return layer_norm(added(x, *p[:8]), p[8], p[9])

    y, pullback = self_attention(OPS, p, x, np.array([mask]), DROPPING, draws=DRAWS)
    agree(y[0], np.real(f(x[0], *p.values())))
    dx, got = pullback(dy)
    compare(f, [x[0], *p.values()], dy[0], {"x": dx[0], **{name: got[name] for name in p}})
    q, k, v = np.real(projected(x[0], *list(p.values())[:6]))
    a = np.real(attend(q, k, v, mask))
    du = through_norm(
        np.real(added(x[0], *list(p.values())[:8])), p["output.LayerNorm.weight"], p["output.LayerNorm.bias"], dy[0]
    )
    do = du * keep
    da = do @ W["O"].T
    dq, dk, dv = gradients(lambda q, k, v: attend(q, k, v, mask), [q, k, v], da)
    agree(dx[0], du + dq @ W["Q"].T + dk @ W["K"].T + dv @ W["V"].T)
    for letter, d, source in (("Q", dq, x[0]), ("K", dk, x[0]), ("V", dv, x[0]), ("O", do, a)):
        agree(got[f"{names[letter]}.weight"].T, source.T @ d, letter)
        agree(got[f"{names[letter]}.bias"], d.sum(axis=0), letter)
    agree(got["self.key.bias"], np.zeros(H))


@shown(
    "feed_forward",
    "y = LN(x + dropout(act(x W₁ + b₁) W₂ + b₂))",
    "z = x W₁ + b₁,   g = act(z)           o = g W₂ + b₂,   u = x + dropout(o)",
    "du = LN's pullback of dy              do = dropout's pullback of du",
    "dg = do W₂ᵀ                           dz = act′(z) dg",
    "dx = du + dz W₁ᵀ",
    "dW₁ = xᵀ dz,   db₁ = Σ_n dz_n         dW₂ = gᵀ do,   db₂ = Σ_n do_n",
)
def feed_forward_(rng):
    S, H, F = 3, 4, 5
    first = {"intermediate.dense.weight": (F, H), "intermediate.dense.bias": (F,)}
    second = {"output.dense.weight": (H, F), "output.dense.bias": (H,)}
    p = draw(rng, **first, **second, **{"output.LayerNorm.weight": (H,), "output.LayerNorm.bias": (H,)})
    x, dy = rng.standard_normal((2, 1, S, H))
    keep = kept(".output", (1, S, H))[0]

    def parts(x, w1, b1, w2, b2):
        z = plus(product(x, transposed(w1)), b1)
        g = [[gelu(v) for v in row] for row in z]
        o = plus(product(g, transposed(w2)), b2)
        u = [[a + b * m for a, b, m in zip(r, s, t, strict=True)] for r, s, t in zip(x, o, keep, strict=True)]
        return z, g, u

    def f(x, w1, b1, w2, b2, gamma, beta):
        return layer_norm(parts(x, w1, b1, w2, b2)[2], gamma, beta)

    y, pullback = feed_forward(OPS, p, x, DROPPING, draws=DRAWS)
    agree(y[0], np.real(f(x[0], *p.values())))
    dx, got = pullback(dy)
    compare(f, [x[0], *p.values()], dy[0], {"x": dx[0], **{name: got[name] for name in p}})
    w1, b1, w2, b2, gamma, beta = p.values()
    z, g, u = (np.array(part) for part in parts(x[0], w1, b1, w2, b2))
    du = through_norm(u, gamma, beta, dy[0])
    do = du * keep
    dg = do @ w2
    dz = slopes(z) * dg
    agree(dx[0], du + dz @ w1)
    agree(got["intermediate.dense.weight"].T, x[0].T @ dz)
    agree(got["intermediate.dense.bias"], dz.sum(axis=0))
    agree(got["output.dense.weight"].T, g.T @ do)
    agree(got["output.dense.bias"], do.sum(axis=0))


@shown("encoder", "h_0 = x,   h_{i+1} = FFN_i(SelfAttention_i(h_i)),   i = 0 … L − 1,   y = h_L")
def encoder_(rng):
    H, F, mask = HEADS * D, 5, np.array([[1, 1, 1]])
    sizes = {"attention.self.query": (H, H), "attention.self.key": (H, H), "attention.self.value": (H, H),
             "attention.output.dense": (H, H), "intermediate.dense": (F, H), "output.dense": (H, F)}  # fmt: skip
    shapes = {f"{n}.weight": s for n, s in sizes.items()} | {f"{n}.bias": s[:1] for n, s in sizes.items()}
    shapes |= {f"{n}.LayerNorm.{k}": (H,) for n in ("attention.output", "output") for k in ("weight", "bias")}
    layers = [draw(rng, **shapes) for _ in range(2)]
    p = {f"layer.{i}.{name}": value for i, layer in enumerate(layers) for name, value in layer.items()}
    h = x = rng.standard_normal((1, 3, H))
    backs = []
    for layer in layers:
        attention = {name.removeprefix("attention."): v for name, v in layer.items() if name.startswith("attention.")}
        a, attention_back = self_attention(OPS, attention, h, mask, PLAIN)
        one, _ = encoder_layer(OPS, layer, h, mask, PLAIN)
        h, feed_forward_back = feed_forward(OPS, layer, a, PLAIN)
        agree(one, h)
        backs.append((attention_back, feed_forward_back))
    y, pullback = encoder(OPS, p, x, mask, PLAIN)
    agree(y, h)
    dh = dy = rng.standard_normal(y.shape)
    for attention_back, feed_forward_back in reversed(backs):
        dh = attention_back(feed_forward_back(dh)[0])[0]
    agree(pullback(dy)[0], dh)


@shown(
    "pooler",
    "pooled = tanh(hidden[:, 0] W + b)",
    "dz = dpooled (1 − pooled²)            z = hidden[:, 0] W + b",
    "dhidden[:, 0] = dz Wᵀ                 dW = hidden[:, 0]ᵀ dz,   db = Σ_b dz_b",
)
def pooler_(rng):
    p = draw(rng, **{"dense.weight": (4, 4), "dense.bias": (4,)})
    hidden, dpooled = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 4))

    def f(hidden, w, b):
        return [[cmath.tanh(v) for v in row] for row in plus(product([h[0] for h in hidden], transposed(w)), b)]

    pooled, pullback = pooler(OPS, p, hidden)
    agree(pooled, np.real(f(hidden, *p.values())))
    dhidden, got = pullback(dpooled)
    compare(f, [hidden, *p.values()], dpooled, {"hidden": dhidden, **{name: got[name] for name in p}})
    dz = dpooled * (1 - pooled**2)
    agree(dhidden[:, 0], dz @ p["dense.weight"])
    assert not dhidden[:, 1:].any()
    agree(got["dense.weight"].T, hidden[:, 0].T @ dz)
    agree(got["dense.bias"], dz.sum(axis=0))
