"""Every head, loss and parameter gradient against Hugging Face transformers with the same random weights."""

from __future__ import annotations

import numpy as np
import pytest
from random_models import (
    HEADS,
    POOLERLESS,
    assert_gradients_agree,
    normwise,
    random_batch,
    random_labels,
    random_model,
    run,
)

from refbert.backend import registry
from refbert.model import Model

# float64: the project's promise is 1e-10 normwise. Rounding alone gives about 1e-15; 1e-10 leaves room for the worst
# conditioning seen in deep random models and is still 10⁶ times below any mistake in a formula.
LIMIT = 1e-10
BATCHES = {
    "ragged": (4, 17, "ragged"),
    "padded": (4, 30, "padded"),
    "length 1": (4, 1, "full"),
    "length 512": (2, 512, "full"),
    "a fully padded row": (4, 9, "dead"),
}


def ids(heads):
    return "+".join(heads)


def ours_from(config, weights, heads, backend, dtype="float64"):
    return Model(config, weights, backend=registry.create(backend, dtype=dtype), heads=heads)


@pytest.fixture(scope="module")
def models():
    return {heads: random_model(heads) for heads in HEADS}


@pytest.mark.parametrize("backend", ["reference", "torch", "numpy"])
@pytest.mark.parametrize("shape", BATCHES)
@pytest.mark.parametrize("heads", HEADS, ids=ids)
def test_loss_outputs_and_every_gradient(models, heads, shape, backend):
    theirs, config, weights = models[heads]
    B, S, kind = BATCHES[shape]
    batch = random_batch(B, S, kind=kind)
    labels = random_labels(heads, batch)
    model = ours_from(config, weights, heads, backend)

    their_loss, their_out, their_gradients = run(theirs, batch, labels, heads)
    out = model(batch, output_hidden_states=True, output_attentions=True)
    loss, gradients = model.loss_and_gradients(batch, labels)

    assert abs(loss - their_loss) <= LIMIT * abs(their_loss)
    for ours, hf in zip(out.hidden_states, their_out.hidden_states, strict=True):
        assert normwise(ours, hf.detach().numpy()) <= LIMIT
    for ours, hf in zip(out.attentions, their_out.attentions, strict=True):
        assert normwise(ours, hf.detach().numpy()) <= LIMIT
    assert normwise(out.last_hidden_state, their_out.hidden_states[-1].detach().numpy()) <= LIMIT
    check_logits(out, their_out, heads)

    assert set(gradients) == set(weights)
    assert_gradients_agree(gradients, their_gradients, LIMIT)


def check_logits(out, theirs, heads):
    if heads == ("masked_lm", "next_sentence"):
        pairs = [(out.prediction_logits, theirs.prediction_logits),
                 (out.seq_relationship_logits, theirs.seq_relationship_logits)]  # fmt: skip
    elif heads == ("question_answering",):
        pairs = [(out.start_logits, theirs.start_logits), (out.end_logits, theirs.end_logits)]
    elif heads == ("multiple_choice",):
        pairs = [(out.logits["multiple_choice"].reshape(theirs.logits.shape), theirs.logits)]
    else:
        pairs = [(out.logits[heads[0]], theirs.logits)]
    for ours, hf in pairs:
        assert ours.shape == tuple(hf.shape)
        assert normwise(ours, hf.detach().numpy()) <= LIMIT


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("act", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "tanh"])
def test_activations_mean_what_hugging_face_means(act, backend):
    heads = ("masked_lm", "next_sentence")
    theirs, config, weights = random_model(heads, hidden_act=act)
    batch = random_batch(3, 8)
    labels = random_labels(heads, batch)
    their_loss, _, their_gradients = run(theirs, batch, labels, heads)
    loss, gradients = ours_from(config, weights, heads, backend).loss_and_gradients(batch, labels)
    assert abs(loss - their_loss) <= LIMIT * their_loss
    assert_gradients_agree(gradients, their_gradients, LIMIT)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("num_labels", [1, 3])
def test_regression(num_labels, backend):
    heads = ("sequence_classification",)
    theirs, config, weights = random_model(heads, num_labels=num_labels)
    theirs.config.problem_type = "regression"
    config = config.replace(problem_type="regression")
    batch = random_batch(4, 11)
    targets = np.random.default_rng(3).standard_normal((4, num_labels) if num_labels > 1 else 4)
    their_loss, _, their_gradients = run(theirs, batch, {"labels": targets}, heads)
    loss, gradients = ours_from(config, weights, heads, backend).loss_and_gradients(batch, targets)
    assert abs(loss - their_loss) <= LIMIT * their_loss
    assert_gradients_agree(gradients, their_gradients, LIMIT)


@pytest.mark.parametrize("backend", ["reference", "torch", "numpy"])
@pytest.mark.parametrize("num_labels", [1, 5])
def test_several_labels_a_sequence(num_labels, backend):
    heads = ("sequence_classification",)
    theirs, config, weights = random_model(heads, num_labels=num_labels)
    theirs.config.problem_type = "multi_label_classification"
    config = config.replace(problem_type="multi_label_classification")
    batch = random_batch(4, 11)
    labels = np.random.default_rng(3).integers(0, 2, (4, num_labels))
    their_loss, _, their_gradients = run(theirs, batch, {"labels": labels.astype(np.float64)}, heads)
    loss, gradients = ours_from(config, weights, heads, backend).loss_and_gradients(batch, labels)
    assert abs(loss - their_loss) <= LIMIT * their_loss
    assert_gradients_agree(gradients, their_gradients, LIMIT)


def test_poolerless_models_say_so(models):
    for heads in POOLERLESS:
        _, config, weights = models[heads]
        out = ours_from(config, weights, heads, "reference")(random_batch(2, 5))
        assert out.pooler_output is None


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_no_labelled_position_gives_zero_not_nan(models, backend):
    # Hugging Face returns NaN here (0/0); refbert decides for 0, with zero gradients.
    heads = ("masked_lm",)
    _, config, weights = models[heads]
    batch = random_batch(2, 6)
    loss, gradients = ours_from(config, weights, heads, backend).loss_and_gradients(
        batch, np.full(batch.input_ids.shape, -100)
    )
    assert loss == 0
    assert all((g == 0).all() for g in gradients.values())
