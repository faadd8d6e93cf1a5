"""Finding the weights in a directory, and giving them refbert's names."""

from __future__ import annotations

import re

import numpy as np
import pytest
from checkpoint_files import TINY, assert_bitwise, weights, write_bundle
from safetensors.numpy import save_file

from refbert.checkpoint import names, read
from refbert.errors import CheckpointError

WORDS = "bert.embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"


def store(directory, tensors):
    save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, directory / "model.safetensors")
    return directory


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_old_names_and_no_prefix(tmp_path, prefix, old):
    stored = {names.to_hugging_face(name, prefix=prefix, old=old): x for name, x in weights().items()}
    assert ("LayerNorm.gamma" in " ".join(stored)) == old
    assert any(name.startswith("bert.") for name in stored) == prefix
    assert_bitwise(read(store(tmp_path, stored)).tensors, weights())


@pytest.mark.parametrize("wrapper", ["module.", "model.", "0.auto_model.", "module.model.", "net.", "my.text_encoder."])
@pytest.mark.parametrize("prefix", [True, False])
def test_a_wrapped_model(tmp_path, wrapper, prefix):
    """Also its decoder: tied it is a second name, and any other is not left out in silence."""
    stored = {wrapper + names.to_hugging_face(name, prefix=prefix): x for name, x in weights().items()}
    (tmp_path / "tied").mkdir()
    found = read(store(tmp_path / "tied", stored | {wrapper + DECODER: weights()[WORDS]}))
    assert_bitwise(found.tensors, weights())
    assert found.ignored == (DECODER,)
    with pytest.raises(CheckpointError, match="untied decoders are not supported"):
        read(store(tmp_path, stored | {wrapper + DECODER: weights()[WORDS] + 1}))


@pytest.mark.parametrize(("part", "wrapped"), [
    ("bert.", "bert.module."), ("bert.encoder.", "bert.encoder._orig_mod."), ("bert.", "trunk."),
    (".attention.", "._fsdp_wrapped_module._checkpoint_wrapped_module.attention."),
])  # fmt: skip
def test_a_model_of_which_a_part_is_wrapped(tmp_path, part, wrapped):
    stored = {name.replace(part, wrapped, 1): x for name, x in weights().items()}
    assert_bitwise(read(store(tmp_path, stored)).tensors, weights())


def test_two_models_in_one_file(tmp_path):
    """Beside one that has BERT's names another is not used; of two others it cannot be told which is meant."""
    teacher, student = ({f"{front}.{name}": x for name, x in weights().items()} for front in ("teacher", "student"))
    assert_bitwise(read(store(tmp_path, weights() | teacher)).tensors, weights() | teacher)
    with pytest.raises(CheckpointError, match=r"holds 2 models, called student\., teacher\.; keep the weights of one"):
        read(store(tmp_path, student | teacher))


@pytest.mark.parametrize("other", ["roberta.", "xlm_roberta.", "electra."])
def test_another_model_with_the_same_names_is_not_taken_for_bert(tmp_path, other):
    stored = {name.replace("bert.", other, 1): x for name, x in weights().items()}
    assert WORDS not in read(store(tmp_path, stored)).tensors


def test_a_wrapped_and_a_plain_copy_must_agree(tmp_path):
    again = {f"module.{WORDS}": weights()[WORDS]}
    assert_bitwise(read(store(tmp_path, weights() | again)).tensors, weights())
    with pytest.raises(CheckpointError, match="twice with different values, once as"):
        read(store(tmp_path, weights() | {f"module.{WORDS}": weights()[WORDS] + 1}))


def test_unknown_names_are_kept_as_they_are(tmp_path):
    extra = {"lstm.weight": np.ones((2, 2), np.float32), "encoder.extra": np.ones(2, np.float32)}
    assert_bitwise(read(store(tmp_path, weights() | extra)).tensors, weights() | extra)


# Tied tensors


