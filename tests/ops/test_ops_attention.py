"""Attention: both mask semantics, rows without a visible key, and what its files say follows."""

from __future__ import annotations

import math

import numpy as np
import oracles as o
import pytest
import torch
import torch.nn.functional as F
from op_oracles import GOOGLE, HF, Attention
from oracles import agree

from refbert import ops

B, S, A, D = 2, 4, 3, 5
H = A * D
RNG = np.random.default_rng(0)
Q, K, V, DY = RNG.standard_normal((4, B, S, H))
ALL = np.ones((B, S), int)
SOME = np.array([[1, 0, 1, 1], [0, 0, 1, 0]])
NONE = np.array([[0, 0, 0, 0], [1, 1, 0, 1]])


def attention(q=Q, k=K, v=V, mask=ALL, heads=A, mask_value=HF, **options):
    return ops.attention(q, k, v, mask=mask, heads=heads, mask_value=mask_value, **options)


def bounds(mask, mask_value, q=Q, k=K, v=V, dy=DY):
    y, cotangents = Attention(mask, A, mask_value).bound(q, k, v, dy)
    return y.error, [c.error for c in cotangents]


@pytest.mark.parametrize("mask", [ALL, SOME], ids=["all", "some"])
def test_pytorch_scaled_dot_product_attention(mask):
    def fused(q, k, v):
        heads = (x.unflatten(-1, (A, D)).transpose(1, 2) for x in (q, k, v))
        visible = torch.from_numpy(mask.astype(bool))[:, None, None, :]
        return F.scaled_dot_product_attention(*heads, attn_mask=visible).transpose(1, 2).flatten(2)

    y, pullback = attention(mask=mask)
    theirs, gradients = o.autograd(fused, (Q, K, V), DY)
    E, cotangent_E = bounds(mask, HF)
    agree(y, theirs, 2 * E)
    for ours, gradient, e in zip(pullback(DY), gradients, cotangent_E, strict=True):
        agree(ours, gradient, 2 * e)


def test_no_visible_key_under_minus_infinity_is_hugging_faces_eager_attention():
    """The most negative number is added, every score is lost in its rounding, and autograd does not notice."""

    def eager(q, k, v):
        q, k, v = (x.unflatten(-1, (A, D)).transpose(1, 2) for x in (q, k, v))
        bias = torch.zeros(NONE.shape, dtype=torch.float64)
        bias[torch.from_numpy(NONE) == 0] = torch.finfo(torch.float64).min
        p = F.softmax(q @ k.mT * D**-0.5 + bias[:, None, None, :], dim=-1)
        return (p @ v).transpose(1, 2).reshape(B, S, H)

    y, pullback = attention(mask=NONE)
    theirs, gradients = o.autograd(eager, (Q, K, V), DY)
    E, cotangent_E = bounds(NONE, HF)
    agree(y, theirs, 2 * E)
    cotangents = pullback(DY)
    for ours, gradient, e in zip(cotangents, gradients, cotangent_E, strict=True):
        agree(ours, gradient, 2 * e)
    assert np.abs(cotangents[0][0]).max() > 0.01, "the scores of the masked row have a gradient"
    p, _ = ops.attention_probabilities(Q, K, mask=NONE, heads=A, mask_value=HF)
    assert (p[0] == 1 / S).all()


def test_no_visible_key_under_google_is_no_mask_at_all():
    y, pullback = attention(mask=NONE, mask_value=GOOGLE)
    unmasked, unmasked_back = attention(mask=ALL, mask_value=GOOGLE)
    (E, cotangent_E), (E_all, cotangent_E_all) = bounds(NONE, GOOGLE), bounds(ALL, GOOGLE)
    agree(y[0], unmasked[0], (E + E_all)[0])
    for ours, other, e, e_all in zip(pullback(DY), unmasked_back(DY), cotangent_E, cotangent_E_all, strict=True):
        agree(ours[0], other[0], (e + e_all)[0])


@pytest.mark.parametrize("mask_value", [GOOGLE, HF])
def test_masked_keys_have_no_influence(mask_value):
    hidden = SOME == 0
    k, v = K.copy(), V.copy()
    k[hidden], v[hidden] = 100 * k[hidden] + 3, -50.0
    y, pullback = attention(mask=SOME, mask_value=mask_value)
    other, _ = attention(k=k, v=v, mask=SOME, mask_value=mask_value)
    assert np.array_equal(y, other)
    dq, dk, dv = pullback(DY)
    assert not dk[hidden].any()
    assert not dv[hidden].any()
    # The mask is on keys: a masked position still asks, and its query has a gradient like any other's.
    assert (np.abs(dq[0]).max(axis=-1) > 1e-3).all()
    p, _ = ops.attention_probabilities(Q, K, mask=SOME, heads=A, mask_value=mask_value)
    assert p.shape == (B, A, S, S)
    assert (p.swapaxes(-1, 1)[hidden] == 0).all()
    agree(p.sum(axis=-1), np.ones((B, A, S)), o.gamma(2 * S))


@pytest.mark.parametrize("mask_value", [GOOGLE, HF])
def test_mask_may_be_of_any_dtype(mask_value):
    y, _ = attention(mask=SOME, mask_value=mask_value)
    for dtype in (bool, np.int32, np.float32, np.uint8):
        assert np.array_equal(attention(mask=SOME.astype(dtype), mask_value=mask_value)[0], y)


