"""Writing: Hugging Face transformers loads it to the same tensors, and what it saves comes back bit by bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from checkpoint_files import GOLDEN, TINY, assert_bitwise, weights

from refbert.checkpoint import heads_in, match, read, write
from refbert.config import BertConfig
from refbert.config.parameters import shapes
from refbert.errors import CheckpointError, ConfigError
from refbert.files import writing

CLASSES = [
    ((), True, "BertModel"),
    (("masked_lm", "next_sentence"), True, "BertForPreTraining"),
    (("masked_lm",), False, "BertForMaskedLM"),
    (("next_sentence",), True, "BertForNextSentencePrediction"),
    (("sequence_classification",), True, "BertForSequenceClassification"),
    (("token_classification",), False, "BertForTokenClassification"),
    (("question_answering",), False, "BertForQuestionAnswering"),
    (("multiple_choice",), True, "BertForMultipleChoice"),
]
each_class = pytest.mark.parametrize(("heads", "pooler", "name"), CLASSES)


def in_file(heads):
    """transformers sizes the outputs of question answering, start and end, by the number of labels."""
    return TINY.replace(num_labels=2) if heads == ("question_answering",) else TINY


def load(name, directory, **options):
    """The model, having checked that transformers neither missed a tensor nor had one left over."""
    model, info = getattr(transformers, name).from_pretrained(directory, output_loading_info=True, **options)
    assert {key: list(value) for key, value in info.items() if value} == {}
    return model.eval()


@each_class
def test_round_trip_through_transformers_is_exact(tmp_path, heads, pooler, name):
    expected = weights(heads=heads, pooler=pooler)
    write(tmp_path / "ours", expected, TINY, heads=heads, pooler=pooler)
    config = BertConfig.from_directory(tmp_path / "ours")
    assert config.architectures == (name,)
    assert config.replace(architectures=(), id2label={}) == in_file(heads)
    checkpoint = read(tmp_path / "ours")
    assert_bitwise(checkpoint.tensors, expected)
    assert heads_in(checkpoint.tensors, config) == (heads, pooler)

    model = load(name, tmp_path / "ours")
    theirs = {key: x.detach().numpy() for key, x in model.named_parameters()}
    prefix = "bert." if name == "BertModel" else ""
    assert_bitwise({prefix + key: x for key, x in theirs.items()}, expected)

    model.save_pretrained(tmp_path / "theirs")
    back = read(tmp_path / "theirs")
    assert_bitwise(back.tensors, expected)
    again = BertConfig.from_directory(tmp_path / "theirs")
    assert again.architectures == (name,)
    assert heads_in(back.tensors, again) == (heads, pooler)


@each_class
def test_transformers_computes_the_same_function(tmp_path, heads, pooler, name):
    """Our config.json is enough: the model built from it equals the one built with transformers' own configuration."""
    write(tmp_path, weights(heads=heads, pooler=pooler), TINY, heads=heads, pooler=pooler)
    model = load(name, tmp_path)
    own = in_file(heads).to_dict()
    del own["model_type"], own["position_embedding_type"]
    other = getattr(transformers, name)(transformers.BertConfig(**own)).eval()
    other.load_state_dict(model.state_dict())
    ids = torch.tensor([[2, 5, 9, 3], [2, 7, 3, 0]])
    if name == "BertForMultipleChoice":
        ids = ids[None]
    mask = (ids != 0).long()
    with torch.no_grad():
        ours, theirs = model(ids, attention_mask=mask), other(ids, attention_mask=mask)
    for key, x in ours.items():
        torch.testing.assert_close(x, theirs[key], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_dtypes_survive(tmp_path, dtype):
    expected = weights(dtype=dtype)
    write(tmp_path, expected, TINY, heads=("masked_lm", "next_sentence"), pooler=True)
    assert_bitwise(read(tmp_path).tensors, expected)
    model = load("BertForPreTraining", tmp_path)
    assert_bitwise({key: x.detach().numpy() for key, x in model.named_parameters()}, expected)


def test_heads_that_no_single_class_has(tmp_path):
    heads = ("masked_lm", "question_answering")
    write(tmp_path, weights(heads=heads), TINY, heads=heads, pooler=True)
    config = BertConfig.from_directory(tmp_path)
    assert config.architectures == ("BertForMaskedLM", "BertForQuestionAnswering")
    assert heads_in(read(tmp_path).tensors, config) == (heads, True)


def test_a_tensorflow_checkpoint_is_converted(tmp_path):
    """Transposed views of a mapped file come out row by row."""
    config = BertConfig.from_directory(GOLDEN)
    heads = ("masked_lm", "next_sentence")
    expected = match(read(GOLDEN), shapes(config, heads)).parameters
    write(tmp_path, expected, config, heads=heads, pooler=True)
    assert_bitwise(read(tmp_path).tensors, expected)
    load("BertForPreTraining", tmp_path)


def test_labels_are_kept(tmp_path):
    config = TINY.replace(num_labels=3, id2label={0: "no", 1: "yes", 2: "perhaps"})
    heads = ("sequence_classification",)
    write(tmp_path, weights(config, heads), config, heads=heads, pooler=True)
    assert load("BertForSequenceClassification", tmp_path).config.id2label == {0: "no", 1: "yes", 2: "perhaps"}


# What must not happen


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_nothing_is_overwritten_unless_asked(tmp_path, name):
    (tmp_path / name).write_text("somebody's work")
    with pytest.raises(CheckpointError, match=f"{name}: exists already"):
        write(tmp_path, weights(heads=()), TINY, heads=(), pooler=True)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "somebody's work")]
    write(tmp_path, weights(heads=()), TINY, heads=(), pooler=True, overwrite=True)
    assert_bitwise(read(tmp_path).tensors, weights(heads=()))


