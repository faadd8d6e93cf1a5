"""Attention over sequences end to end: chunks of them against the reference, sequence by sequence."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from refbert_conformance.tolerances import bounds
from refbert_conformance.tolerances.arithmetic import Arithmetic
from refbert_numpy.packed import attend_packed, plan, scores_size

HEADS, D = 3, 4
LENGTHS = (4, 4, 4, 7, 2, 2, 1, 9, 1)


def within(got, q, k, v):
    """Each sequence by itself, within the bound of the reference on the same numbers.

    The op divides its q by √D = 2, which float32 does exactly; here it comes divided.
    """
    options = {"mask": np.ones((1, 1)), "heads": HEADS, "mask_value": -math.inf}
    for end, length in zip(itertools.accumulate(LENGTHS), LENGTHS, strict=True):
        arrays = [x[None, end - length : end].astype(float) for x in (2 * q, k, v)]
        (one,) = bounds.expected("attention", arrays, options, Arithmetic.of("float32"))
        assert (np.abs(got[end - length : end] - one.y[0]) <= one.bound[0]).all()  # False for NaN, too
        assert np.isfinite(one.bound).all()


def attend(q, k, v, lengths, cuts, block):
    """By as many threads as there are pieces between the cuts, one after the other; buffers start as NaN."""
    context = np.full_like(q, np.nan)
    for start, stop in itertools.pairwise((0, *cuts, len(q))):
        chunks = plan(lengths, HEADS, start, stop, block)
        attend_packed(q, k, v, context, chunks, HEADS, np.full(scores_size(chunks), np.nan, q.dtype))
    return context


def operands(lengths, seed=0):
    return np.random.default_rng(seed).standard_normal((3, sum(lengths), HEADS * D)).astype(np.float32)


@pytest.mark.parametrize("block", [1, 2 * 81, HEADS * 16, 2 * HEADS * 16, 10_000])
@pytest.mark.parametrize("cuts", [(), (17,), (4,), (25,), (2, 5, 30), (11, 11, 12, 13), tuple(range(1, sum(LENGTHS)))])
def test_the_reference_wherever_threads_and_chunks_begin(cuts, block):
    q, k, v = operands(LENGTHS)
    within(attend(q, k, v, LENGTHS, cuts, block), q, k, v)


@pytest.mark.parametrize("lengths", [LENGTHS, (1, 9)])
@pytest.mark.parametrize("block", [1, 2 * 81, 170, HEADS * 16, 2 * HEADS * 16, 10_000])
def test_a_chunk_has_a_block_of_scores_or_one_head_of_a_sequence(lengths, block):
    chunks = plan(lengths, HEADS, 0, sum(lengths), block)
    for chunk in chunks:
        assert chunk.size == sum(math.prod(item.shape) for item in chunk.items)
        assert chunk.size <= block or [item.shape[:2] for item in chunk.items] == [(1, 1)]
        assert all(item.heads == chunk.items[0].heads for item in chunk.items)
        assert chunk.rows == slice(chunk.items[0].queries.start, chunk.items[-1].queries.stop)
    assert sum(chunk.size for chunk in chunks) == HEADS * sum(n * n for n in lengths)


def test_neighbours_of_one_length_share_their_products():
    (chunk,) = plan(LENGTHS, HEADS, 0, sum(LENGTHS), 10_000)
    assert [item.shape for item in chunk.items] == [
        (3, 3, 4, 4), (1, 3, 7, 7), (2, 3, 2, 2), (1, 3, 1, 1), (1, 3, 9, 9), (1, 3, 1, 1)
    ]  # fmt: skip


def test_nothing_to_do():
    assert plan((), HEADS, 0, 0, 100) == ()
    assert plan((3, 4), HEADS, 3, 3, 100) == ()
    assert scores_size(()) == 0
    q = np.empty((0, HEADS * D), np.float32)
    assert attend(q, q, q, (), (), 100).shape == q.shape


def test_large_scores_do_not_overflow_and_change_no_other_sequences_bits():
    q, k, v = operands(LENGTHS)
    calm = attend(q, k, v, LENGTHS, (), 10_000)
    q[12:19] *= 300  # the sequence of seven: scores of hundreds
    wild = attend(q, k, v, LENGTHS, (), 10_000)
    within(wild, q, k, v)
    others = np.r_[:12, 19 : len(q)]
    assert np.array_equal(calm[others], wild[others])


@pytest.mark.parametrize("sign", [1, -1])
def test_scores_that_are_large_on_one_side_only(sign):
    q, k, v = operands(LENGTHS)
    q, k = sign * 30 * np.abs(q), np.abs(k)
    within(attend(q, k, v, LENGTHS, (), 10_000), q, k, v)


def test_nan_stays_in_its_sequence():
    q, k, v = operands(LENGTHS)
    q[12, 0] = np.nan
    got = attend(q, k, v, LENGTHS, (), 10_000)
    assert np.isnan(got[12, :D]).all()
    got[12, :D] = 0
    assert np.isfinite(got).all()


def test_a_width_that_does_not_divide_is_refused():
    q = np.zeros((2, HEADS * D + 1), np.float32)
    chunks = plan((2,), HEADS, 0, 2, 100)
    with pytest.raises(ValueError, match="13 features do not divide into 3 heads"):
        attend_packed(q, q, q, q.copy(), chunks, HEADS, np.empty(scores_size(chunks), np.float32))
