"""TensorFlow 1 checkpoints: a real one that TensorFlow wrote, and small ones of our own for what it does not show."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from checkpoint_files import GOLDEN, TINY, assert_bitwise, entry, number, table, weights, write_bundle

from refbert.checkpoint import match, names, read
from refbert.checkpoint.tensorflow_file import read_tensorflow
from refbert.config import BertConfig
from refbert.config.parameters import shapes
from refbert.errors import CheckpointError

INDEX = "bert_model.ckpt.index"
DATA = "bert_model.ckpt.data-00000-of-00001"


@pytest.fixture
def golden(tmp_path):
    for name in (INDEX, DATA, "bert_config.json"):
        shutil.copyfile(GOLDEN / name, tmp_path / name)
    return tmp_path


def google(tensors):
    """refbert's tensors under Google's names and in Google's layout."""
    out = {}
    for name, x in tensors.items():
        key, transposed = names.to_tensorflow(name)
        out[key] = x.T if transposed else x
    return out


# The real file


def test_the_golden_checkpoint_is_read_whole():
    checkpoint = read(GOLDEN)
    config = BertConfig.from_directory(GOLDEN)
    assert checkpoint.format == "tensorflow"
    assert checkpoint.files == (GOLDEN / INDEX, GOLDEN / DATA)
    assert checkpoint.ignored == ("global_step",)
    matched = match(checkpoint, shapes(config, ("masked_lm", "next_sentence")))
    assert (matched.missing, matched.unused) == ((), ())
    # 5 embeddings, 16 tensors for each of 3 layers, 2 of the pooler, 5 of the masked-LM head, 2 of next sentence
    assert len(matched.parameters) == 5 + 3 * 16 + 2 + 5 + 2
    assert all(x.dtype == np.float32 for x in matched.parameters.values())


def test_averages_and_momentum_are_counted_not_listed(tmp_path):
    import refbert

    config = TINY.to_dict()
    (tmp_path / "bert_config.json").write_text(json.dumps(config))
    tensors = google(weights())
    slots = {f"{name}/{slot}": x for name, x in tensors.items() for slot in ("ExponentialMovingAverage", "Momentum")}
    quiet = {f"{name}/{slot}": x for name, x in tensors.items() for slot in ("adam_m", "adam_v", "LAMB", "LAMB_1")}
    write_bundle(tmp_path / "bert_model.ckpt", tensors | slots | quiet)
    with pytest.warns(refbert.RefbertWarning) as caught:
        model = refbert.load(tmp_path)
    assert_bitwise(model.state_dict(), weights())
    (said,) = [str(warning.message) for warning in caught]
    n = len(tensors)
    assert f"not used: {n} called …/ExponentialMovingAverage, {n} called …/LAMB, " in said
    assert "adam" not in said
    assert len(said) < 250


def test_the_golden_weights_are_the_ones_that_google_trained():
    """Twelve of Google's optimizer steps lead from these weights to the ones in the fixture, and steps are small.

    One step moves a weight by at most lr·(|m|/√v + 0.01·|w|). By Cauchy-Schwarz |m|/√v, without bias correction, is at
    most (1−β₁)/√(1−β₂) · 1/√(1 − β₁²/β₂) = 7.27 for β₁ = 0.9, β₂ = 0.999, and no rate is above the peak. A tensor in
    another's place, a transposed matrix or a shifted offset breaks this.
    """
    with np.load(GOLDEN / "expected.npz") as file:
        after = {name.removeprefix("after/"): file[name] for name in file.files if name.startswith("after/")}
        steps, peak = int(file["train/steps"]), float(file["train/lr"])
    step = 0.1 / np.sqrt(0.001) / np.sqrt(1 - 0.81 / 0.999)
    before = google(read(GOLDEN).tensors)
    assert set(before) == set(after)
    for name, x in after.items():
        bound = steps * peak * (step + 0.01 * max(np.abs(x).max(), np.abs(before[name]).max()))
        assert before[name].shape == x.shape
        assert np.abs(before[name] - x).max() <= bound, name
        if x.ndim == 2 and "output_weights" not in name:
            assert np.abs(np.roll(before[name], 1, axis=0) - x).max() > bound, f"{name}: the bound would pass anything"


