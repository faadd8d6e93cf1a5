"""How far float32 may be from float64 on one whole model: measured on the same function in other roundings.

Renaming the hidden units (and the feed-forward units) of a BERT changes no number in exact arithmetic, but every sum
over them runs in another order. The textbook reference, run in float32 on a few such renamings, shows how far float32
rounding carries each tensor from its float64 value; a backend in the same arithmetic may be `SLACK` times as far.

What the renaming must respect: hidden units inside one head may be permuted among themselves only together with the
same units of query, key and value, so those inner units keep their places here, and only the residual stream (every H
axis that is added to it) and the feed-forward axis are renamed.
"""

from __future__ import annotations

import numpy as np

from refbert.backend.reference import ReferenceBackend
from refbert.model import Model

RUNS = 3
# Errors of independent roundings scatter: the largest of three draws is exceeded by a fourth a quarter of the time,
# and by a factor of 4 practically never unless the arithmetic is coarser.
SLACK = 4.0


def rename(weights, hidden, inner):
    """The same function with hidden units permuted by ``hidden`` and every layer's feed-forward units by ``inner``."""
    out = {}
    for name, w in weights.items():
        if name == "cls.predictions.bias" or name.startswith(
            ("cls.seq_relationship.bias", "classifier.bias", "qa_outputs.bias")
        ):
            axes = (None,)
        elif name.startswith("bert.pooler.dense"):
            axes = (None, hidden) if w.ndim == 2 else (None,)  # the pooled vector keeps its order
        elif name.startswith(("cls.seq_relationship.weight",)):
            axes = (None, None)
        elif name.startswith(("classifier.weight", "qa_outputs.weight")):
            axes = (None, hidden)
        elif ".attention.self." in name:
            axes = (None, hidden) if w.ndim == 2 else (None,)
        elif ".attention.output.dense.weight" in name:
            axes = (hidden, None)
        elif ".intermediate.dense" in name:
            axes = (inner, hidden) if w.ndim == 2 else (inner,)
        elif ".output.dense.weight" in name:
            axes = (hidden, inner)
        elif name.startswith("cls.predictions.transform.dense.weight"):
            axes = (hidden, hidden)
        elif w.ndim == 2:  # the embedding tables
            axes = (None, hidden)
        else:  # LayerNorm, and biases that are added to the residual stream
            axes = (hidden,)
        for axis, order in enumerate(axes):
            if order is not None:
                w = np.take(w, order, axis=axis)
        out[name] = w
    return out


def float32_errors(model, batch, labels):
    """Normwise float32 error of the loss (key "loss"), each hidden state ("hidden_states.i") and each gradient.

    ``model`` is the float64 reference; gradients are measured in the norm of their own tensor.
    """
    weights = model.state_dict()
    exact = _quantities(model, batch, labels, weights, None, None)
    worst = dict.fromkeys(exact, 0.0)
    rng = np.random.default_rng(0)
    H, F = model.config.hidden_size, model.config.intermediate_size
    for _ in range(RUNS):
        hidden, inner = rng.permutation(H), rng.permutation(F)
        renamed = Model(
            model.config,
            rename(weights, hidden, inner),
            backend=ReferenceBackend(dtype="float32"),
            profile=model.profile,
            heads=model.heads,
        )
        rounded = _quantities(renamed, batch, labels, weights, hidden, inner)
        for name, value in rounded.items():
            worst[name] = max(worst[name], distance(value, exact[name]))
    return exact, worst


def distance(x, y):
    """‖x − y‖/‖y‖."""
    return float(np.linalg.norm(np.asarray(x, np.float64) - y) / (np.linalg.norm(y) or 1.0))


def _quantities(model, batch, labels, weights, hidden, inner):
    out = model(batch, output_hidden_states=True, heads=())
    loss, gradients = model.loss_and_gradients(batch, labels)
    back = slice(None) if hidden is None else np.argsort(hidden)
    values = {f"hidden_states.{i}": x[..., back].astype(np.float64) for i, x in enumerate(out.hidden_states)}
    values["loss"] = np.float64(loss)
    if hidden is not None:
        gradients = rename(gradients, np.argsort(hidden), np.argsort(inner))
    return values | {name: g.astype(np.float64) for name, g in gradients.items()}
