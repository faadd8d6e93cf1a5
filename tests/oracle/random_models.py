"""Random BERTs for every head beside Hugging Face's, in float64 with eager attention.

Weights are drawn with LayerNorm gains away from 1 and biases away from 0, and sizes are all different, so that no
mistake hides behind a symmetric case.
"""

from __future__ import annotations

import numpy as np

import refbert
from refbert.backend.reference import ReferenceBackend
from refbert.config.parameters import shapes
from refbert_inspection import hugging_face

SIZES = {
    "vocab_size": 101,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 56,
    "max_position_embeddings": 512,
    "type_vocab_size": 3,
}

HEADS = [
    ("masked_lm", "next_sentence"),
    ("masked_lm",),
    ("next_sentence",),
    ("sequence_classification",),
    ("token_classification",),
    ("question_answering",),
    ("multiple_choice",),
]
POOLERLESS = {("masked_lm",), ("token_classification",), ("question_answering",)}


def random_model(heads, *, seed=0, num_labels=5, **changes):
    """(Hugging Face's model in float64, refbert's config, the weights as NumPy arrays by refbert's names)."""
    if heads == ("question_answering",):
        num_labels = 2  # start and end
    config = refbert.BertConfig(
        **SIZES | changes, num_labels=num_labels, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes(config, heads, pooler=heads not in POOLERLESS).items():
        scale, centre = (0.3, 1.0) if "LayerNorm.weight" in name else (0.25, 0.0)
        weights[name] = centre + scale * rng.standard_normal(shape)
    theirs = hugging_face.twin(refbert.Model(config, weights, backend=ReferenceBackend(), heads=heads))
    assert {name for name, _ in theirs.named_parameters()} == set(weights)
    return theirs, config, weights


def random_batch(B, S, *, seed=0, kind="ragged"):
    """A batch of the named kind: "full", "ragged", "padded" (much padding), "dead" (one row without a visible key)."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, SIZES["vocab_size"], (B, S))
    lengths = {
        "full": np.full(B, S),
        "ragged": rng.integers(1, S + 1, B),
        "padded": np.full(B, max(1, S // 3)),
        "dead": np.where(np.arange(B) == B - 1, 0, rng.integers(1, S + 1, B)),
    }[kind]
    mask = (np.arange(S) < lengths[:, None]).astype(np.int64)
    first = np.maximum(lengths // 2, 1)
    segments = ((np.arange(S) >= first[:, None]) * (1 + (np.arange(S) % 7 == 0))).astype(np.int64)
    return refbert.Batch(input_ids=ids, token_type_ids=segments, attention_mask=mask)


def random_labels(heads, batch, *, seed=1, num_labels=5, choices=2):
    """Labels by Hugging Face's names, about a third of the positions labelled."""
    rng = np.random.default_rng(seed)
    B, S = batch.input_ids.shape
    if heads[0] in ("masked_lm", "token_classification"):
        K = SIZES["vocab_size"] if heads[0] == "masked_lm" else num_labels
        labels = rng.integers(0, K, (B, S))
        labels[rng.random((B, S)) < 0.6] = -100
        labels[0, 0] = 1  # at least one
        out = {"labels": labels}
        if "next_sentence" in heads:
            out["next_sentence_label"] = rng.integers(0, 2, B)
        return out
    if heads == ("next_sentence",):
        return {"next_sentence_label": rng.integers(0, 2, B)}
    if heads == ("question_answering",):
        starts, ends = rng.integers(0, S, B), rng.integers(0, S, B)
        starts[-1] = S + 3  # an answer outside the window does not count
        return {"start_positions": starts, "end_positions": ends}
    if heads == ("multiple_choice",):
        return {"labels": rng.integers(0, choices, B // choices)}
    return {"labels": rng.integers(0, num_labels, B)}


def run(model, batch, labels, heads, *, choices=2):
    """Hugging Face's (loss, outputs, gradients by name)."""
    if heads == ("next_sentence",):
        labels = {"labels": labels["next_sentence_label"]}
    given = hugging_face.inputs(batch, **labels)
    if heads == ("multiple_choice",):
        given |= {name: given[name].reshape(-1, choices, batch.shape[1]) for name in given if name != "labels"}
    model.zero_grad()
    out = model(**given, output_hidden_states=True, output_attentions=True)
    out.loss.backward()
    gradients = {name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None}
    return float(out.loss.detach()), out, gradients


def normwise(ours, theirs):
    """‖ours − theirs‖ / ‖theirs‖ (Frobenius); absolute where theirs is zero."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    size = np.linalg.norm(theirs)
    return float(np.linalg.norm(ours - theirs) / (size or 1.0))


def assert_gradients_agree(ours, theirs, limit):
    """Every gradient within ``limit`` of Hugging Face's, normwise; one that Hugging Face does not have must be zero.

    A tensor whose true gradient is zero (the key bias; whatever moves all scores of a softmax together) holds rounding
    only: it is compared on the scale of the largest gradient.
    """
    assert set(theirs) <= set(ours)
    largest = max(np.linalg.norm(g) for g in theirs.values())
    for name, gradient in ours.items():
        hf = theirs.get(name, np.zeros_like(gradient))
        assert gradient.shape == hf.shape, name
        distance = np.linalg.norm(gradient - hf)
        assert distance <= limit * max(np.linalg.norm(hf), 1e-3 * largest), f"{name}: {distance:.3g}"
