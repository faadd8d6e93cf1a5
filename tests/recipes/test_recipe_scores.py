"""The small model's figures: baselines against cases counted by hand, one masking for all, what is exported."""

from __future__ import annotations

import json
import math
from pathlib import Path

import baselines
import evaluate
import export
import numpy as np
import pytest

import refbert
from refbert.config import BertConfig
from refbert.data import build_store, read_sentences, train_wordpiece
from refbert.errors import InputError
from refbert.text.tokenization import Tokenizer

# Ids 1 and 2 are words, 0 the boundary, 3 [MASK]; two documents: "1 2 1" and "1 2".
DOCUMENTS = [np.array([1, 2, 1]), np.array([1, 2])]
V, BOUNDARY, MASK = 4, 0, 3


def test_unigram_by_hand() -> None:
    np.testing.assert_allclose(baselines.Unigram(DOCUMENTS, V).p, np.array([1, 4, 3, 1]) / 9)


def _witten_bell(counts: dict[int, int], backoff: np.ndarray) -> np.ndarray:
    out = backoff * len(counts)
    for word, count in counts.items():
        out[word] += count
    return out / (sum(counts.values()) + len(counts))


def test_trigram_by_hand() -> None:
    """The row [boundary] 1 ? 1 [boundary]: what stands between two 1s."""
    trigram = baselines.Trigram(DOCUMENTS, V, BOUNDARY)
    ids, special = np.array([9, 1, MASK, 1, 9]), np.array([True, False, False, False, True])
    unigram = np.array([1, 4, 3, 1]) / 9
    before = _witten_bell({2: 2}, unigram)  # after a 1 came 2, twice
    after = _witten_bell({2: 1}, unigram)  # before a 1 came 2 once (the boundary is no word)
    left = _witten_bell({2: 2}, before)  # after "boundary 1" came 2, twice
    middle = _witten_bell({2: 1}, (before + after) / 2)
    right = _witten_bell({2: 1}, after)  # before "1 boundary" came 2, once
    p = trigram(ids, 2, special)
    np.testing.assert_allclose(p, (left + middle + right) / 3)
    assert p.sum() == pytest.approx(1)


def test_a_masked_neighbour_says_nothing() -> None:
    trigram = baselines.Trigram(DOCUMENTS, V, BOUNDARY)
    ids, special = np.full(5, MASK), np.zeros(5, dtype=bool)
    np.testing.assert_allclose(trigram(ids, 2, special), trigram.unigram.p)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "one", "dog", "run", "over", "that", "hill"]
    documents = [
        "\n".join(" ".join(words[(d + s + k) % len(words)] for k in range(3 + (d + s) % 7)) for s in range(6))
        for d in range(40)
    ]
    path.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tokenizer(text: Path) -> Tokenizer:
    return train_wordpiece((s for s in read_sentences([text]) if s is not None), size=100, cased=False)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> refbert.Model:
    config = BertConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=32,
    )  # fmt: skip
    model = refbert.from_config(config, heads=("masked_lm", "next_sentence"), seed=1)
    model.tokenizer = tokenizer
    return model


