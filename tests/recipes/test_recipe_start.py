"""What pretraining begins with: layers and pieces of another model, kept as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import start

import refbert
from refbert.config import BertConfig
from refbert.errors import InputError
from refbert.text.tokenization import Tokenizer

PIECES = ["[PAD]", "unused", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a", "b", "##b", "cat", "##s", "z", "dog", "s"]
CONFIG = BertConfig(
    vocab_size=len(PIECES), hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=12,
    max_position_embeddings=140,
)  # fmt: skip


@pytest.fixture
def whole(tmp_path: Path) -> refbert.Model:
    """A model of three layers in tmp_path/whole, and two texts beside it."""
    model = refbert.from_config(CONFIG, backend="reference", dtype="float32", heads=(), seed=1)
    model.tokenizer = Tokenizer.from_vocabulary(PIECES)
    model.save(tmp_path / "whole")
    (tmp_path / "one.txt").write_text("cats\ncats\n", encoding="utf-8")
    (tmp_path / "two.txt").write_text("a dog dog dog\n", encoding="utf-8")
    return model


def begun(path: Path, weights: list[float], size: int, layers: list[int]) -> refbert.Model:
    start.start(
        path / "whole", path / "begun", [path / "one.txt", path / "two.txt"], weights, vocab_size=size, layers=layers
    )
    return refbert.load(path / "begun", backend="reference", dtype="float32")


def test_layers_and_pieces_are_those_of_the_whole(whole: refbert.Model, tmp_path: Path) -> None:
    model = begun(tmp_path, [1, 1], 11, [0, 2])
    kept = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a", "cat", "##s", "dog", "s"]
    assert model.tokenizer.tokens(range(model.tokenizer.vocab_size)) == kept
    given, found = whole.state_dict(), model.state_dict()
    words = "bert.embeddings.word_embeddings.weight"
    np.testing.assert_array_equal(found[words], given[words][[PIECES.index(piece) for piece in kept]])
    assert found["bert.embeddings.position_embeddings.weight"].shape == (128, 8)
    for name, tensor in found.items():
        if ".layer.1." in name:
            np.testing.assert_array_equal(tensor, given[name.replace(".layer.1.", ".layer.2.")])
        elif ".layer.0." in name:
            np.testing.assert_array_equal(tensor, given[name])
    assert model.config.num_hidden_layers == 2
    assert model.heads == ("masked_lm",)


def test_without_reading_the_context_the_commonest_is_said(whole: refbert.Model, tmp_path: Path) -> None:
    """The head begins with the frequencies: with no hidden state left, dog and cat are as 3 to 2."""
    model = begun(tmp_path, [1, 1], 11, [0])
    bias = model.state_dict()["cls.predictions.bias"]
    ids = {piece: i for i, piece in enumerate(model.tokenizer.tokens(range(11)))}
    # Each logarithm is rounded to float32 once, so a frequency is off by as much of itself.
    off = 2.0**-24 * np.abs(bias.astype(np.float64))
    dog, cat = (float(bias[ids[piece]]) for piece in ("dog", "cat"))
    assert abs(dog - cat - np.log(4 / 3)) <= off[ids["dog"]] + off[ids["cat"]]  # of 3 and 2, each and one
    assert abs(np.exp(bias.astype(np.float64)).sum() - 1) <= 1.01 * off.max()


def test_weights_count(whole: refbert.Model, tmp_path: Path) -> None:
    model = begun(tmp_path, [1, 0.5], 10, [0])  # one place less: dog, 1.5 times, against cat and ##s, twice
    assert model.tokenizer.tokens(range(10))[-2:] == ["##s", "s"]
    with pytest.raises(InputError, match="weights: 1, files: 2"):
        begun(tmp_path, [1], 10, [0])


def test_what_cannot_be_is_said(whole: refbert.Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has 0 to 2, not \[3\]"):
        begun(tmp_path, [1, 1], 11, [3])
    with pytest.raises(InputError, match="more than 5"):
        begun(tmp_path, [1, 1], 5, [0])