@pytest.mark.parametrize("mask_value", [GOOGLE, HF])
@pytest.mark.parametrize("visible", [0, 1])
def test_sequence_of_one(mask_value, visible):
    q, k, v, dy = (x[:, :1] for x in (Q, K, V, DY))
    y, pullback = attention(q, k, v, mask=np.full((B, 1), visible), mask_value=mask_value)
    assert np.array_equal(y, v)
    dq, dk, dv = pullback(dy)
    assert not dq.any()
    assert not dk.any()
    assert np.array_equal(dv, dy)


def test_one_visible_key_is_copied():
    y, pullback = attention(mask=SOME)
    assert np.array_equal(y[1], np.broadcast_to(V[1, 2], (S, H)))
    dq, dk, dv = pullback(DY)
    assert not dq[1].any()
    assert not dk[1].any()
    agree(dv[1, 2], DY[1].sum(axis=0), o.gamma(2 * S) * np.abs(DY[1]).sum(axis=0))


def test_equal_scores_take_the_mean():
    y, _ = attention(q=np.zeros_like(Q), mask=SOME)
    mean = V[0, [0, 2, 3]].mean(axis=0)
    agree(y[0], np.broadcast_to(mean, (S, H)), o.gamma(2 * S) * np.abs(V[0]).sum(axis=0))


def test_output_lies_in_the_hull_of_the_visible_values():
    y, _ = attention(mask=SOME)
    E, _ = bounds(SOME, HF)
    for b in range(B):
        seen = V[b, SOME[b] == 1]
        assert (y[b] >= seen.min(axis=0) - E[b]).all()
        assert (y[b] <= seen.max(axis=0) + E[b]).all()


@pytest.mark.parametrize("mask_value", [GOOGLE, HF])
def test_the_same_vector_added_to_every_key_changes_nothing(mask_value):
    """And so the key bias has gradient 0. The keys are whole numbers, so that adding does not round."""
    k, shift = np.round(4 * K), np.round(3 * RNG.standard_normal(H))
    y, pullback = attention(k=k, mask=SOME, mask_value=mask_value)
    shifted, _ = attention(k=k + shift, mask=SOME, mask_value=mask_value)
    (E, cotangent_E), (E_shifted, _) = bounds(SOME, mask_value, k=k), bounds(SOME, mask_value, k=k + shift)
    agree(y, shifted, E + E_shifted)
    dk = pullback(DY)[1]
    total = dk.sum(axis=1)
    agree(total, np.zeros((B, H)), cotangent_E[1].sum(axis=1) + o.gamma(S) * np.abs(dk).sum(axis=1))


def test_a_constant_added_to_every_value_is_added_to_the_output():
    v = np.round(8 * V)
    y, _ = attention(v=v, mask=SOME)
    raised, _ = attention(v=v + 16, mask=SOME)
    E, _ = bounds(SOME, HF, v=v)
    E_raised, _ = bounds(SOME, HF, v=v + 16)
    agree(raised - y, np.full_like(y, 16), E + E_raised + 2 * o.U * 16)


def test_heads_own_consecutive_features():
    """Renaming the heads renames blocks of D features, and each head alone is attention over its D features."""
    y, _ = attention(mask=SOME)
    E, _ = bounds(SOME, HF)
    for a in range(A):
        own = slice(a * D, (a + 1) * D)
        alone, _ = attention(Q[..., own], K[..., own], V[..., own], mask=SOME, heads=1)
        agree(y[..., own], alone, 2 * E[..., own])
    with pytest.raises(ValueError, match="15 features do not divide into 4 heads"):
        attention(heads=4)


def test_scores_are_divided_by_the_root_of_the_head_size():
    """Two keys whose scores differ by √D·log 3 get ¾ and ¼."""
    q = np.zeros((1, 2, H))
    q[..., ::D] = math.sqrt(D)
    k = np.zeros((1, 2, H))
    k[0, 0, ::D] = math.log(3)
    p, _ = ops.attention_probabilities(q, k, mask=np.ones((1, 2)), heads=A, mask_value=HF)
    agree(p, np.broadcast_to([0.75, 0.25], p.shape), 32 * o.U * np.ones(p.shape))


def test_dropout_on_probabilities_keeps_and_scales():
    keep = RNG.random((B, A, S, S)) < 0.5
    y, pullback = attention(mask=SOME, keep=keep, rate=0.5)
    p, _ = ops.attention_probabilities(Q, K, mask=SOME, heads=A, mask_value=HF)
    dropped = np.where(keep, 2 * p, 0)
    expected = np.einsum("baij,bjad->biad", dropped, V.reshape(B, S, A, D)).reshape(B, S, H)
    size = np.einsum("baij,bjad->biad", dropped, np.abs(V).reshape(B, S, A, D)).reshape(B, S, H)
    agree(y, expected, 2 * o.gamma(S) * size)
    everything, _ = attention(mask=SOME, keep=np.ones_like(keep), rate=0.0)
    assert np.array_equal(everything, attention(mask=SOME)[0])
    # With nothing kept, nothing comes out and nothing goes back.
    y, pullback = attention(mask=SOME, keep=np.zeros_like(keep), rate=0.9)
    assert not y.any()
    assert not any(g.any() for g in pullback(DY))


def test_large_scores_do_not_overflow():
    y, pullback = attention(1e4 * Q, 1e4 * K)
    assert np.isfinite(y).all()
    assert all(np.isfinite(g).all() for g in pullback(DY))
