"""`refbert run --task embed` and `refbert info` of a sentence-transformers directory."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from test_run import MINILM, fails, refbert_cli

import refbert

LONG = "a cat sat on a mat " * 99


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    root = tmp_path_factory.mktemp("sentences") / "model"
    shutil.copytree(MINILM, root)
    (root / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    (root / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return root


def vectors(done):
    assert done.returncode == 0, done.stderr
    return np.array([json.loads(line)["embedding"] for line in done.stdout.splitlines()])


def test_the_directory_is_followed_and_options_win(directory, tmp_path):
    model = refbert.load(directory)
    saved = tmp_path / "arrays.npz"
    done = refbert_cli("run", "--model", directory, "--json", "--save", saved, "a cat", LONG)
    assert "cut to 256 tokens" in done.stderr
    with pytest.warns(refbert.RefbertWarning):
        expected = model.encode(["a cat", LONG])
    # Both are float32; the shortest decimal that is the number again is printed.
    assert np.abs(vectors(done) - expected).max() <= 2.0**-24
    assert np.load(saved)["input_ids"].shape == (2, 256)
    assert json.loads(done.stdout.splitlines()[0])["tokens"][1:3] == ["query", ":"]
    given = ("--pooling", "max", "--no-normalize", "--prompt", "")
    done = refbert_cli("run", "--model", directory, "--json", *given, "a cat")
    expected = model.encode("a cat", pooling="max", normalize=False, prompt="")
    assert np.abs(vectors(done) - expected).max() <= 2.0**-20


def test_info_says_what_is_followed(directory):
    found = json.loads(refbert_cli("info", "--json", directory).stdout)["vectors"]
    assert (found["pooling"], found["modules"], found["size"], found["longest"], found["prompt"]) == (
        ["cls"], ["Normalize"], 384, 256, "query: ",
    )  # fmt: skip
    shown = " ".join(refbert_cli("info", directory).stdout.split())
    assert "cls → Normalize → [384]" in shown
    assert "256 tokens, longer ones are cut" in shown


def test_what_is_not_computed_is_refused_by_name(directory, tmp_path):
    shutil.copytree(directory, tmp_path / "model")
    file = tmp_path / "model" / "modules.json"
    file.write_text(file.read_text().replace("models.Normalize", "models.LSTM"))
    fails(refbert_cli("run", "--model", tmp_path / "model", "a cat"), '"LSTM"')
    assert "LSTM" in json.loads(refbert_cli("info", "--json", tmp_path / "model").stdout)["vectors"]["refused"]
