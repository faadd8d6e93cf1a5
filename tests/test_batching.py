"""Batches: what is accepted is normalised, what is not is named with its place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from refbert import Batch, BertConfig
from refbert.errors import InputError

CONFIG = BertConfig(vocab_size=11, hidden_size=8, num_attention_heads=2, max_position_embeddings=4, type_vocab_size=2)
ARRAYS = ("input_ids", "token_type_ids", "attention_mask")


def parts(batch):
    return [getattr(batch, name) for name in ARRAYS]


class TestAccepted:
    def test_defaults(self):
        batch = Batch(input_ids=[[5, 6, 7], [8, 9, 10]])
        assert batch.token_type_ids.tolist() == [[0, 0, 0], [0, 0, 0]]
        assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 1]]

    @pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">i4"])
    def test_any_whole_numbers(self, dtype):
        batch = Batch(*(np.array([[1, 0, 1]], dtype=dtype) for _ in range(3)))
        for array in parts(batch):
            assert array.dtype == np.int64
            assert array.dtype.isnative
            assert array.tolist() == [[1, 0, 1]]

    def test_lists_tuples_booleans_and_strided_arrays(self):
        strided = np.arange(24).reshape(4, 6)[::2, ::3].T
        batch = Batch(input_ids=strided, token_type_ids=((0, 1), (1, 0)), attention_mask=np.array([[True, False]] * 2))
        assert batch.input_ids.tolist() == [[0, 12], [3, 15]]
        assert batch.attention_mask.tolist() == [[1, 0], [1, 0]]
        assert all(array.flags.c_contiguous for array in parts(batch))

    @pytest.mark.parametrize("shape", [(0, 1), (0, 4), (1, 1), (3, 1)])
    def test_no_rows_and_single_tokens(self, shape):
        for empty in (np.zeros(shape, int), np.zeros(shape, int).tolist() if shape[0] else np.zeros(shape)):
            batch = Batch(input_ids=empty)
            assert batch.shape == shape
            assert [array.shape for array in parts(batch)] == [shape] * 3
            batch.check(CONFIG)

    def test_a_copy_is_kept(self):
        ids = np.array([[1, 2]])
        batch = Batch(input_ids=ids)
        ids[:] = -1
        assert batch.input_ids.tolist() == [[1, 2]]

    @given(ids=hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.integers(0, 2**63 - 1)))
    def test_values_are_kept(self, ids):
        assert np.array_equal(Batch(input_ids=ids).input_ids, ids)


class TestRefused:
    @pytest.mark.parametrize("name", ARRAYS)
    @pytest.mark.parametrize(
        ("value", "says"),
        [
            ([[1.0, 2.0]], "must be whole numbers, not float64"),
            ([["a", "b"]], "must be whole numbers"),
            ([[None, 1]], "must be whole numbers, not object"),
            ([[2**64, 1]], "must be whole numbers, not object"),
            ([1, 0], r"two-dimensional, \[B, S\] with S at least 1; it has shape \(2,\)"),
            (1, r"it has shape \(\)"),
            ([[[1, 0]]], r"it has shape \(1, 1, 2\)"),
            ([], r"it has shape \(0,\)"),
            ([[]], r"it has shape \(1, 0\)"),
            ([[1, 0], [1]], "must be rows of one length: pad the shorter ones"),
            ([[1, 0], [1, -1]], r"\[1, 1\] is -1: ids and masks are 0 or more"),
            (np.array([[1, 2**63]], np.uint64), r"\[0, 1\] is 9223372036854775808"),
        ],
    )
    def test_not_a_matrix_of_ids(self, name, value, says):
        with pytest.raises(InputError, match=f"^{name}.*{says}"):
            Batch(**({"input_ids": [[1, 0]]} | {name: value}))

    @pytest.mark.parametrize("name", ARRAYS[1:])
    @pytest.mark.parametrize(("B", "S"), [(2, 2), (1, 3), (1, 1), (2, 1)])  # a B, an S, and shapes NumPy would stretch
    def test_shapes_that_differ(self, name, B, S):
        with pytest.raises(InputError, match=rf"{name} has shape \({B}, {S}\), but input_ids has shape \(1, 2\)"):
            Batch(**{"input_ids": [[1, 2]], name: np.ones((B, S), int)})

    def test_a_mask_of_anything_but_zero_and_one(self):
        with pytest.raises(InputError, match="attention_mask must be 0 or 1, found 2"):
            Batch(input_ids=[[1, 2]], attention_mask=[[1, 2]])


class TestCheck:
    def test_the_last_id_segment_and_position_are_legal(self):
        Batch(input_ids=[[0, 10, 3, 4]], token_type_ids=[[0, 1, 0, 1]]).check(CONFIG)

    @pytest.mark.parametrize(
        ("batch", "says"),
        [
            (Batch([[0, 1], [11, 2]]), r"input_ids\[1, 0\] is 11: the model has ids 0 to 10"),
            (Batch([[0, 2**62]]), rf"input_ids\[0, 1\] is {2**62}"),
            (Batch([[0, 1]], [[0, 2]]), r"token_type_ids\[0, 1\] is 2: the model has ids 0 to 1"),
            (Batch([[0] * 5]), "the batch is 5 tokens long, but the model has 4 positions"),
            (Batch(np.zeros((0, 5))), "5 tokens long"),
        ],
    )
    def test_what_the_model_does_not_have(self, batch, says):
        with pytest.raises(InputError, match=says):
            batch.check(CONFIG)

    def test_padding_is_checked_too(self):
        # A masked id is looked up all the same, so it must exist.
        with pytest.raises(InputError, match=r"input_ids\[0, 1\] is 99"):
            Batch([[1, 99]], attention_mask=[[1, 0]]).check(CONFIG)

    def test_published_length(self):
        base = BertConfig()
        Batch(np.zeros((1, 512), int)).check(base)
        with pytest.raises(InputError, match="513 tokens long, but the model has 512"):
            Batch(np.zeros((1, 513), int)).check(base)


class TestParts:
    BATCH = Batch(
        [[1, 2, 3], [4, 5, 0], [6, 0, 0]], [[0, 0, 1], [0, 1, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 0], [1, 0, 0]]
    )

    def test_lengths(self):
        assert self.BATCH.lengths.tolist() == [3, 2, 1]
        assert self.BATCH.rows([1, 0]).lengths.tolist() == [2, 3]

    @pytest.mark.parametrize("chosen", [[2, 0], slice(1, 3), np.array([True, False, True]), []])
    def test_rows(self, chosen):
        for whole, some in zip(parts(self.BATCH), parts(self.BATCH.rows(chosen)), strict=True):
            assert np.array_equal(some, whole[chosen])
            assert some.shape[1] == 3
