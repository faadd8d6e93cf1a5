"""int8 rows with scales: written and read, against compressed-tensors and transformers, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
from checkpoint_files import assert_bitwise, weights
from safetensors.numpy import load_file, save_file

import refbert
from refbert import checkpoint
from refbert.checkpoint.quantized import quantize
from refbert.config import BertConfig
from refbert.errors import CheckpointError

WEIGHT = "bert.pooler.dense.weight"
CONFIG = BertConfig(
    vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
    max_position_embeddings=12,
)  # fmt: skip


@pytest.fixture
def model():
    made = refbert.from_config(
        CONFIG, backend="reference", dtype="float32", heads=("masked_lm", "next_sentence"), seed=3
    )
    # Rows of very different sizes: one scale for all of a matrix would lose the small ones.
    grown = np.exp(np.linspace(-3, 1, 30, dtype=np.float32))[:, None]
    made.parameters["bert.embeddings.word_embeddings.weight"] *= grown
    return made


def written(model, directory):
    checkpoint.write(directory, model.state_dict(), model.config, heads=model.heads, pooler=True, int8=True)
    return directory


def test_an_entry_moves_by_half_a_step_of_its_row_at_most(model, tmp_path):
    found = checkpoint.read(written(model, tmp_path / "q")).tensors
    given = model.state_dict()
    assert set(found) == set(given)
    moved = 0
    for name, x in given.items():
        assert found[name].dtype == np.float32
        if x.ndim == 2:
            step = np.abs(x).max(axis=1, keepdims=True) / 127
            # The division, the product and the scale itself are rounded: 3 ulp of 127 steps.
            assert (np.abs(found[name] - x) <= step * (0.5 + 127 * 3 * 2.0**-24)).all()
            moved += np.count_nonzero(found[name] != x)
        else:
            np.testing.assert_array_equal(found[name], x)
    assert moved > 1000


def test_a_quarter_of_the_bytes(model, tmp_path):
    stored = load_file(written(model, tmp_path / "q") / "model.safetensors")
    matrices = {n for n, x in model.state_dict().items() if x.ndim == 2}
    assert {n for n, x in stored.items() if x.dtype == np.int8} == matrices
    assert {n for n in stored if n.endswith("_scale")} == {f"{n}_scale" for n in matrices}


def test_a_row_of_zeros_stays_zeros():
    stored = quantize({WEIGHT: np.array([[0, 0], [1, -3]], np.float32)})
    np.testing.assert_array_equal(stored[WEIGHT], [[0, 0], [42, -127]])
    assert (stored[f"{WEIGHT}_scale"] > 0).all()


def test_read_again_and_written_whole(model, tmp_path):
    """A model that was read from int8 is saved in float32, and says nothing of int8 then."""
    read = refbert.load(written(model, tmp_path / "q"), backend="reference", dtype="float32")
    read.save(tmp_path / "whole")
    assert "quantization" not in (tmp_path / "whole" / "config.json").read_text()
    assert_bitwise(checkpoint.read(tmp_path / "whole").tensors, checkpoint.read(tmp_path / "q").tensors)


def test_transformers_reads_the_same_weights(model, tmp_path):
    import torch
    from transformers import AutoModelForPreTraining

    directory = written(model, tmp_path / "q")
    theirs = AutoModelForPreTraining.from_pretrained(directory, dtype=torch.float32).eval()
    ours = checkpoint.read(directory).tensors
    named = dict(theirs.named_parameters())
    assert set(named) == set(ours)
    for name, x in ours.items():
        # Whether a scale is multiplied in float32 or float64, one rounding apart.
        np.testing.assert_allclose(named[name].detach().numpy(), x, rtol=2.0**-23, atol=0)


@pytest.mark.parametrize("shape", [(1,), ()])
def test_one_scale_for_the_whole_matrix(tmp_path, shape):
    rows = np.arange(-32, 32, dtype=np.int8).reshape(8, 8)
    save_file(
        weights() | {WEIGHT: rows, f"{WEIGHT}_scale": np.full(shape, 0.5, np.float16)}, tmp_path / "model.safetensors"
    )
    np.testing.assert_array_equal(checkpoint.read(tmp_path).tensors[WEIGHT], rows * np.float32(0.5))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({WEIGHT: np.ones((8, 8), np.int8), f"{WEIGHT}_scale": np.ones((1, 8), np.float32)}, "[8, 1] or [1] numbers"),
        ({WEIGHT: np.ones((8, 8), np.int8), f"{WEIGHT}_scale": np.ones((8, 1), np.int32)}, "[8, 1] or [1] numbers"),
        ({f"{WEIGHT}_scale": np.ones((8, 1), np.float32)}, "not an int8 matrix"),
        ({WEIGHT: np.ones((8, 8), np.int8), f"{WEIGHT}_scale": np.ones((8, 1), np.float32),
          f"{WEIGHT}_zero_point": np.ones((8, 1), np.int8)}, "symmetric"),
        ({f"{WEIGHT}_packed": np.ones((8, 2), np.int32), f"{WEIGHT}_scale": np.ones((8, 1), np.float32)}, "is packed"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path, entries, message):
    save_file(weights() | entries, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=re.escape(message)) as caught:
        checkpoint.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_zero_points_of_zero_change_nothing(tmp_path):
    rows, scale = np.ones((8, 8), np.int8), np.full((8, 1), 2, np.float32)
    entries = {WEIGHT: rows, f"{WEIGHT}_scale": scale, f"{WEIGHT}_zero_point": np.zeros((8, 1), np.int8)}
    save_file(weights() | entries, tmp_path / "model.safetensors")
    found = checkpoint.read(tmp_path)
    np.testing.assert_array_equal(found.tensors[WEIGHT], np.full((8, 8), 2, np.float32))
    assert found.ignored == ()
