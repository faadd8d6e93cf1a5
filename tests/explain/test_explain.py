"""What `refbert explain` says of every op and block: complete, from the docstrings, and right in its numbers."""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import refbert
from refbert import ops, spec
from refbert.errors import InputError
from refbert_inspection import explain
from refbert_inspection.explain.appearances import appearances
from refbert_inspection.explain.catalogue import READING_ORDER, Entry
from refbert_inspection.explain.documents import read
from refbert_inspection.explain.examples import examples, worked
from refbert_inspection.explain.layout import columns
from refbert_inspection.explain.sources import code, functions
from refbert_inspection.explain.terminal import calls, listing, made_of, page
from refbert_inspection.explain.worked_examples import work

ROOT = Path(refbert.__file__).parent.parent
NAMES = [e.name for e in explain.entries()]
WITHOUT_GRADIENT = {"mask_tokens", "adamw", "bert_adam", "clip_by_global_norm", "lamb"}
# The numbers of these are zero by the mathematics, not by accident: softmax sees no shift of a row, and nothing flows
# where one key has all the probability.
ZERO = {"key.bias"}


@functools.cache
def numbers(name):
    return tuple(worked(explain.find(name)))


@functools.cache
def terminal(name, width):
    return page(explain.find(name), numbers(name), width)


# What there is


def test_every_op_is_listed():
    assert set(ops.__all__) - {"IGNORE"} == {e.name for e in explain.entries() if e.kind == "op"}


def test_every_block_is_listed():
    """All that takes ops, but for what is looked at only, or shared by blocks."""
    found = set()
    for module in pkgutil.iter_modules(spec.__path__):
        for name, value in vars(importlib.import_module(f"refbert.spec.{module.name}")).items():
            if inspect.isfunction(value) and not name.startswith("_") and value.__module__.endswith(f".{module.name}"):
                first = next(iter(inspect.signature(value).parameters), "")
                if first == "ops" and module.name in READING_ORDER:
                    found.add(name)
    assert found - {"attention_map"} == {e.name for e in explain.entries() if e.kind == "block"}
    assert {"embeddings", "attention", "feed_forward", "encoder", "pooler", "heads", "losses"} <= set(READING_ORDER)


def test_the_listing_has_a_line_for_each():
    assert [line.split()[0] for line in listing().splitlines()] == NAMES
    assert all(columns(line) <= 80 for line in listing(80).splitlines())
    assert listing(60).split() == listing().split()  # nothing is cut


@pytest.mark.parametrize("written", ["layer_norm", "layer-norm", "Layer Norm", "LayerNorm"])
def test_found_however_it_is_written(written):
    assert explain.find(written).name == "layer_norm"


@pytest.mark.parametrize(
    ("wrong", "near"), [("layernrm", "layer_norm"), ("entropy", "cross_entropy"), ("qqq", "lists")]
)
def test_near_names(wrong, near):
    with pytest.raises(InputError, match=near):
        explain.find(wrong)


# What a page has


@pytest.mark.parametrize("name", NAMES)
def test_sections(name):
    kinds = {s.kind for s in explain.find(name).sections}
    expected = {"source", "shapes", "equation", "gradient"}
    if name in WITHOUT_GRADIENT:
        expected -= {"gradient"}
    assert kinds - {"note"} >= expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [80, 100, 160])
def test_pages_keep_their_width_and_lose_nothing(name, width):
    text = terminal(name, width)
    assert [line for line in text.splitlines() if columns(line) > width] == []

    def squeezed(x):
        return re.sub(r"\s", "", x)

    for section in explain.find(name).sections:
        assert squeezed(section.text) in squeezed(text)


@pytest.mark.parametrize("name", NAMES)
def test_the_code_is_the_files_own(name):
    entry = explain.find(name)
    lines = [line.strip() for line in (ROOT / entry.file).read_text(encoding="utf-8").splitlines()]
    parts = code(entry)
    for part in parts:
        for line in [*part.forward.split("\n"), *part.pullback.split("\n")]:
            assert line.strip() in lines
    # And all of it: what is not shown is the docstring.
    shown = sum(len([x for x in (p.forward + "\n" + p.pullback).split("\n") if x.strip()]) for p in parts)
    whole = 0
    for function in functions(entry):
        source = inspect.getsource(function)
        document = re.search(r'"""(.*?)"""\n', source, re.DOTALL) if function.__doc__ else None
        whole += len([x for x in source.replace(document[0] if document else "", "").split("\n") if x.strip()])
    assert shown == whole


