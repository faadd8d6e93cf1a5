"""``refbert trace`` and ``refbert diff`` as their users call them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_checkpoint import write_small_checkpoint

TESTS = Path(__file__).parent.parent
TEXT = "the cat [MASK] on a mat."


def refbert_cli(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS / "conformance"), *sys.path])}
    environment.pop("REFBERT_MODEL", None)
    return subprocess.run(
        [sys.executable, "-m", "refbert", *map(str, arguments)], cwd=cwd, env=environment, capture_output=True,
        stdin=subprocess.DEVNULL, text=True, encoding="utf-8", check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_small_checkpoint(tmp_path_factory.mktemp("small"))


def test_trace_writes_a_page_a_table_and_the_arrays(small, tmp_path):
    done = refbert_cli(
        "trace", "--model", small, "--backward", "--html", "p.html", "--save", "a.npz", TEXT, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "bert.encoder.layer.1.attention.self.probabilities" in done.stdout
    assert "page: p.html" in done.stdout
    assert (tmp_path / "p.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    with np.load(tmp_path / "a.npz") as saved:
        assert saved["bert.encoder.layer.0.attention.self.query"].shape == (1, 9, 12)
        assert saved["gradient of bert.encoder.layer.0.output.LayerNorm"].shape == (1, 9, 12)
        assert saved["gradient of bert.embeddings.word_embeddings.weight"].shape == (14, 12)
        assert saved["input_tokens"].tolist()[3] == "[MASK]"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "p.html"]


def test_trace_json(small, tmp_path):
    done = refbert_cli("trace", "--model", small, "--backward", "--label", "sat", "--json", TEXT, cwd=tmp_path)
    found = json.loads(done.stdout)
    assert set(found) == {
        "text",
        "tokens",
        "loss",
        "loss_of",
        "labels",
        "masks",
        "tensors",
        "parameters",
        "html",
        "npz",
    }
    assert found["labels"] == [{"position": 3, "token": "sat"}]
    (mask,) = found["masks"]
    assert mask["position"] == 3
    assert [set(one) for one in mask["predictions"]] == [{"token", "token_id", "score"}] * 5
    assert set(found["tensors"][0]) == {"name", "shape", "rms", "min", "max", "not_finite", "gradient_rms"}
    assert set(found["parameters"][0]) == {"name", "shape", "gradient_norm"}
    assert (tmp_path / found["html"]).is_file()


def test_a_pair_has_two_segments(small, tmp_path):
    done = refbert_cli("trace", "--model", small, "--pair", "--json", "the cat", "a dog", cwd=tmp_path)
    assert json.loads(done.stdout)["text"] == ["the cat", "a dog"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trace"], "trace takes one text, got 0"),
        (["trace", "a", "b"], "see --pair for two"),
        (["trace", "--pair", "a"], "--pair takes two texts, got 1"),
        (["trace", "--model", "SMALL", "--label", "sat", TEXT], "add --backward"),
        (["trace", "--model", "SMALL", "--mask", "40", TEXT], "there is no token 40"),
        (["trace", "--model", "SMALL", "--html", "nowhere/p.html", TEXT], "does not exist"),
        (["trace", "--model", "SMALL", "--save", "nowhere/p.npz", TEXT], "does not exist"),
        (["trace", "--model", "SMALL", "--top-k", "15", TEXT], "top-k must be at most the vocabulary's 14"),
        (["trace", "--model", "SMALL", "a " * 40], "42 tokens, the limit is 16"),
        (["trace", "--model", "nowhere", TEXT], "nowhere"),
        (["diff", "--backend", "nunpy"], 'did you mean "numpy"?'),
        (["diff", "--dtype", "float8"], "does not offer dtype"),
        (["diff", "--against", "transformers"], "needs a checkpoint"),
        (["diff", "--backend", "transformers"], "transformers is for --against"),
        (["diff", "--against", "transformers", "--model", "SMALL", "--against-dtype", "float16"], "float32 or float64"),
        (["diff", "--html", "nowhere/d.html"], "does not exist"),
        (["diff", "--model", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line(arguments, message, small, tmp_path):
    done = refbert_cli(*(small if a == "SMALL" else a for a in arguments), cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert message in done.stderr.strip().splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_diff_without_a_model(tmp_path):
    done = refbert_cli("diff", "--backend", "numpy", "--backward", "--html", "d.html", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("within the bounds: ")
    assert "<svg" in (tmp_path / "d.html").read_text(encoding="utf-8")


def test_diff_finds_what_is_wrong_with_a_backend(tmp_path):
    done = refbert_cli("diff", "--backend", "subjects:EpsOutside", "--json", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {
        "verdict", "sides", "compared", "unlike", "different", "wrong", "first_tensor_beyond", "tensors", "html",
    }  # fmt: skip
    assert found["compared"] == len(found["tensors"])
    assert found["verdict"] == "beyond"
    assert found["wrong"][0][0]["op"] == "layer_norm"
    assert found["wrong"][0][0]["name"] == "bert.embeddings.LayerNorm"


def test_diff_against_transformers(small, tmp_path):
    done = refbert_cli("diff", "--against", "transformers", "--model", small, "--backward", TEXT, "a dog", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "transformers" in done.stdout
    # What is being done, and no word of transformers' own.
    assert all(line.startswith("refbert: ") and line.endswith(" …") for line in done.stderr.splitlines())


def test_diff_of_profiles(small, tmp_path):
    done = refbert_cli("diff", "--model", small, "--against-profile", "google", TEXT, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "asked for differently: activation: gelu_erf against gelu_tanh" in done.stdout
    assert "intermediate.gelu" in done.stdout
