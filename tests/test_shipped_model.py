"""The models in the package: there, small, offline, the same in transformers, and as good as their cards say."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import refbert
from refbert import models
from refbert.data import Phase, Pretraining, PretrainingSource, build_store
from refbert.tasks import fill_mask as tasks

ROOT = Path(__file__).parent.parent
SIZES = {"small-english": 12_000_000, "small-chinese": 8_000_000}  # bytes, at most
# Sentences of the held-out text (its sources and licences are in the model card), never seen in training.
HELD_OUT = Path(__file__).parent / "data" / "small-english" / "heldout.txt"


@pytest.fixture(scope="module")
def model():
    return refbert.load(models.DEFAULT)


def cli(*arguments, cwd):
    offline = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9", "REFBERT_MODEL": ""}
    return subprocess.run(
        [sys.executable, "-m", "refbert", *arguments],
        capture_output=True, text=True, encoding="utf-8", env={**os.environ, **offline}, cwd=cwd, check=False,
    )  # fmt: skip


def test_run_without_a_model(tmp_path):
    done = cli("run", "--json", "The president of the United [MASK].", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # One line: which model, and what it is good for.
    assert done.stderr.count("\n") == 1
    assert "small-english, which comes with refbert: for plain English" in done.stderr
    (line,) = done.stdout.splitlines()
    assert "states" in line


def test_a_folder_of_that_name_does_not_take_its_place(tmp_path):
    (tmp_path / models.DEFAULT).mkdir()
    done = cli("run", "--model", models.DEFAULT, "a [MASK].", cwd=tmp_path)
    assert done.returncode == 0
    assert f"say ./{models.DEFAULT} for the directory" in done.stderr
    done = cli("run", "--model", f"./{models.DEFAULT}", "a [MASK].", cwd=tmp_path)
    assert done.returncode == 2
    assert "config" in done.stderr


@pytest.mark.parametrize("name", SIZES)
def test_what_ships(name):
    model = refbert.load(name)
    assert sum(path.stat().st_size for path in models.shipped(name).iterdir()) <= SIZES[name]
    assert model.heads == ("masked_lm", "next_sentence")
    assert not model.report.initialized
    assert not model.report.unused
    assert all(np.isfinite(x).all() for x in model.state_dict().values())


def test_nothing_else_ships():
    here = Path(models.__file__).parent
    assert {path.parent.name for path in here.glob("*/config.json")} == set(SIZES)
    assert models.shipped("nothing") is None


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("small-english", [("A cat is a kind of [MASK].", "It is a [MASK] animal."), "He [MASK] it."]),
        ("small-chinese", [("猫是一种[MASK]物。", "A cat is an [MASK]."), "我喜欢吃[MASK]果。"]),
    ],
)
def test_transformers_computes_the_same(name, texts):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertForPreTraining.from_pretrained(models.shipped(name), dtype=torch.float32).eval()
    model = refbert.load(name)
    batch = model.batch(texts)
    with torch.no_grad():
        out = theirs(
            torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask),
            torch.from_numpy(batch.token_type_ids),
        )  # fmt: skip
    ours = model(batch).logits
    seen = batch.attention_mask.astype(bool)
    # float32, a few dozen roundings on the way to logits of size 10; 1e-4 is 100 units in their last place.
    assert np.abs(out.prediction_logits.numpy() - ours["masked_lm"])[seen].max() < 1e-4
    assert np.abs(out.seq_relationship_logits.numpy() - ours["next_sentence"]).max() < 1e-4


@pytest.mark.parametrize("name", SIZES)
def test_the_card_has_the_figures_that_were_measured(name):
    recipe = ROOT / "recipes" / name
    card = (models.shipped(name) / "README.md").read_text(encoding="utf-8")
    assert card == (recipe / "README.md").read_text(encoding="utf-8")
    said = json.loads((recipe / "everyday-scores.json").read_text(encoding="utf-8"))["said"]
    assert all(f"| {text} | {', '.join(answers)} |" in card for text, answers in said.items())
    scores = json.loads((recipe / "scores.json").read_text(encoding="utf-8"))["results"]
    for predictor in ("model", "trigram", "unigram"):
        figures = scores["all"][predictor]
        row = next(line for line in card.splitlines() if line.startswith(f"| all | {predictor} |"))
        assert f"{figures['masked_lm_accuracy']:.1%}" in row
        assert f"{figures['masked_lm_perplexity']:.1f}" in row


def test_it_is_as_good_as_the_card_says(model, tmp_path):
    """On a part of the held-out text, within four standard errors of the card's figures for all of it."""
    scores = json.loads((ROOT / "recipes" / "small-english" / "scores.json").read_text(encoding="utf-8"))
    card = scores["results"]["all"]["model"]
    settings = Pretraining(profile="dynamic")
    right, nats, pairs = [], [], []
    with build_store([str(HELD_OUT)], model.tokenizer, tmp_path / "store") as store:
        source = PretrainingSource(store, model.tokenizer, seed=1, phases=[Phase(1, 64, 32)], settings=settings)
        step = 0
        while source.state()["round"] < 1:
            batch, labels = source.next(step)
            step += 1
            chosen = np.flatnonzero(labels["labels"] != -100)
            target = labels["labels"].reshape(-1)[chosen]
            logits = model(batch, masked_lm_positions=chosen).logits
            row = logits["masked_lm"].astype(np.float64)
            row -= row.max(axis=1, keepdims=True)
            row -= np.log(np.exp(row).sum(axis=1, keepdims=True))
            right += list(row.argmax(axis=1) == target)
            nats += list(-row[np.arange(len(target)), target])
            pairs += list(logits["next_sentence"].argmax(axis=1) == labels["next_sentence_label"])
    assert len(right) > 500
    for measured, said in (
        (right, card["masked_lm_accuracy"]),
        (nats, math.log(card["masked_lm_perplexity"])),
    ):
        standard_error = np.std(measured) / math.sqrt(len(measured))
        assert abs(np.mean(measured) - said) < 4 * standard_error, (np.mean(measured), said, standard_error)
    # Random sentences come from the other sources too, as in training, which is easier than on the card; three in five
    # are random.
    assert np.mean(pairs) - 0.6 > 4 * np.std(pairs) / math.sqrt(len(pairs))


def test_the_readme_shows_what_it_says(model):
    """Every prediction that the README prints for it is among the first five."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- first-run -->\n```sh\n(.*?)```", text, re.DOTALL)
    (prompt,) = re.findall(r'refbert run "(.*?\[MASK\].*?)"', block)
    (said,) = re.findall(r"<!-- it says -->\n(.*)", text)
    words = re.findall(r"`(\w+)`", said)
    assert len(words) >= 3
    (filled,) = tasks.fill_mask(model, [prompt], top_k=5)
    assert [p.token for p in filled.masks[0].predictions][: len(words)] == words