def test_side_by_side_where_there_is_room():
    assert " │ def pullback(dy" in terminal("layer_norm", 160)
    assert "│" not in terminal("layer_norm", 80)
    assert " │ def pullback(dy" in terminal("relu", 100)


# Docstrings taken apart


def test_a_docstring_with_headings():
    document = read(
        """Summary in
        two lines.

        Source   A paper
                 and its second line.
        Shapes   x [...]

        Equation (per row)
            y = x

            A word.

        Gradient
            dx = dy

        A note at the margin.

        Where the papers are silent
            Nothing.
        """
    )
    assert document.summary == "Summary in two lines."
    assert [(s.kind, s.title, s.text) for s in document.sections] == [
        ("source", "Source", "A paper\nand its second line."),
        ("shapes", "Shapes", "x [...]"),
        ("equation", "Equation (per row)", "y = x\n\nA word."),
        ("gradient", "Gradient", "dx = dy"),
        ("note", "", "A note at the margin."),
        ("note", "Where the papers are silent", "Nothing."),
    ]


def test_a_docstring_without_headings():
    document = read("S.\n\nShapes   x\n\n    y = 2x\n\n    Backward: twice,\n    once more.\n\n        dx = 2 dy\n")
    assert [(s.kind, s.title, s.text) for s in document.sections] == [
        ("shapes", "Shapes", "x"),
        ("equation", "Equation", "y = 2x"),
        ("gradient", "Backward", "twice,\nonce more.\n\n    dx = 2 dy"),
    ]


def test_no_docstring():
    assert read(None) == read("") == read("  \n")


# Where in BERT


def paths(name):
    return {one.path[-1]: one for one in appearances(explain.find(name))}


def test_appearances_are_the_papers():
    linear = paths("linear")
    assert {k: (v.forward, v.backward) for k, v in linear.items()} == {
        "self_attention": (4, 0), "feed_forward": (2, 0), "pooler": (1, 0), "masked_lm": (2, 0),
        "next_sentence": (1, 0), "classifier": (1, 0), "question_answering": (1, 0),
            "multi_label_loss": (1, 0),
    }  # fmt: skip
    assert set(paths("layer_norm")) == {"embeddings", "self_attention", "feed_forward", "masked_lm"}
    assert (paths("add")["self_attention"].forward, paths("add")["self_attention"].backward) == (1, 3)
    assert (paths("add")["embeddings"].forward, paths("embedding")["embeddings"].forward) == (2, 3)
    assert set(paths("dropout")) == {"embeddings", "attention", "self_attention", "feed_forward", "classifier"}
    assert set(paths("softmax")) == {"attention_probabilities"}
    assert paths("attention")["self_attention"].path == (
        "objective", "bert", "encoder", "encoder_layer", "self_attention",
    )  # fmt: skip
    assert paths("encoder_layer")["encoder"].forward == 2
    assert set(paths("tanh")) == {"pooler"}


def test_only_with_another_activation():
    assert {one.only for one in paths("relu").values()} == {"relu"}
    assert calls(paths("relu")["feed_forward"]) == '1 forward, with hidden_act "relu"'
    assert {one.only for one in paths("gelu").values()} == {""}


def test_updates_and_data_are_called_from_outside():
    assert "refbert.training.optimizer.Optimizer.update" in paths("adamw")
    assert "refbert.data.masking.mask_batch" in paths("mask_tokens")


def test_what_nothing_calls():
    """Clipping is called in its parts: the norm, and what gradients are multiplied by."""
    assert [name for name in NAMES if not appearances(explain.find(name))] == ["clip_by_global_norm", "objective"]


def test_made_of():
    assert dict(made_of(explain.find("feed_forward"))) == {
        "add": "1 forward, 1 backward", "dropout": "1 forward", "gelu": "1 forward", "layer_norm": "1 forward",
        "linear": "2 forward", "relu": '1 forward, with hidden_act "relu"',
    }  # fmt: skip


# Examples