def test_the_tied_decoder_is_a_second_name(tmp_path):
    tensors = weights()
    again = {DECODER: tensors[WORDS], "cls.predictions.decoder.bias": tensors["cls.predictions.bias"]}
    checkpoint = read(store(tmp_path, tensors | again))
    assert_bitwise(checkpoint.tensors, tensors)
    assert set(checkpoint.ignored) == set(again)


def test_either_name_of_a_tied_tensor_will_do(tmp_path):
    tensors = weights()
    stored = dict(tensors)
    stored[DECODER] = stored.pop(WORDS)
    stored["cls.predictions.decoder.bias"] = stored.pop("cls.predictions.bias")
    assert_bitwise(read(store(tmp_path, stored)).tensors, tensors)


@pytest.mark.parametrize("alias", [DECODER, "cls.predictions.decoder.bias"])
def test_an_untied_decoder_is_refused(tmp_path, alias):
    tensors = weights()
    other = tensors[names.TIED[alias]].copy()
    other.flat[-1] = np.nextafter(other.flat[-1], 1, dtype=np.float32)
    with pytest.raises(CheckpointError, match=f"{re.escape(alias)} differs from .*untied"):
        read(store(tmp_path, tensors | {alias: other}))


def test_one_tensor_under_two_names(tmp_path):
    tensors = weights()
    again = {"pooler.dense.bias": tensors["bert.pooler.dense.bias"]}
    checkpoint = read(store(tmp_path, tensors | again))
    assert_bitwise(checkpoint.tensors, tensors)
    assert len(checkpoint.ignored) == 1
    with pytest.raises(CheckpointError, match=re.escape("bert.pooler.dense.bias is there twice")):
        read(store(tmp_path, tensors | {"pooler.dense.bias": again["pooler.dense.bias"] + 1}))


# Directories


def test_a_missing_directory(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere: no such directory"):
        read(tmp_path / "nowhere")


def test_a_directory_without_weights_says_what_was_looked_for(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        CheckpointError, match=r"no weights \(looked for model.safetensors, .*pytorch_model.bin, .*index"
    ):
        read(tmp_path)


def test_a_file_that_is_no_weights_file(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="config.json: not a weights file"):
        read(tmp_path / "config.json")


@pytest.mark.parametrize(("name", "option"), [("flax_model.msgpack", "from_flax"), ("tf_model.h5", "from_tf")])
def test_weights_that_refbert_does_not_read(tmp_path, name, option):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=f"only {name}, .*Convert it .*{option}=True"):
        read(tmp_path)


def test_a_weights_file_named_directly(tmp_path):
    store(tmp_path, weights())
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    assert_bitwise(read(tmp_path / "other.safetensors").tensors, weights())


def test_safetensors_come_first(tmp_path):
    store(tmp_path, weights())
    for name in ("model.safetensors.index.json", "pytorch_model.bin", "bert_model.ckpt.index", "tf_model.h5"):
        (tmp_path / name).write_bytes(b"damaged")
    assert read(tmp_path).format == "safetensors"
    (tmp_path / "model.safetensors").unlink()
    for name in ("model.safetensors.index.json", "pytorch_model.bin", "bert_model.ckpt.index"):
        with pytest.raises(CheckpointError, match=re.escape(name)):
            read(tmp_path)
        (tmp_path / name).unlink()


def test_several_tensorflow_checkpoints(tmp_path):
    size = TINY.hidden_size
    for step in (1, 2, 3):
        write_bundle(tmp_path / f"model.ckpt-{step}", {"bert/pooler/dense/bias": np.full(size, step, np.float32)})
    with pytest.raises(CheckpointError, match="3 TensorFlow checkpoints; name one, such as .*model.ckpt-3.index"):
        read(tmp_path)
    (tmp_path / "checkpoint").write_text(
        'model_checkpoint_path: "/elsewhere/model.ckpt-2"\nall_model_checkpoint_paths: "model.ckpt-1"\n'
    )
    np.testing.assert_array_equal(read(tmp_path).tensors["bert.pooler.dense.bias"], np.full(size, 2, np.float32))
    np.testing.assert_array_equal(
        read(tmp_path / "model.ckpt-3").tensors["bert.pooler.dense.bias"], np.full(size, 3, np.float32)
    )