def test_a_dense_matrix_is_a_transposed_view_of_the_file():
    raw = read_tensorflow(GOLDEN / INDEX)
    x = read(GOLDEN).tensors["bert.encoder.layer.2.intermediate.dense.weight"]
    assert x.shape == (96, 48)
    assert x.flags.f_contiguous
    assert not x.flags.owndata
    np.testing.assert_array_equal(x, raw["bert/encoder/layer_2/intermediate/dense/kernel"].T)
    assert read(GOLDEN).tensors["cls.seq_relationship.weight"].shape == (2, 48)


def test_one_flipped_bit_anywhere_in_the_index_is_found(golden):
    good = (golden / INDEX).read_bytes()
    unseen = []
    for i in range(len(good)):
        for bit in range(8) if i >= len(good) - 48 else [i % 8]:  # the footer has no checksum
            (golden / INDEX).write_bytes(good[:i] + bytes([good[i] ^ 1 << bit]) + good[i + 1 :])
            try:
                read_tensorflow(golden / INDEX)
            except CheckpointError:
                pass
            else:
                unseen.append((i, bit))
    assert unseen == []


def test_one_flipped_bit_anywhere_in_the_data_is_found(golden):
    good = bytearray((golden / DATA).read_bytes())
    places = [0, 1, len(good) - 1, *np.random.default_rng(0).integers(0, len(good), 80).tolist()]
    for i in places:
        good[i] ^= 1 << i % 8
        (golden / DATA).write_bytes(good)
        good[i] ^= 1 << i % 8
        with pytest.raises(CheckpointError, match=f"{DATA}: damaged: the checksum of .* is wrong"):
            read(golden)


@pytest.mark.parametrize("file", [INDEX, DATA])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99, 1.0])
def test_cut_short(golden, file, keep):
    data = (golden / file).read_bytes()
    (golden / file).write_bytes(data[: int(keep * (len(data) - 1))])
    with pytest.raises(CheckpointError, match=re.escape(str(golden / file))):
        read(golden)


def test_a_missing_data_file_is_named(golden):
    (golden / DATA).unlink()
    with pytest.raises(CheckpointError, match=f"{DATA}: missing"):
        read(golden)


def test_a_prefix_and_other_names(golden):
    expected = read(golden).tensors
    assert_bitwise(read(golden / "bert_model.ckpt").tensors, expected)
    assert_bitwise(read(golden / INDEX).tensors, expected)
    (golden / INDEX).rename(golden / "model.ckpt-1000000.index")
    (golden / DATA).rename(golden / "model.ckpt-1000000.data-00000-of-00001")
    assert_bitwise(read(golden).tensors, expected)


# Our own files


@pytest.mark.parametrize(
    "layout", [{}, {"shards": 3}, {"per_block": 4}, {"per_block": 1, "restart_every": 1}, {"restart_every": 3}]
)
def test_layouts(tmp_path, layout):
    expected = weights()
    write_bundle(tmp_path / "bert_model.ckpt", google(expected), **layout)
    checkpoint = read(tmp_path)
    assert_bitwise(checkpoint.tensors, expected)
    assert len(checkpoint.files) == 1 + layout.get("shards", 1)


@pytest.mark.parametrize("head", ["sequence_classification", "question_answering"])
def test_the_heads_of_googles_fine_tuning_scripts(tmp_path, head):
    expected = weights(heads=(head,))
    write_bundle(tmp_path / "model.ckpt-99", google(expected))
    assert_bitwise(read(tmp_path).tensors, expected)