@pytest.mark.parametrize("name", NAMES)
def test_the_example_holds(name):
    assert examples(name), (
        "no example: write one in inspection/refbert_inspection/explain/examples.py or block_examples.py"
    )
    for one in numbers(name):
        assert one.outputs
        assert bool(one.gradients) == (name not in WITHOUT_GRADIENT)
        for g in one.gradients:
            assert g.holds, (g.name, g.apart, g.allowed)
            # A check can see nothing in a gradient that is 0; this one is told from one that is a hundredth off.
            if not any(g.name.endswith(end) for end in ZERO) and name != "attention_probabilities":
                assert np.abs(g.value).max() > 100 * g.allowed, g.name


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_not_so_even_that_wrong_looks_right(name):
    for one in examples(name):
        for cotangent in one.cotangents:
            assert cotangent.size == 1 or len(set(cotangent.reshape(-1).tolist())) > 1
        p = one.arguments.get("p", {})
        gains = [one.arguments.get("gamma")] + (
            [v for k, v in p.items() if k.endswith("LayerNorm.weight")] if isinstance(p, dict) else []
        )
        assert all(g is None or not np.all(g == 1) for g in gains)


def test_a_wrong_gradient_is_seen():
    def tanh(x):
        y = np.tanh(x)

        def pullback(dy):
            return (dy * (1 - y) * (1 + y) * (1 + 1e-5),)

        return y, pullback

    (example,) = examples("tanh")
    found = work(Entry("tanh", "op", tanh), example)
    assert not found.holds
    assert "DO NOT AGREE" in page(explain.find("tanh"), [found], 100)


def test_layer_norm_by_hand():
    (one,) = numbers("layer_norm")
    r = 1 / math.sqrt(14 / 3)
    assert list(one.on_the_way) == ["mu", "d", "variance", "r", "xhat"]
    assert one.on_the_way["mu"].item() == 3
    assert one.on_the_way["variance"].item() == pytest.approx(14 / 3)
    assert one.outputs["y"][0] == pytest.approx([2 * -2 * r + 0.1, 0.5 * -r, -3 * r + 0.3])
    assert [g.name for g in one.gradients] == ["x", "gamma", "beta"]
    q, xhat = np.array([2, -1, -0.5]), np.array([-2, -1, 3]) * r
    assert one.gradients[0].value[0] == pytest.approx(r * (q - q.mean() - xhat * (q * xhat).mean()))


def test_numbers_to_check_by_hand():
    assert numbers("softmax")[0].outputs["p"][0] == pytest.approx([1 / 8, 2 / 8, 5 / 8])
    assert numbers("cross_entropy")[0].outputs["loss"] == pytest.approx((math.log(4) + math.log(1.5)) / 2)
    assert numbers("tanh")[0].outputs["y"][1] == pytest.approx(0.5)
    assert numbers("linear")[0].outputs["y"][0, 0] == pytest.approx(3.6)
    assert numbers("mean_squared_error")[0].outputs["loss"] == pytest.approx(0.625)
    assert numbers("clip_by_global_norm")[0].outputs["norm"] == 13
    assert np.linalg.norm(numbers("lamb")[0].outputs["new p"] - [3, -4]) == pytest.approx(0.5)
    assert numbers("mask_tokens")[0].outputs["input_ids"].tolist() == [1, 3, 4, 9, 6, 2]
    assert numbers("mask_tokens")[0].outputs["labels"].tolist() == [-100, 7, 8, 9, -100, -100]
    assert numbers("span_loss")[0].outputs["loss"] == pytest.approx(0.5 * (math.log(4) + math.log(1.25)))
    assert numbers("mean_loss")[0].outputs["loss"] == pytest.approx(-math.log(0.75))
    assert numbers("choice_loss")[0].outputs["loss"] == pytest.approx(-math.log(5 / 8))
    assert numbers("masked_lm_loss")[0].outputs["loss"] == pytest.approx(math.log(8) / (2 + 1e-5))


def test_an_observer_of_ones_own_stays():
    """Debuggers and coverage use the same hook."""
    import sys

    def mine(*_):
        return None

    sys.setprofile(mine)
    try:
        list(worked(explain.find("tanh")))
        assert sys.getprofile() is mine
    finally:
        sys.setprofile(None)
