"""float32 backends against Hugging Face in float64, within what float32 rounding allows on this very model.

The allowance is measured, not set: see rounding.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from random_models import random_batch, random_labels, random_model, run
from rounding import SLACK, distance, float32_errors

from refbert.backend import registry
from refbert.backend.reference import ReferenceBackend
from refbert.model import Model

HEADS = [
    ("masked_lm", "next_sentence"),
    ("sequence_classification",),
    ("token_classification",),
    ("question_answering",),
]
SHAPES = {
    "ragged": (4, 17, "ragged"),
    "length 1": (4, 1, "full"),
    "length 512": (2, 512, "ragged"),
    "a fully padded row": (4, 9, "dead"),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("heads", HEADS, ids="+".join)
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_within_rounding(backend, heads, shape):
    theirs, config, weights = random_model(heads)
    # The same rounded weights on both sides, so that only the arithmetic differs.
    weights = {name: w.astype(np.float32).astype(np.float64) for name, w in weights.items()}
    theirs.load_state_dict({name: as_tensor(w) for name, w in weights.items()}, strict=False)
    B, S, kind = SHAPES[shape]
    batch = random_batch(B, S, kind=kind)
    labels = random_labels(heads, batch)
    loss, out, gradients = run(theirs, batch, labels, heads)
    reference = Model(config, weights, backend=ReferenceBackend(), heads=heads)
    exact, allowed = float32_errors(reference, batch, labels)
    assert abs(loss - exact["loss"]) <= 1e-10 * loss

    model = Model(config, weights, backend=registry.create(backend, dtype="float32"), heads=heads)
    our_loss, ours = model.loss_and_gradients(batch, labels)
    states = model(batch, output_hidden_states=True, heads=()).hidden_states
    assert abs(our_loss - loss) <= max(SLACK * allowed["loss"], 4 * 2.0**-24) * loss
    for i, state in enumerate(states):
        hf = out.hidden_states[i].detach().numpy()
        assert distance(state, hf) <= SLACK * allowed[f"hidden_states.{i}"], i
    largest = max(np.linalg.norm(g) for g in gradients.values())
    for name, gradient in gradients.items():
        if np.linalg.norm(gradient) < 1e-10 * largest:
            continue  # zero in exact arithmetic (the key bias): no digits to compare
        assert distance(ours[name], gradient) <= SLACK * allowed[name], name


def as_tensor(w):
    import torch

    return torch.from_numpy(np.ascontiguousarray(w))
