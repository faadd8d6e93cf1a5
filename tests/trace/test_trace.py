"""What a pass is made of: names, and numbers that are the model's own and Hugging Face's."""

from __future__ import annotations

import re

import numpy as np
import pytest
from random_models import normwise, random_batch, random_labels, random_model, run
from small_checkpoint import write_small_checkpoint

import refbert
from refbert.backend.reference import ReferenceBackend
from refbert.errors import BackendError, InputError
from refbert.ops.cross_entropy import IGNORE
from refbert.spec.choices import Choices
from refbert_inspection.tracing import run_pass, trace
from refbert_inspection.tracing.trace import hidden_states

TEXT = "the cat [MASK] on a mat."
PRETRAINING = ("masked_lm", "next_sentence")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return refbert.load(write_small_checkpoint(tmp_path_factory.mktemp("small")), backend="reference")


def on_reference(heads, batch, *, labels=None, backward=False, dtype=None):
    """(Hugging Face's model, our pass with the same weights)."""
    theirs, config, weights = random_model(heads)
    backend = ReferenceBackend(dtype)
    p = {name: backend.asarray(x) for name, x in weights.items()}
    made = run_pass(
        backend, p, batch, Choices.of(config, refbert.config.profiles.HF), heads, labels=labels, backward=backward
    )
    return theirs, made


LAYER = [
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.self.probabilities",
    "attention.self.context", "attention.output.dense", "attention.output.add", "attention.output.LayerNorm",
    "intermediate.dense", "intermediate.gelu", "output.dense", "output.add", "output.LayerNorm",
]  # fmt: skip


def test_every_tensor_has_the_name_of_its_place(model):
    names = list(trace(model, TEXT).run.tensors())
    embeddings = ["word_embeddings", "token_type_embeddings", "position_embeddings", "add", "add#2", "LayerNorm"]
    assert names == [
        *(f"bert.embeddings.{name}" for name in embeddings),
        *(f"bert.encoder.layer.{i}.{name}" for i in (0, 1) for name in LAYER),
        "bert.pooler.gather", "bert.pooler.dense", "bert.pooler.tanh",
        "cls.predictions.transform.gather", "cls.predictions.transform.dense", "cls.predictions.transform.gelu",
        "cls.predictions.transform.LayerNorm", "cls.predictions.decoder", "cls.seq_relationship",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("heads", "names"),
    [
        (PRETRAINING, {"cls.predictions.loss", "cls.seq_relationship.loss", "loss", "cls.predictions.decoder"}),
        (("token_classification",), {"classifier", "classifier.loss"}),
        (("question_answering",), {"qa_outputs", "qa_outputs.transpose", "qa_outputs.gather", "qa_outputs.gather#2",
                                   "qa_outputs.loss", "qa_outputs.loss#2", "loss"}),
    ],
)  # fmt: skip
def test_heads_and_losses_have_names(heads, names):
    batch = random_batch(2, 7)
    labels = random_labels(heads, batch)
    _, made = on_reference(heads, batch, labels=labels, backward=True)
    found = set(made.tensors())
    assert names <= found, sorted(found)
    assert all(name and not re.search(r"[^\w.#]", name) for name in found)


