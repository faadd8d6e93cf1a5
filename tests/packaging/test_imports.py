"""`import refbert` is light, and nothing reaches for what only some users have."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "cupy", "scipy.special", "huggingface_hub", "tokenizers", "safetensors", "rich", "hypothesis")


def loaded_after(statement):
    code = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("statement", ["import refbert", "import refbert.ops, refbert.spec.bert", "import refbert.cli"])
def test_nothing_heavy_is_imported(statement):
    assert not loaded_after(statement).intersection(HEAVY)


def test_the_check_can_fail():
    assert "scipy.special" in loaded_after("import refbert, scipy.special").intersection(HEAVY)


def test_the_tuned_backend_needs_numpy_only():
    loaded = loaded_after(
        "import refbert\n"
        "config = refbert.BertConfig(vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,"
        " intermediate_size=16, max_position_embeddings=8)\n"
        "model = refbert.from_config(config, backend='numpy')\n"
        "model(refbert.Batch(input_ids=[[1, 2, 3]]))"
    )
    assert not loaded.intersection(("torch", "cupy", "scipy", "scipy.special", "huggingface_hub", "rich"))