def test_masks_are_the_same_every_time(text: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    seen = []
    for name in ("one", "two"):
        with build_store([text], tokenizer, tmp_path / name) as store:
            seen.append(list(evaluate.masked_batches(store, tokenizer, length=16)))
    one, two = seen
    assert len(one) == len(two) > 1
    for (batch, labels, pairs), (batch2, labels2, pairs2) in zip(one, two, strict=True):
        np.testing.assert_array_equal(batch.input_ids, batch2.input_ids)
        np.testing.assert_array_equal(labels, labels2)
        np.testing.assert_array_equal(pairs, pairs2)


def test_every_predictor_is_asked_about_the_same_positions(
    text: Path, tokenizer: Tokenizer, model: refbert.Model
) -> None:
    results = evaluate.evaluate([text], [text], tokenizer, model, length=16)["text"]
    assert set(results) == {"model", "trigram", "unigram"}
    assert len({figures["masked_tokens"] for figures in results.values()}) == 1
    assert results["trigram"]["masked_lm_perplexity"] < results["unigram"]["masked_lm_perplexity"]
    assert results["unigram"]["next_sentence_accuracy"] >= 0.5
    assert results["trigram"]["next_sentence_accuracy"] is None
    as_list = evaluate.evaluate([text], [text], tokenizer, model, length=16, lists=[text])["text"]["model"]
    assert as_list == results["model"] | {"next_sentence_accuracy": None, "pairs": 0}
    assert results["model"]["pairs"] > 0
    table = evaluate.markdown({"text": results})
    assert table.count("\n") == 4
    assert f"{results['model']['masked_lm_accuracy']:.1%}" in table


def test_figures_of_a_predictor_that_is_known(text: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Right with probability e^-1 at every position, and always "random" of pairs."""
    with build_store([text], tokenizer, tmp_path) as store:
        batches = list(evaluate.masked_batches(store, tokenizer, length=16, rounds=1))

    def predict(batch: refbert.Batch, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        target = labels[labels != evaluate.IGNORE]
        log_p = np.full((len(target), tokenizer.vocab_size), -9.0)
        log_p[np.arange(len(target)), target] = -1.0
        return log_p, np.ones(len(labels), dtype=np.int64)

    figures = evaluate.score(predict, batches).figures()
    assert figures["masked_lm_accuracy"] == 1
    assert figures["masked_lm_perplexity"] == pytest.approx(math.e)
    assert figures["next_sentence_accuracy"] == np.concatenate([pairs for _, _, pairs in batches]).mean()


def test_the_models_perplexity_is_the_exponential_of_its_loss(
    text: Path, tokenizer: Tokenizer, model: refbert.Model, tmp_path: Path
) -> None:
    with build_store([text], tokenizer, tmp_path) as store:
        batch, labels, pairs = next(evaluate.masked_batches(store, tokenizer, length=16))
    nats = math.log(
        evaluate.score(evaluate.of_model(model), [(batch, labels, pairs)]).figures()["masked_lm_perplexity"]
    )
    loss, _ = model.loss_and_gradients(batch, {"labels": labels})
    # float32 sums of some hundred terms of size 5.
    assert nats == pytest.approx(loss, rel=1e-5)


def test_export_writes_int8_rows_and_loads_as_float32(model: refbert.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "run")
    size = export.export(tmp_path / "run", tmp_path / "small-english")
    assert {path.name for path in (tmp_path / "small-english").iterdir()} >= {
        "model.safetensors",
        "config.json",
        "vocab.txt",
        "README.md",
    }
    assert size == sum(path.stat().st_size for path in (tmp_path / "small-english").iterdir())
    given = model.state_dict()
    stored = (tmp_path / "small-english/model.safetensors").stat().st_size
    # A byte for each entry, and for each row 4 more; the header has names.
    rows = sum(tensor.shape[0] if tensor.ndim == 2 else 3 * tensor.size / 4 for tensor in given.values())
    assert stored - sum(tensor.size for tensor in given.values()) - 4 * rows < 20_000
    for name, tensor in refbert.load(tmp_path / "small-english").state_dict().items():
        assert tensor.dtype == np.float32
        step = np.abs(given[name]).max(axis=-1, keepdims=True) / 127
        assert (np.abs(tensor - given[name]) <= 0.501 * step).all()
    assert json.loads((tmp_path / "small-english/config.json").read_text())["architectures"] == ["BertForPreTraining"]
    with pytest.raises(InputError, match="exists already"):
        export.export(tmp_path / "run", tmp_path / "small-english")


def test_what_is_too_large_leaves_nothing(model: refbert.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "run")
    with pytest.raises(InputError, match="more than the 1,000"):
        export.export(tmp_path / "run", tmp_path / "small-english", limit=1000)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