def test_the_tensors_are_the_models_own(model):
    found = trace(model, TEXT)
    out = model(model.batch(TEXT), output_hidden_states=True, output_attentions=True)
    for ours, theirs in zip(found.hidden_states, out.hidden_states, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(found.attentions, out.attentions, strict=True):
        np.testing.assert_array_equal(ours, theirs[0])
    made = found.run.tensors()
    np.testing.assert_array_equal(made["bert.pooler.tanh"], out.pooler_output)
    np.testing.assert_array_equal(made["cls.predictions.decoder"], out.prediction_logits[0])
    np.testing.assert_array_equal(made["cls.seq_relationship"], out.seq_relationship_logits)


def test_hidden_states_attentions_and_gradients_are_hugging_faces():
    batch = random_batch(3, 9)
    labels = random_labels(PRETRAINING, batch)
    theirs, made = on_reference(PRETRAINING, batch, labels=labels, backward=True)
    loss, out, gradients = run(theirs, batch, labels, PRETRAINING)
    assert made.loss == pytest.approx(loss, rel=1e-12)
    for ours, x in zip(hidden_states(made), out.hidden_states, strict=True):
        assert normwise(ours, x.detach().numpy()) < 1e-12
    tensors = made.tensors()
    for i, x in enumerate(out.attentions):
        ours = tensors[f"bert.encoder.layer.{i}.attention.self.probabilities"]
        assert normwise(ours, x.detach().numpy()) < 1e-12
    assert set(made.gradients) == set(gradients)
    largest = max(np.linalg.norm(g) for g in gradients.values())
    for name, g in gradients.items():
        assert np.linalg.norm(made.gradients[name] - g) < 1e-10 * max(np.linalg.norm(g), 1e-3 * largest), name


def test_gradients_of_activations_are_autograds():
    """transformers' retained gradients at a module's output, against what arrived at our op's pullback."""
    batch = random_batch(2, 6)
    labels = random_labels(("masked_lm",), batch)
    theirs, made = on_reference(("masked_lm",), batch, labels=labels, backward=True)
    seen = {}
    for name, module in theirs.named_modules():
        if name.endswith(("query", "value", "dense", "LayerNorm")) and name.startswith("bert."):
            module.register_forward_hook(lambda _m, _i, y, name=name: (y.retain_grad(), seen.update({name: y}))[1])
    run(theirs, batch, labels, ("masked_lm",))
    ours = {call.name: call.gradient for call in made.backward}
    assert len(seen) > 15
    for name, y in seen.items():
        assert normwise(ours[name], y.grad.numpy()) < 1e-10, name


def test_without_a_loss_the_gradients_are_of_a_projection():
    batch = random_batch(2, 5, kind="full")
    _, made = on_reference(("token_classification",), batch, backward=True)
    last = next(call for call in made.backward if call.name == "bert.encoder.layer.2.output.LayerNorm")
    assert made.loss is None
    assert last.gradient.shape == (2, 5, 24)
    assert abs(last.gradient).max() > 1
    assert "bert.embeddings.word_embeddings.weight" in made.gradients


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_other_backends_are_traced_too(backend, tmp_path):
    made = trace(refbert.load(write_small_checkpoint(tmp_path), backend=backend), TEXT, backward=True).run
    reference = trace(refbert.load(tmp_path, backend="reference"), TEXT, backward=True).run
    assert list(made.arrays()) == list(reference.arrays())
    largest = max(abs(x).max() for x in reference.arrays().values())
    for name, x in made.arrays().items():
        # Some hundred float32 roundings of numbers of this size.
        np.testing.assert_allclose(x, reference.arrays()[name], atol=1000 * 2.0**-24 * largest, err_msg=name)


class TestLabels:
    def test_the_texts_masks_get_the_models_guesses_or_labels(self, model):
        found = trace(model, TEXT, backward=True)
        best = model(model.batch(TEXT)).prediction_logits[0, 3].argmax()
        assert found.targets == ((3, model.tokenizer.token(int(best))),)
        told = trace(model, TEXT, backward=True, labels=["sat"])
        assert told.targets == ((3, "sat"),)
        p = model(model.batch(TEXT)).prediction_logits[0, 3]
        sat = model.tokenizer.encode(["sat"], max_length=16)[0].input_ids[1]
        assert told.run.loss == pytest.approx(np.log(np.exp(p - p.max()).sum()) + p.max() - p[sat])

    def test_masked_positions_are_labelled_by_what_was_there(self, model):
        found = trace(model, "the cat sat on a mat.", backward=True, masked=[2, 6])
        assert found.targets == ((2, "cat"), (6, "mat"))
        assert [found.tokens[s] for s in (2, 6)] == ["[MASK]", "[MASK]"]
        labels = np.full((1, len(found.tokens)), IGNORE)
        labels[0, [2, 6]] = [7, 10]
        expected, _ = model.loss_and_gradients(model.batch("the [MASK] sat on a [MASK]."), {"labels": labels})
        assert found.run.loss == pytest.approx(expected)

    def test_without_a_mask_every_token_is_its_own(self, model):
        found = trace(model, "a dog", backward=True)
        assert found.targets == ((1, "a"), (2, "dog"))

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"masked": [99]}, "no token 99"),
            ({"masked": [0]}, "token 0 is [CLS]"),
            ({"masked": [3]}, "token 3 is a [MASK] already"),
            ({"labels": ["sat", "cat"]}, "2 labels for 1"),
            ({"labels": ["cats"]}, '"cats" is 2: cat ##s'),
        ],
    )
    def test_what_does_not_fit_is_refused(self, model, options, says):
        with pytest.raises(InputError, match=re.escape(says)):
            trace(model, TEXT, backward=True, **options)


class TestLens:
    def test_the_last_layer_says_what_the_model_predicts(self, model):
        found = trace(model, TEXT, top_k=3).lens
        z = model(model.batch(TEXT)).prediction_logits[0]
        p = np.exp(z - z.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        np.testing.assert_array_equal(found.ids[-1], np.argsort(-p, axis=-1)[:, :3])
        np.testing.assert_allclose(found.scores[-1], np.sort(p, axis=-1)[:, ::-1][:, :3])
        np.testing.assert_allclose(found.final[-1], p.max(axis=-1))

    def test_other_layers_are_the_head_on_their_hidden_states(self, model):
        found = trace(model, TEXT)
        config = model.config.replace(num_hidden_layers=1)
        cut = {n: x for n, x in model.state_dict().items() if "layer.1." not in n}
        shorter = refbert.Model(config, cut, backend=ReferenceBackend(), heads=model.heads)
        z = shorter(model.batch(TEXT)).prediction_logits[0]
        np.testing.assert_array_equal(found.lens.ids[1][:, 0], z.argmax(axis=-1))


def test_what_a_backend_raises_is_one_line_with_the_place(model):
    class Breaks(ReferenceBackend):
        def gelu(self, x, *, form):
            raise RuntimeError("launch\nfailed")

    broken = refbert.Model(model.config, model.state_dict(), backend=Breaks(), heads=model.heads)
    broken.tokenizer = model.tokenizer
    with pytest.raises(
        BackendError, match=r"gelu of bert\.encoder\.layer\.0\.intermediate\.dense raised RuntimeError: launch failed"
    ):
        trace(broken, TEXT)