def test_optimizer_state_is_ignored_and_unknown_names_are_kept(tmp_path):
    expected = weights()
    stored = google(expected)
    moments = {f"{name}/{m}": np.zeros_like(x) for name, x in stored.items() for m in ("adam_m", "adam_v")}
    extra = {"global_step": np.array(7), "loss/extra": np.ones(3, np.float32)}
    write_bundle(tmp_path / "bert_model.ckpt", stored | moments | extra)
    checkpoint = read(tmp_path)
    assert_bitwise(checkpoint.tensors, expected | {"loss/extra": np.ones(3, np.float32)})
    assert set(checkpoint.ignored) == {*moments, "global_step"}


def test_other_dtypes(tmp_path):
    x = np.array([[1.5, -2.0], [3.0, np.pi]])
    write_bundle(tmp_path / "m", {"a": x, "b": x.astype(np.float16)})
    found = read(tmp_path).tensors
    np.testing.assert_array_equal(found["a"], x)
    np.testing.assert_array_equal(found["b"], x.astype(np.float16))


def one(tmp_path, value: bytes, data: bytes = b"\0" * 8, **layout):
    (tmp_path / "m.data-00000-of-00001").write_bytes(data)
    (tmp_path / "m.index").write_bytes(table({b"": number(1, 1), b"bert/pooler/dense/bias": value}, **layout))
    return tmp_path / "m.index"


def test_bfloat16_is_widened(tmp_path):
    bits = (np.array([1.5, -0.25, 96.0, 0.0], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    index = one(tmp_path, entry(14, (4,), 0, 0, bits.tobytes()), bits.tobytes())
    np.testing.assert_array_equal(
        read_tensorflow(index)["bert/pooler/dense/bias"], np.array([1.5, -0.25, 96.0, 0.0], np.float32)
    )


def test_a_misaligned_tensor_is_copied(tmp_path):
    data = b"\1" + np.array([1.0, 2.0], np.float32).tobytes()
    value = entry(1, (2,), 0, 0, data[1:]).replace(number(5, 8), number(4, 1) + number(5, 8))
    x = read_tensorflow(one(tmp_path, value, data))["bert/pooler/dense/bias"]
    assert x.flags.aligned
    np.testing.assert_array_equal(x, np.array([1.0, 2.0], np.float32))


ZEROS = bytes(8)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (entry(1, (2,), 0, 0, ZEROS) + b"\x3a\x00", "partitioned"),
        (entry(8, (1,), 0, 0, ZEROS), "dtype number 8"),
        (entry(7, (), 0, 0, ZEROS), "dtype number 7"),
        (entry(1, (3,), 0, 0, ZEROS), r"damaged at bert/pooler/dense/bias \(shape \[3\], 8 bytes"),
        (entry(1, (2,), 5, 0, ZEROS), "data file 5"),
        (entry(1, (2,), 0, 8, ZEROS), "cut short: 8 bytes, and bert/pooler/dense/bias ends at 16"),
        (entry(1, (2,), 0, 0, b"\1" * 8), "checksum"),
        (entry(1, (2,), 0, 0, ZEROS)[:-1], "damaged"),
        (b"\x0b", "wire type 3"),
    ],
)
def test_what_is_refused(tmp_path, value, message):
    with pytest.raises(CheckpointError, match=message):
        read_tensorflow(one(tmp_path, value))


def test_compressed_blocks_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="compressed"):
        read_tensorflow(one(tmp_path, entry(1, (2,), 0, 0, ZEROS), kind=1))


@pytest.mark.parametrize(
    ("header", "message"),
    [(number(1, 1) + number(2, 1), "big-endian"), (number(1, 2**40), "impossible"), (b"\xff" * 12, "damaged")],
)
def test_headers_that_are_refused(tmp_path, header, message):
    with pytest.raises(CheckpointError, match=message):
        read(write_bundle(tmp_path / "m", google(weights()), header=header))


def test_a_known_weight_of_whole_numbers_is_refused(tmp_path):
    stored = google(weights()) | {"bert/pooler/dense/bias": np.zeros(TINY.hidden_size, np.int32)}
    write_bundle(tmp_path / "m", stored)
    with pytest.raises(CheckpointError, match="bert/pooler/dense/bias is int32"):
        read(tmp_path)
