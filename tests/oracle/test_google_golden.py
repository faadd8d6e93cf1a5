"""Against Google's own TensorFlow graph: a real TF1 checkpoint, and what the graph computed from it in float32.

The fixture (tests/data/google-golden) holds every layer, the pooled output, log-probabilities, losses, every gradient
of MLM + NSP, and twelve steps of AdamWeightDecayOptimizer. It is the strongest independent oracle there is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rounding import SLACK, distance, float32_errors

import refbert
from refbert.training import Optimizer, learning_rate

U = 2.0**-24  # unit roundoff of float32
GOLDEN = Path(__file__).parent.parent / "data" / "google-golden"
BACKENDS = [
    ("reference", "float64"),
    ("reference", "float32"),
    ("numpy", "float32"),
    ("torch", "float32"),
    ("torch", "float64"),
]


@pytest.fixture(scope="module")
def expected():
    with np.load(GOLDEN / "expected.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def batch(expected):
    return refbert.Batch(
        input_ids=expected["in/input_ids"],
        token_type_ids=expected["in/segment_ids"],
        attention_mask=expected["in/input_mask"],
    )


@pytest.fixture(scope="module")
def labels(expected):
    out = np.full(expected["in/input_ids"].shape, -100)
    for row, (positions, ids, weights) in enumerate(
        zip(
            expected["in/masked_lm_positions"],
            expected["in/masked_lm_ids"],
            expected["in/masked_lm_weights"],
            strict=True,
        )
    ):
        out[row, positions[weights > 0]] = ids[weights > 0]
    return {"labels": out, "next_sentence_label": expected["in/next_sentence_labels"][:, 0]}


@pytest.fixture(scope="module")
def rounding(batch, labels):
    """Float32's own error on this model (tests/oracle/rounding.py); Google's numbers and a backend's each carry one."""
    reference = refbert.load(GOLDEN, backend="reference")
    return float32_errors(reference, batch, labels)[1]


def google_name(name):
    """refbert's (Hugging Face's) parameter name as Google's variable, and whether its matrix is transposed there."""
    name = name.replace("cls.predictions.bias", "cls.predictions.output_bias")
    name = name.replace("cls.seq_relationship.weight", "cls.seq_relationship.output_weights")
    name = name.replace("cls.seq_relationship.bias", "cls.seq_relationship.output_bias")
    name = (
        name.replace("layer.", "layer_")
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta")
    )
    transposed = name.endswith(".weight") and "embeddings" not in name
    name = name.replace("_embeddings.weight", "_embeddings").replace(".weight", ".kernel")
    return name.replace(".", "/"), transposed


def as_google(expected, kind, name):
    variable, transposed = google_name(name)
    value = expected[f"{kind}/{variable}"]
    return value.T if transposed else value


@pytest.fixture(scope="module", params=BACKENDS, ids=lambda b: "-".join(b))
def model(request):
    backend, dtype = request.param
    return refbert.load(GOLDEN, backend=backend, dtype=dtype, profile="google")


def test_every_layer_and_the_pooled_output(model, batch, expected, rounding):
    out = model(batch, output_hidden_states=True)
    layers = [expected["out/embedding_output"], *(expected[f"out/layer_{i}"] for i in range(3))]
    for i, (ours, google) in enumerate(zip(out.hidden_states, layers, strict=True)):
        # One error of Google's rounding and one of the backend's.
        assert distance(ours, google) <= 2 * SLACK * rounding[f"hidden_states.{i}"], i
    last = 2 * SLACK * rounding["hidden_states.3"]
    assert distance(out.last_hidden_state, expected["out/sequence_output"]) <= last
    # tanh contracts; the pooler's product of H = 48 terms adds at most 48 roundings more.
    assert distance(out.pooler_output, expected["out/pooled_output"]) <= 4 * (last + 48 * U)


