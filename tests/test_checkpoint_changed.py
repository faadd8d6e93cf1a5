"""A checkpoint that is overwritten while a model is in use: noticed at the next call, where the weights are views."""

from __future__ import annotations

import os
import shutil
import time

import numpy as np
import pytest
from checkpoint_files import TINY, weights, write_bundle
from hostile import refused

import refbert
from refbert.checkpoint import names, write
from refbert.errors import CheckpointError

BATCH = refbert.Batch(input_ids=[[1, 2, 3]])


@pytest.fixture
def directory(tmp_path):
    write(tmp_path / "model", weights(), TINY, heads=("masked_lm", "next_sentence"), pooler=True)
    return tmp_path / "model"


def overwrite(file):
    """Other numbers in the same file, of the same length."""
    data = bytearray(file.read_bytes())
    data[-4:] = np.float32(7).tobytes()
    with file.open("r+b") as opened:
        opened.write(data)
    os.utime(file, ns=(time.time_ns(), time.time_ns() + 1))


def cut(file):
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)


@pytest.mark.parametrize("change", [overwrite, cut])
@pytest.mark.parametrize(
    "use",
    [
        lambda model: model(BATCH),
        lambda model: model.loss_and_gradients(BATCH, {"labels": [[1, 2, 3]], "next_sentence_label": [0]}),
        lambda model: model.state_dict(),
    ],
    ids=["call", "loss", "state_dict"],
)
def test_a_file_that_was_written_to(directory, change, use):
    model = refbert.load(directory)
    use(model)
    change(directory / "model.safetensors")
    refused(CheckpointError, r"model\.safetensors: changed since the model was loaded.*load it again", use, model)
    refused(CheckpointError, "changed", use, model)  # it does not go away


@pytest.mark.parametrize("kind", ["tensorflow", "pytorch"])
def test_other_formats(tmp_path, directory, kind):
    if kind == "pytorch":
        torch = pytest.importorskip("torch")
        file = directory / "pytorch_model.bin"
        torch.save({name: torch.from_numpy(x) for name, x in weights().items()}, file)
    else:
        tensors = {}
        for name, x in weights().items():
            google, transposed = names.to_tensorflow(name)
            tensors[google] = x.T if transposed else x
        file = write_bundle(directory / "bert_model.ckpt", tensors).with_suffix(".data-00000-of-00001")
    (directory / "model.safetensors").unlink()
    model = refbert.load(directory)
    model(BATCH)
    overwrite(file)
    refused(CheckpointError, f"{file.name}: changed", model, BATCH)


def test_copies_do_not_follow_the_file(directory):
    model = refbert.load(directory, backend="reference")
    before = model(BATCH).last_hidden_state
    overwrite(directory / "model.safetensors")
    assert np.array_equal(model(BATCH).last_hidden_state, before)


@pytest.mark.parametrize("how", ["saved over", "renamed over", "deleted", "touched nothing"])
def test_what_does_no_harm_is_no_error(tmp_path, directory, how):
    model = refbert.load(directory)
    before = model(BATCH).last_hidden_state
    if how == "saved over":
        other = refbert.load(directory)
        other.parameters["bert.pooler.dense.bias"] = other.parameters["bert.pooler.dense.bias"] + 1
        other.save(directory, overwrite=True)
    elif how == "renamed over":
        shutil.copy(directory / "model.safetensors", tmp_path / "new")
        overwrite(tmp_path / "new")
        (tmp_path / "new").replace(directory / "model.safetensors")
    elif how == "deleted":
        (directory / "model.safetensors").unlink()
    assert np.array_equal(model(BATCH).last_hidden_state, before)
    model.save(directory, overwrite=True)
    assert np.array_equal(refbert.load(directory)(BATCH).last_hidden_state, before)


def test_a_fresh_model_watches_nothing():
    assert refbert.from_config(TINY).mapped_files is None
