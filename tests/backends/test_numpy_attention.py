"""Attention over sequences end to end, block by block, forward and backward: the reference on each sequence."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from refbert_conformance.tolerances import bounds
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_numpy.attention import Attention, KeyMask, attend, plan
from refbert_numpy.memory import Recycler

HEADS, D = 3, 4
LENGTHS = (4, 4, 4, 7, 2, 2, 1, 9, 1)
SINGLE = np.dtype("float32")


def begins(lengths):
    return tuple(itertools.accumulate(lengths, initial=0))


def blocks_of(lengths, start=0, stop=None, most=10_000):
    """Of the queries in the rows start … stop."""
    keys = begins(lengths)
    queries = tuple(min(max(row, start), keys[-1] if stop is None else stop) for row in keys)
    return plan(keys, queries, HEADS, range(len(lengths)), most)


def within(found, q, k, v, lengths=LENGTHS, dy=None, masks=None, mask_value=-math.inf, keep=None, rate=0.0):
    """The context (and with dy dq, dk, dv): each sequence by itself, within the bounds of the reference.

    The op divides its q by √D = 2, which float32 does exactly; here it comes divided, and dq is of the undivided one.
    """
    for b, (end, length) in enumerate(zip(itertools.accumulate(lengths), lengths, strict=True)):
        rows = slice(end - length, end)
        options = {"mask": np.ones((1, 1)) if masks is None else masks[b : b + 1], "heads": HEADS}
        options |= {"mask_value": mask_value, "rate": rate, "keep": None if keep is None else keep[b : b + 1]}
        arrays = [x[None, rows].astype(float) for x in (2 * q, k, v)]
        given = None if dy is None else dy[None, rows].astype(float)
        every = bounds.expected("attention", arrays, options, Arithmetic.of("float32"), given)
        for got, one in zip(found, every, strict=True):
            assert np.isfinite(one.bound).all()
            assert (np.abs(got[rows] - one.y[0]) <= one.bound[0]).all(), one.name  # False for NaN, too


def infer(q, k, v, lengths, cuts=(), most=10_000, mask=None):
    """By as many threads as there are pieces between the cuts, one after the other."""
    context = np.full_like(q, np.nan)
    for start, stop in itertools.pairwise((0, *cuts, len(q))):
        attend(q, k, v, context, blocks_of(lengths, start, stop, most), HEADS, mask)
    return context


def train(q, k, v, dy, lengths, most, threads=2, mask=None, keep=None, rate=0.0):
    """(context, dq, dk, dv), by threads one after the other."""
    every = blocks_of(lengths, most=most)
    context, x, dcontext = np.full_like(q, np.nan), [q.copy(), k.copy(), v.copy()], dy.copy()
    shared = [every[t::threads] for t in range(threads)]
    attention = Attention(shared, [()] * threads, len(q), HEADS, mask, rate, Recycler("float32"))
    for b, heads, to in attention.keep():
        to[:] = keep[b][heads]
    for t in range(threads):
        attention.forward(t, *x, context)
    for t in range(threads):
        attention.backward(t, *x, context, dcontext, 0.5)
    return [context, *x]


def test_what_no_query_sees_has_no_cotangent():
    q, k, v, dy = operands([3, 4], count=4)
    context, x, dcontext = np.empty_like(q[:3]), [q[:3].copy(), k.copy(), v.copy()], dy[:3].copy()
    blocks = plan(begins([3, 4]), (0, 3, 3), HEADS, range(2), 10_000)
    attention = Attention([blocks], [[slice(3, 7)]], 3, HEADS, None, 0.0, Recycler("float32"))
    attention.forward(0, *x, context)
    attention.backward(0, *x, context, dcontext, 0.5)
    within([context, x[0], *(one[:3] for one in x[1:])], q[:3], k[:3], v[:3], [3], dy[:3])
    assert not x[1][3:].any()
    assert not x[2][3:].any()


def operands(lengths, seed=0, count=3):
    return np.random.default_rng(seed).standard_normal((count, sum(lengths), HEADS * D)).astype(np.float32)


@pytest.mark.parametrize("most", [1, 2 * 81, HEADS * 16, 2 * HEADS * 16, 10_000])
@pytest.mark.parametrize("cuts", [(), (17,), (4,), (25,), (2, 5, 30), (11, 11, 12, 13), tuple(range(1, sum(LENGTHS)))])
def test_the_reference_wherever_threads_and_blocks_begin(cuts, most):
    q, k, v = operands(LENGTHS)
    within([infer(q, k, v, LENGTHS, cuts, most)], q, k, v)


@pytest.mark.parametrize("most", [1, 2 * 81, HEADS * 16, 10_000])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_forward_and_backward_are_the_references_wherever_blocks_begin(most, threads):
    q, k, v, dy = operands(LENGTHS, count=4)
    within(train(q, k, v, dy, LENGTHS, most, threads), q, k, v, dy=dy)


@pytest.mark.parametrize("mask_value", [-math.inf, -10000.0])
@pytest.mark.parametrize("size", [1, 30])  # 30: scores of a thousand, far beyond SAFE
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_masks_and_dropout(mask_value, size, rate):
    """Two of the three heads in a block, then one; all of a sequence visible, some, one and none."""
    rng = np.random.default_rng(0)
    q, k, v, dy = operands([9] * 4, count=4)
    q, k = size * q, size * k
    visible = np.arange(9) < np.array([[9], [4], [1], [0]])
    mask = KeyMask.of(visible, mask_value, SINGLE)
    options = {"masks": visible, "mask_value": mask_value, "lengths": [9] * 4}
    for most in (2 * 81, 10_000):
        within([infer(q, k, v, [9] * 4, (), most, mask)], q, k, v, **options)
    keep = rng.random((4, HEADS, 9, 9)) < 1 - rate
    options |= {"keep": keep, "rate": rate} if rate else {}
    for most in (2 * 81, 10_000):
        found = train(q, k, v, dy, [9] * 4, most, mask=mask, keep=keep, rate=rate)
        within(found, q, k, v, dy=dy, **options)


def test_one_large_score_is_enough_to_need_the_maximum():
    """e^89 is beyond float32: the guard must see it among small ones, and a masked one, and below as well as above."""
    q, k, v = (x.copy() for x in operands([5]))
    q[2], k[3] = 20, np.tile([20, 20, 0, 0], HEADS)  # scores of 800
    for sign in (1, -1):
        for visible in (np.ones((1, 5)), np.array([[1, 1, 1, 0, 1]])):
            mask = KeyMask.of(visible, -math.inf, SINGLE)
            found = infer(sign * q, k, v, [5], mask=mask)
            within([found], sign * q, k, v, lengths=[5], masks=visible)


def test_nothing_to_do_where_every_key_is_visible():
    assert KeyMask.of(np.ones((2, 3)), -math.inf, SINGLE) is None


@pytest.mark.parametrize("lengths", [LENGTHS, (1, 9)])
@pytest.mark.parametrize("most", [1, 2 * 81, 170, HEADS * 16, 2 * HEADS * 16, 10_000])
def test_a_block_has_so_many_scores_or_one_head_of_a_sequence(lengths, most):
    blocks = blocks_of(lengths, most=most)
    for block in blocks:
        assert block.size == sum(math.prod(group.shape) for group in block.groups)
        assert block.size <= most or [group.shape[:2] for group in block.groups] == [(1, 1)]
        assert all(group.heads == block.heads for group in block.groups)
        scores = np.arange(block.size)
        assert np.array_equal(np.concatenate([view.ravel() for _, view in block.by_sequence(scores)]), scores)
    assert sum(block.size for block in blocks) == HEADS * sum(n * n for n in lengths)


def test_neighbours_of_one_length_share_their_products():
    (block,) = blocks_of(LENGTHS)
    assert [group.shape for group in block.groups] == [
        (3, 3, 4, 4), (1, 3, 7, 7), (2, 3, 2, 2), (1, 3, 1, 1), (1, 3, 9, 9), (1, 3, 1, 1)
    ]  # fmt: skip


def test_neighbours_with_a_sequence_between_them_that_nobody_asks_for_do_not():
    keys, queries = begins((4, 4, 4)), (0, 2, 2, 4)  # two of the first's, none of the second's, two of the third's
    (block,) = plan(keys, queries, HEADS, range(3), 1000)
    assert [group.shape for group in block.groups] == [(1, 3, 2, 4)] * 2
    assert [(group.keys.start, group.keys.stop) for group in block.groups] == [(0, 4), (8, 12)]


def test_nothing_to_do():
    assert plan((0,), (0,), HEADS, range(0), 100) == ()
    assert plan((0, 3, 7), (3, 3, 3), HEADS, range(2), 100) == ()
    q = np.empty((0, HEADS * D), np.float32)
    assert infer(q, q, q, ()).shape == q.shape


def test_large_scores_do_not_overflow_and_change_no_other_sequences_bits():
    q, k, v = operands(LENGTHS)
    calm = infer(q, k, v, LENGTHS)
    q[12:19] *= 300  # the sequence of seven: scores of hundreds
    wild = infer(q, k, v, LENGTHS)
    within([wild], q, k, v)
    others = np.r_[:12, 19 : len(q)]
    assert np.array_equal(calm[others], wild[others])


@pytest.mark.parametrize("sign", [1, -1])
def test_scores_that_are_large_on_one_side_only(sign):
    q, k, v = operands(LENGTHS)
    q, k = sign * 30 * np.abs(q), np.abs(k)
    within([infer(q, k, v, LENGTHS)], q, k, v)


def test_nan_stays_in_its_sequence():
    q, k, v = operands(LENGTHS)
    q[12, 0] = np.nan
    got = infer(q, k, v, LENGTHS)
    assert np.isnan(got[12, :D]).all()
    got[12, :D] = 0
    assert np.isfinite(got).all()


def test_a_width_that_does_not_divide_is_refused():
    q = np.zeros((2, HEADS * D + 1), np.float32)
    with pytest.raises(ValueError, match="13 features do not divide into 3 heads"):
        attend(q, q, q, q.copy(), blocks_of((2,)), HEADS)
