"""Layers and heads are numbered from 0, as in the parameters' names, wherever one is spoken of."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from small_checkpoint import write_small_checkpoint

import refbert
from refbert.backend import registry
from refbert.backend.reference import ReferenceBackend
from refbert.cli import main
from refbert_inspection.explain import terminal
from refbert_inspection.tracing import trace
from refbert_inspection.tracing.difference import compared, side_of
from refbert_inspection.tracing.difference_page import page as difference_page
from refbert_inspection.tracing.maps import habits
from refbert_inspection.tracing.names import NUMBERING, layer_of
from refbert_inspection.tracing.page import data, page
from refbert_inspection.tracing.setting import synthetic

ROOT = Path(__file__).parent.parent.parent
TEXT = "the cat [MASK] on a mat."
DOCUMENTS = ("docs/command-line.md", "docs/tour/08-encoder.md")


def words(text):
    return " ".join(text.replace("`", "").split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small_checkpoint(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def traced(folder):
    return trace(refbert.load(folder, backend="reference"), TEXT)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("bert.encoder.layer.0.attention.self.query", 0),
        ("bert.encoder.layer.11.output.LayerNorm", 11),
        ("bert.embeddings.LayerNorm", "embeddings"),
        ("bert.pooler.tanh", "heads"),
        ("cls.predictions.decoder", "heads"),
        ("loss", "heads"),
    ],
)
def test_a_tensors_layer_is_the_number_in_its_name(name, layer):
    assert layer_of(name) == layer


def test_the_page_has_the_numbers_of_the_names(traced):
    for tensor in data(traced)["tensors"]:
        inside = re.match(r"bert\.encoder\.layer\.(\d+)\.", tensor["name"])
        assert tensor["layer"] == (int(inside[1]) if inside else layer_of(tensor["name"]))
    assert NUMBERING in unescape(page(traced))


def test_the_terminal_counts_as_the_page_does(folder, traced, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["trace", "--model", str(folder), "--backend", "reference", TEXT])
    climb = next(line for line in capsys.readouterr().out.splitlines() if "layer by layer:" in line)
    said = dict(part.split(": ") for part in climb.split("layer by layer: ")[1].split(", "))
    assert list(said) == ["embeddings", "layer 0", "layer 1"]
    np.testing.assert_allclose([float(p.rstrip("%")) for p in said.values()], 100 * traced.lens.final[:, 3], rtol=5e-3)


def test_diffs_page_has_them_on_its_axis():
    setting = synthetic(backward=False)
    found = compared(side_of(registry.create("numpy"), setting), side_of(ReferenceBackend(), setting))
    ticks = re.findall(r'<text x="[\d.]+" y="\d+">(\w+)</text>', difference_page(found))
    assert ticks == ["embeddings", "0", "1", "2", "heads"]
    assert words(NUMBERING) in words(unescape(difference_page(found)))


def test_layer_0_makes_the_second_hidden_state(traced):
    """As the documentation says of transformers' outputs: ``hidden_states[i + 1]`` is what layer i makes."""
    made = traced.run.tensors()
    for i in range(traced.run.choices.layers):
        np.testing.assert_array_equal(traced.hidden_states[i + 1], made[f"bert.encoder.layer.{i}.output.LayerNorm"])


def test_it_is_said_where_readers_meet_layers():
    for document in DOCUMENTS:
        assert words(NUMBERING) in words((ROOT / document).read_text(encoding="utf-8")), document
    assert "第 0 层就是 encoder.layer.0" in words((ROOT / "docs/zh/tour/08-encoder.md").read_text(encoding="utf-8"))
    assert "i = 0 … L − 1" in terminal("encoder", width=100)


def test_what_the_shipped_models_card_says_of_its_heads():
    """Head 2 of layer 0 looks at the word before, head 8 of layer 1 at the word after."""
    card = words((ROOT / "recipes/small-english/README.md").read_text(encoding="utf-8"))
    assert "Head 2 of layer 0, its first, looks at the word before, and head 8 of layer 1 at the word after" in card
    found = trace(refbert.load("small-english"), "The captain stood on the deck of the [MASK].")
    assert habits(found.attentions[0], found.special)[2]["previous"] > 0.5
    assert habits(found.attentions[1], found.special)[8]["next"] > 0.5


def test_no_script_of_the_page_adds_one_to_a_number_that_is_shown():
    scripts = [*(ROOT / "inspection/refbert_inspection/tracing/templates").glob("*.js")]
    assert len(scripts) > 3
    for script in scripts:
        shown = re.findall(r"\$\{[a-z.]+ \+ 1\}", script.read_text(encoding="utf-8"))
        assert shown == [], (script.name, json.dumps(shown))