def test_log_probabilities(model, batch, expected, rounding):
    positions = expected["in/masked_lm_positions"]
    flat = (np.arange(len(positions))[:, None] * batch.input_ids.shape[1] + positions).reshape(-1)
    out = model(batch, masked_lm_positions=flat)
    last = 2 * SLACK * rounding["hidden_states.3"]
    for ours, google in (
        (out.prediction_logits, expected["out/mlm_log_probs"]),
        (out.seq_relationship_logits, expected["out/nsp_log_probs"]),
    ):
        z = ours.astype(np.float64)
        log_probabilities = z - np.logaddexp.reduce(z, axis=-1, keepdims=True)
        assert distance(log_probabilities, google) <= 4 * (last + 48 * U)


def test_the_loss_and_every_gradient(model, batch, labels, expected, rounding):
    loss, gradients = model.loss_and_gradients(batch, labels)
    assert abs(loss - expected["out/loss"]) <= (2 * SLACK * rounding["loss"] + 2 * U) * expected["out/loss"]
    named = {google_name(name)[0] for name in gradients}
    assert named == {key.removeprefix("grad/") for key in expected if key.startswith("grad/")}
    for name, gradient in gradients.items():
        google = as_google(expected, "grad", name)
        assert gradient.shape == google.shape, name
        if is_key_bias(name):
            # Zero in exact arithmetic: a sum over all positions of the terms that, weighted by the inputs, make up
            # the key matrix's gradient. Only their roundings are left.
            terms = np.linalg.norm(as_google(expected, "grad", name.replace("bias", "weight")))
            assert np.linalg.norm(gradient) <= batch.input_ids.size * U * terms
            continue
        assert distance(gradient, google) <= 2 * SLACK * rounding[name], name


def test_the_two_losses_one_by_one(model, batch, labels, expected, rounding):
    # The smaller loss carries, relatively, at most the total's error times how much smaller it is.
    total = float(expected["out/loss"])
    for name, key in (("labels", "out/mlm_loss"), ("next_sentence_label", "out/nsp_loss")):
        loss, _ = model.loss_and_gradients(batch, {name: labels[name]})
        assert abs(loss - expected[key]) <= (2 * SLACK * rounding["loss"] + 2 * U) * total, key


def test_twelve_steps_of_the_optimizer(model, batch, labels, expected, rounding):
    trained = refbert.load(GOLDEN, backend=model.backend, profile="google")
    optimizer = Optimizer(rule="bert_adam")
    schedule = {
        "peak": float(expected["train/lr"]),
        "warmup": int(expected["train/warmup"]),
        "total": int(expected["train/total"]),
        "from_zero": True,
    }
    steps = len(expected["train/losses"])
    before = trained.state_dict()
    # Adam's step does not change when a gradient is scaled, so a gradient's relative error is the step's; the errors
    # of `steps` updates add up. Beside them, each update rounds the weight that it stores.
    relative = {name: steps * 2 * SLACK * rounding[name] for name in before}
    for step, google in enumerate(expected["train/losses"]):
        loss, _ = trained.train_step(batch, labels, optimizer, lr=learning_rate(step, **schedule))
        assert abs(loss - google) <= max(relative.values()) * google, step
    for name, weight in trained.state_dict().items():
        if is_key_bias(name):
            continue  # Adam divides rounding noise by its own size here: there is nothing to agree on
        google = as_google(expected, "after", name)
        allowed = relative[name] * np.linalg.norm(google - before[name]) + 2 * steps * U * np.linalg.norm(google)
        assert np.linalg.norm(weight - google) <= allowed, name


def test_the_wrong_profile_is_noticed(batch, expected, rounding):
    # The same weights under Hugging Face's choices (erf GELU) are out of bounds: the comparison has teeth.
    other = refbert.load(GOLDEN, backend="reference", profile="hf")
    ours = other(batch, output_hidden_states=True).hidden_states[1]
    assert distance(ours, expected["out/layer_0"]) > 30 * 2 * SLACK * rounding["hidden_states.1"]


def is_key_bias(name):
    return name.endswith("attention.self.key.bias")