def test_a_checkpoint_can_be_written_over_the_file_it_is_mapped_from(tmp_path):
    write(tmp_path, weights(heads=()), TINY, heads=(), pooler=True)
    mapped = read(tmp_path).tensors
    write(tmp_path, mapped, TINY, heads=(), pooler=True, overwrite=True)
    assert_bitwise(mapped, weights(heads=()))
    assert_bitwise(read(tmp_path).tensors, weights(heads=()))


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(part):
        assert part.stat().st_size > 0
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "sync", fail)
    with pytest.raises(CheckpointError, match=r"cannot be written \(No space left on device\)"):
        write(tmp_path, weights(heads=()), TINY, heads=(), pooler=True)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_overwrite_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    write(tmp_path, weights(heads=()), TINY, heads=(), pooler=True)

    def fail(part):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "sync", fail)
    with pytest.raises(CheckpointError):
        write(tmp_path, weights(), TINY, heads=("masked_lm", "next_sentence"), pooler=True, overwrite=True)
    assert_bitwise(read(tmp_path).tensors, weights(heads=()))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_tensors_that_do_not_fit_are_not_written(tmp_path):
    tensors = weights(heads=())
    with pytest.raises(CheckpointError, match="missing or too many: cls.predictions.bias"):
        write(tmp_path / "a", tensors, TINY, heads=("masked_lm",), pooler=True)
    tensors["bert.pooler.dense.bias"] = np.zeros(5, np.float32)
    with pytest.raises(CheckpointError, match=r"bert.pooler.dense.bias has shape \[5\], not \[8\]"):
        write(tmp_path / "a", tensors, TINY, heads=(), pooler=True)
    with pytest.raises(ConfigError, match="needs the pooler"):
        write(tmp_path / "a", tensors, TINY, heads=("next_sentence",), pooler=False)
    assert not (tmp_path / "a").exists()


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write(tmp_path / "file" / "below", weights(heads=()), TINY, heads=(), pooler=True)


def test_the_files_say_what_they_are(tmp_path):
    write(tmp_path, weights(heads=()), TINY, heads=(), pooler=True)
    described = json.loads((tmp_path / "config.json").read_text())
    assert described["model_type"] == "bert"
    header = (tmp_path / "model.safetensors").read_bytes()
    assert json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"] == {"format": "pt"}
