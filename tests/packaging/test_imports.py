"""`import refbert` is light, and nothing reaches for what only some users have."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "cupy",
    "array_api_compat",
    "scipy.special",
    "huggingface_hub",
    "tokenizers",
    "safetensors",
    "rich",
    "hypothesis",
    "jinja2",
)


MODEL = (
    "import refbert\n"
    "config = refbert.BertConfig(vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,"
    " intermediate_size=16, max_position_embeddings=8)\n"
    "model = refbert.from_config(config, backend='numpy')\n"
)


def loaded_after(statement):
    code = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "statement",
    ["import refbert", "import refbert.ops, refbert.spec.bert", "import refbert.cli", "import refbert.pages"],
)
def test_nothing_heavy_is_imported(statement):
    assert not loaded_after(statement).intersection(HEAVY)


def test_the_check_can_fail():
    assert "scipy.special" in loaded_after("import refbert, scipy.special").intersection(HEAVY)


def test_the_tuned_backend_needs_numpy_only():
    loaded = loaded_after(f"{MODEL}model(refbert.Batch(input_ids=[[1, 2, 3]]))")
    assert not loaded.intersection(("torch", "cupy", "scipy", "scipy.special", "huggingface_hub", "rich", "jinja2"))


SELDOM = {
    "jinja2",
    "_hashlib",
    "difflib",
    "zipfile",
    "concurrent.futures",
    "importlib.metadata",
}  # a tenth of a first embedding


def test_a_first_embedding_imports_nothing_that_others_need(tmp_path):
    loaded_after(f"{MODEL}model.save({str(tmp_path)!r})")
    loaded = loaded_after(f"import refbert\nrefbert.load({str(tmp_path)!r})(refbert.Batch(input_ids=[[1, 2, 3]]))")
    assert not loaded.intersection(SELDOM)


def test_dropout_imports_one_of_them():
    assert loaded_after("import refbert\nrefbert.Dropout(0).keep('here', (2, 3), 0.5)").intersection(SELDOM)
