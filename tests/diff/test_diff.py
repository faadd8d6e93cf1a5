"""``refbert diff``: correct sides agree, planted bugs are found where they were planted, differences are named."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from random_models import random_model
from small_checkpoint import write_small_checkpoint

import refbert
from refbert.backend import registry
from refbert.backend.reference import ReferenceBackend
from refbert_conformance.mutants import MUTANTS, Correct
from refbert_inspection import hugging_face
from refbert_inspection.tracing.difference import compared, side_of, verdict
from refbert_inspection.tracing.difference_page import page
from refbert_inspection.tracing.setting import of_model, synthetic
from refbert_inspection.tracing.transformers_side import side_of_transformers

SETTING = synthetic(backward=True)
PLACES = {
    # what was planted: (op, direction, where it shows first)
    "layer_norm: unbiased variance": ("layer_norm", "forward", "bert.embeddings.LayerNorm"),
    "gelu: erf by a polynomial good to 2.5e-5": ("gelu", "forward", "bert.encoder.layer.0.intermediate.gelu"),
    "linear: operands rounded to TF32": ("linear", "forward", "bert.encoder.layer.0.attention.self.query"),
    "attention: probabilities transposed": ("attention", "forward", "bert.encoder.layer.0.attention.self.context"),
    "attention_probabilities: scaled by √H": (
        "attention_probabilities", "forward", "bert.encoder.layer.0.attention.self.probabilities",
    ),
    "embedding: repeated ids overwrite each other": ("embedding", "backward", "bert.embeddings.word_embeddings"),
    "layer_norm: without the mean term": ("layer_norm", "backward", "cls.predictions.transform.LayerNorm"),
    "tanh: slope 1 − y": ("tanh", "backward", "bert.pooler.tanh"),
    "attention: dv from the transposed probabilities": (
        "attention", "backward", "bert.encoder.layer.2.attention.self.context",
    ),
    "cross_entropy: label smoothing of 1e-4": ("cross_entropy", "forward", "cls.predictions.loss"),
    # Memory: what is used again, what is written into
    "gelu: the output buffer is used again by the next call of that shape": (
        "gelu", "backward", "bert.encoder.layer.1.intermediate.gelu",
    ),
    "add: accumulates into its first argument": ("add", "forward", "bert.embeddings.add"),
    "tanh: the pullback writes into the cotangent": ("tanh", "backward", "bert.pooler.tanh"),
    # Fused blocks, which are judged as a whole
    "encoder_layer: query and key exchanged": ("encoder_layer", "forward", "bert.encoder.layer.0"),
    "encoder_layer: the mask ignored": ("encoder_layer", "forward", "bert.encoder.layer.0"),
    "objective: embeddings without LayerNorm's bias gradient": (
        "objective", "backward", "bert.embeddings.LayerNorm.bias",
    ),
    "objective: the tied gradient of the lookup only": (
        "objective", "backward", "bert.embeddings.word_embeddings.weight",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def reference():
    return side_of(ReferenceBackend(), SETTING)


@pytest.mark.parametrize("planted", PLACES)
def test_a_planted_bug_is_found_where_it_was_planted(planted, reference):
    mutant = next(m for m in MUTANTS if m.name == planted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = compared(side_of(mutant.make(), SETTING, label="planted"), reference)
    assert not found.within
    first = found.wrong[0][0]
    assert (first.op, first.direction, first.name) == PLACES[planted]
    assert first.rho > 1
    assert not found.wrong[1]
    assert f"planted: first wrong operation: {first.op} ({first.direction}) at {first.name}" in verdict(found)[1]
    assert verdict(found)[0].startswith(f"beyond the bounds: {len(found.rows)} tensors compared, ")


@pytest.mark.parametrize("make", [Correct, lambda: registry.create("numpy"), lambda: registry.create("torch")],
                         ids=["correct", "numpy", "torch"])  # fmt: skip
def test_a_correct_backend_is_within_the_bounds(make, reference):
    found = compared(side_of(make(), SETTING), reference)
    assert found.within, verdict(found)
    assert len(found.rows) > 150
    assert any(row.direction == "backward" for row in found.rows)
    assert all(row.own[0] is not None for row in found.rows if row.direction == "forward")
    assert max(row.own[0] or 0 for row in found.rows) > 0.05, "no op was really compared"


def test_two_backends_and_the_one_that_is_wrong(reference):
    """Neither side is the reference: refbert.ops still says whose op it is."""
    mutant = next(m for m in MUTANTS if m.name == "linear: db averaged over the rows")
    found = compared(side_of(registry.create("torch"), SETTING), side_of(mutant.make(), SETTING))
    assert not found.wrong[0]
    assert found.wrong[1][0].op == "linear"
    assert found.parted is not None
    assert found.parted.name.startswith("gradient of ")
    assert found.parted.name.endswith(".bias")


def test_profiles_part_at_the_gelu_though_every_op_is_right(reference):
    found = compared(side_of(registry.create("numpy"), SETTING.under("google")), reference)
    assert not any(found.wrong)
    assert found.parted.name == "bert.encoder.layer.0.intermediate.gelu"
    assert "activation: gelu_tanh against gelu_erf" in found.different
    assert verdict(found)[-1].endswith("the sides do not compute the same thing, and are asked for different things")


def test_a_tensor_of_another_shape_is_not_left_out_in_silence(reference):
    other = side_of(ReferenceBackend(), SETTING)
    arrays = dict(other.arrays) | {"bert.pooler.tanh": other.arrays["bert.pooler.tanh"][:, :-1]}
    found = compared(replace(other, arrays=arrays), reference)
    assert found.unlike == ("bert.pooler.tanh",)
    assert not found.within
    assert "not compared, since its shape differs: bert.pooler.tanh" in verdict(found)


def test_nothing_compared_is_not_within(reference):
    found = compared(replace(reference, arrays={}), reference)
    assert not found.rows
    assert not found.within
    assert verdict(found)[0].startswith("beyond the bounds: 0 tensors compared")


def test_it_tells_what_it_does(reference):
    said = []
    one = side_of(registry.create("numpy"), SETTING)
    compared(one, reference, lambda *what: said.append(what))
    whats = list(dict.fromkeys(what for what, _ in said))
    parts = ("what rounding may do", "ops by themselves", "fused blocks")
    assert whats == [f"numpy (float32): {what}" for what in parts]
    n = len(one.run.calls)
    assert [far for what, far in said if "ops" in what] == [f"{k} of {n}" for k in range(n)]


def test_the_error_grows_and_is_the_distance(reference):
    backend = registry.create("numpy")
    one = side_of(backend, SETTING)
    found = compared(one, reference)
    for row in found.rows[::17]:
        x, y = one.arrays[row.name].astype(float), reference.arrays[row.name]
        assert row.distance == pytest.approx(np.linalg.norm(x - y) / (np.linalg.norm(y) or 1))
    first, last = (next(r for r in found.rows if r.name == name) for name in
                   ("bert.embeddings.add", "bert.encoder.layer.2.output.LayerNorm"))  # fmt: skip
    assert 0 < first.distance < last.distance < last.allowed


def test_dtypes(reference):
    coarse = SETTING.in_dtype("bfloat16", "float64")
    found = compared(side_of(registry.create("torch", dtype="bfloat16"), coarse), side_of(ReferenceBackend(), coarse))
    assert found.within, verdict(found)
    assert max(row.distance for row in found.rows if row.direction == "forward") > 1e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small_checkpoint(tmp_path_factory.mktemp("small"))


class TestTransformers:
    def setting(self, folder, backward=True):
        model = refbert.load(folder, backend="reference", dtype="float32")
        return of_model(model, model.batch(["the cat [MASK] on a mat.", "a dog"]), backward=backward)

    @pytest.mark.parametrize("backward", [False, True])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_every_counterpart_agrees(self, folder, backward, dtype):
        setting = self.setting(folder, backward)
        theirs = hugging_face.load(folder, setting.heads, pooler=True, dtype=dtype)
        one = side_of(ReferenceBackend(dtype), setting)
        found = compared(one, side_of_transformers(theirs, setting, dtype=dtype))
        assert found.within, verdict(found)
        assert not found.unlike
        names = {row.name for row in found.rows}
        inside = ("attention.self.probabilities", "attention.self.context", "intermediate.gelu", "output.LayerNorm")
        assert {f"bert.encoder.layer.{i}.{name}" for i in (0, 1) for name in inside} <= names
        assert {
            "bert.embeddings.position_embeddings",
            "bert.embeddings.LayerNorm",
            "bert.pooler.tanh",
            "cls.predictions.decoder",
        } <= names
        if backward:
            assert {f"gradient of {name}" for name in one.run.gradients} <= names
            assert "gradient of bert.encoder.layer.0.intermediate.gelu" in names

    def test_other_weights_are_found_where_they_are_used(self, folder):
        import torch

        setting = self.setting(folder)
        theirs = hugging_face.load(folder, setting.heads, pooler=True)
        with torch.no_grad():
            theirs.bert.encoder.layer[1].intermediate.dense.bias[3] += 0.01
        found = compared(side_of(registry.create("numpy"), setting), side_of_transformers(theirs, setting))
        assert found.parted.name == "bert.encoder.layer.1.intermediate.dense"
        assert not any(found.wrong)

    def test_heads_are_those_of_the_class(self, tmp_path):
        _, config, weights = random_model(("question_answering",))
        model = refbert.Model(config, weights, backend=ReferenceBackend(), heads=("question_answering",))
        model.save(tmp_path)
        batch = refbert.Batch([[1, 2, 3, 4], [5, 6, 7, 8]])
        setting = of_model(model, batch, backward=True)
        theirs = hugging_face.load(tmp_path, setting.heads, pooler=False, dtype="float64")
        found = compared(side_of(ReferenceBackend(), setting), side_of_transformers(theirs, setting, dtype="float64"))
        assert found.within, verdict(found)
        assert "qa_outputs" in {row.name for row in found.rows}


def test_the_page_shows_both_ways_and_refers_to_nothing_outside(reference):
    mutant = next(m for m in MUTANTS if m.name == "layer_norm: unbiased variance")
    found = compared(side_of(mutant.make(), SETTING, label="<planted>"), reference)
    text = page(found)
    assert 'id="forward"' in text
    assert 'id="backward"' in text
    assert text.count("<svg") == 2
    assert 'class="beyond"' in text
    assert "first wrong operation: layer_norm (forward) at bert.embeddings.LayerNorm" in text
    assert "<planted>" not in text
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")
    for row in found.rows:
        assert row.name in text
